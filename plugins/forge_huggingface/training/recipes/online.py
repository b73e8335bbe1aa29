"""Online reinforcement learning: the model answers prompts, and reward functions judge groups of answers.

GRPO is arXiv 2402.03300, RLOO arXiv 2402.14740. Answers, advantages and losses are TRL's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from forge.api import Noted
from forge_huggingface.acting.load import load as acting_of
from forge_huggingface.acting.template import calling
from forge_huggingface.rendering.tokenizers import longest_row
from forge_huggingface.rewards.load import load
from forge_huggingface.rewards.trl import functions, weights
from forge_huggingface.training.recipe import Idle, Recipe
from forge_huggingface.training.recipes.acting import Calling, check_positions
from forge_huggingface.training.recipes.groups import Grouped
from forge_huggingface.training.recipes.judging import seat_judges
from forge_huggingface.training.recipes.rollouts import Decoding, decoder, largest
from forge_huggingface.training.recipes.sampler import InOrder
from forge_huggingface.training.recipes.seeing import Seeing, unsampled
from forge_huggingface.training.recipes.weighing import Answerwise, Batch, mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forge.api import Data, Job, Loaded, Run


class ResumableGRPO(Calling, Seeing, Decoding, InOrder, Grouped, Answerwise, GRPOTrainer):  # type: ignore[misc]  # Any to mypy: see pyproject
    """TRL's trainer, which goes on with its prompts in order."""

    def held_out_loss(self, batches: list[Batch]) -> float:
        """Return the mean over answers, or over their tokens, as the loss is one."""
        unit = "tokens" if self.loss_type in {"bnpo", "cispo", "dapo", "vespo"} else "rows"
        return mean([(each.loss, each.counts[unit]) for each in batches])


class ResumableRLOO(Seeing, Decoding, InOrder, Grouped, Answerwise, RLOOTrainer):  # type: ignore[misc]
    """TRL's trainer, which goes on with its prompts in order."""


def grpo(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:
    """Return what group relative policy optimization needs."""
    acting = acting_of(job, run.emit)
    if acting is not None:
        check_positions(loaded.model)
        if calling(data.processor, job.data.variables) is not None:
            what = "TRL writes conversations with calls by its own version of the chat template"
            run.emit(Noted(f"{what}, in which what was said before stays as it was"))
    limit = longest_row(job, run, getattr(data.processor, "tokenizer", data.processor))
    room = limit - int(job.train.options["max_completion_length"])
    return _recipe(job, run, loaded, data, GRPOConfig, ResumableGRPO, acting=acting, room=room)


def rloo(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:
    """Return what REINFORCE leave-one-out needs."""
    return _recipe(job, run, loaded, data, RLOOConfig, ResumableRLOO)


def _recipe(job: Job, run: Run, loaded: Loaded, data: Data, config: type, trainer: type, **more: Any) -> Recipe:
    rewards = load(job, run)
    seat_judges(rewards, job, run, converses=not isinstance(data.train[0]["prompt"], str))
    return Recipe(
        config=config,
        trainer=trainer,
        arguments={"reward_funcs": functions(rewards), "decoder": decoder(job, run), **more},
        values={"reward_weights": weights(rewards), **unsampled(loaded.model, job.train.options)},
        batch=largest,
        every=steps_per_answers,
        idle=idle(job),
    )


def idle(job: Job, *, compares: bool = True) -> Callable[[Mapping[str, Any]], Idle | None]:
    """Return what says of a logged step why its answers taught nothing.

    Args:
        job: The job.
        compares: Whether the model learns from how the answers to a prompt differ in reward.
    """
    options = job.train.options
    masks, limit = options.get("mask_truncated_completions"), options.get("max_completion_length")

    def found(values: Mapping[str, Any]) -> Idle | None:
        if "reward" in values and values["reward"] is None:
            why = "no answer had a reward, since every reward function returned None"
            return Idle(why, "see the reward functions, and the columns that they read")
        if masks and (values.get("completions/clipped_ratio") or 0) >= 1:
            why = f"every answer was cut at max_completion_length = {limit} and left out by mask_truncated_completions"
            return Idle(why, "raise max_completion_length, or ask for short answers")
        if compares and (values.get("frac_reward_zero_std") or 0) >= 1:
            why = "all answers to a prompt had the same reward"
            return Idle(why, "use prompts that are neither too easy nor too hard, or a finer reward; see the answers")
        return None

    return found


def steps_per_answers(config: Any) -> int:
    """Return after how many optimizer steps the model answers anew and a checkpoint may stand.

    A set of answers lasts ``steps_per_generation * num_iterations`` batches, and a step takes
    ``gradient_accumulation_steps`` of them (``trl/trainer/grpo_trainer.py``, ``_prepare_inputs``).
    """
    batches = config.steps_per_generation * getattr(config, "num_iterations", 1)
    return int(math.lcm(batches, config.gradient_accumulation_steps) // config.gradient_accumulation_steps)

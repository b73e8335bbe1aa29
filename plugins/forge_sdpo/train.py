"""TRAIN: SDPO by huggingface's way of training, with a trainer of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Warned
from forge_huggingface.methods import Method
from forge_huggingface.rewards.load import load
from forge_huggingface.rewards.trl import functions, weights
from forge_huggingface.training.recipe import Idle, Recipe
from forge_huggingface.training.train import train_by
from forge_sdpo.options import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forge.api import Data, Job, Loaded, Run, Trained
    from forge_huggingface.rewards.trl import RewardFunction
    from forge_sdpo.options import Sdpo

METHOD = Method(
    "sdpo", "GRPOConfig", "forge_sdpo.train:recipe", "prompts", "self-distillation policy optimization", online=True
)


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train by SDPO and save the weights. Raises what :func:`forge_huggingface.training.train.train_by` raises."""
    return train_by(METHOD, job, run, loaded, data)


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what SDPO adds to the common way of training."""
    from trl import GRPOConfig

    from forge_huggingface.training.recipes.judging import seat_judges
    from forge_huggingface.training.recipes.online import idle, steps_per_answers
    from forge_huggingface.training.recipes.rollouts import decoder
    from forge_sdpo.trainer import SDPOTrainer

    rewards, settings = load(job, run), settings_of(job)
    seat_judges(rewards, job, run, converses=not isinstance(data.train[0]["prompt"], str))
    scoring = functions(rewards)
    feedback = feedback_of(scoring)
    if settings.feedback == "never" and "plugins.sdpo.feedback" not in run.plan.named:
        feedback = noticed(feedback, run)

    def warn(message: str) -> None:
        run.emit(Warned(message))

    return Recipe(
        config=GRPOConfig,
        trainer=SDPOTrainer,
        arguments={
            "reward_funcs": scoring,
            "settings": settings,
            "feedback": feedback,
            "warn": warn,
            "decoder": decoder(job, run),
        },
        values={"reward_weights": weights(rewards)},
        batch=largest,
        every=steps_per_answers,
        idle=without_teacher(idle(job, compares=False), settings),
    )


def without_teacher(
    others: Callable[[Mapping[str, Any]], Idle | None], settings: Sdpo
) -> Callable[[Mapping[str, Any]], Idle | None]:
    """Return what says why a logged step without a gradient had none: ``others``, or that no teacher was there."""

    def found(values: Mapping[str, Any]) -> Idle | None:
        if values.get("grad_norm") != 0:  # a teacher is there for what rewards and lengths do not tell
            return None
        if (other := others(values)) is not None or values.get("sdpo/with_teacher"):
            return other
        threshold = f"success_reward_threshold = {settings.success_reward_threshold:g}"
        why = f"no answer had a teacher, since no reward reached {threshold} and no feedback was used"
        return Idle(why, "lower the threshold, make the task easier, or have a reward give feedback")

    return found


def feedback_of(scoring: Sequence[RewardFunction]) -> Callable[[], list[str | None]]:
    """Return the function that joins what the rewards said of each of the rollouts that they scored last."""

    def feedback() -> list[str | None]:
        said = [[score.feedback for score in function.last] for function in scoring]
        return ["\n\n".join(text for text in each if text and text.strip()) or None for each in zip(*said, strict=True)]

    return feedback


def noticed(feedback: Callable[[], list[str | None]], run: Run) -> Callable[[], list[str | None]]:
    """Warn once if there is feedback after all, where the recipe was chosen because none could be seen."""
    warned = False

    def watched() -> list[str | None]:
        nonlocal warned
        said = feedback()
        if not warned and any(said):
            warned = True
            message = "a reward gives feedback, and it is not used: no source of a reward has the word"
            run.emit(Warned(message, 'write [plugins.sdpo] feedback = "without-solution"'))
        return said

    return watched


def largest(trainer: Any, data: Data) -> dict[str, Any]:
    """Return a batch as large as one can get, teacher's prompts included, for the probe.

    A teacher reads at most the question, a demonstration as long as an answer, as much feedback, and the templates.
    """
    import torch

    from forge_huggingface.training.recipes import rollouts
    from forge_sdpo.shares import counts

    batch = rollouts.largest(trainer, data)
    question, answer = batch["prompt_ids"], trainer.args.max_completion_length
    length = min(max(trainer.fitter.limit, 1), question.size(1) + 2 * answer + 128)
    batch["teacher_ids"] = torch.full((len(question), length), int(question[0, 0]), device=question.device)
    batch["teacher_mask"] = torch.ones_like(batch["teacher_ids"])
    trainer.window = trainer.accelerator.reduce(counts(batch), reduction="sum")
    return batch

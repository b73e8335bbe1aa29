"""The trainer: TRL's GRPOTrainer with another loss, and with a teacher's prompt for every rollout.

Why GRPOTrainer and not TRL's experimental SDPOTrainer: what SDPO needs around its loss is what GRPO has (rollouts, vLLM
and its correction, rewards that cannot be given, buffering, completions in the log), and GRPO's is the stable API; a
job then changes between both methods by one word, with the same arguments and reward functions. Of the experimental
trainer everything else would have had to be replaced: its feedback is a fixed column, its teacher is loaded from disk
a second time and starts a LoRA average from zeros, its loss holds two sets of full logits and is a mean over
micro-batches, and its arguments are others. What is overridden here: rewards are noted as they are given, teachers'
prompts are added to a batch of rollouts, and the loss is SDPO's.

This module imports trl and so is imported late: under Unsloth the base is the class that Unsloth has put in its place.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback
from trl import GRPOTrainer
from trl.models.utils import _ForwardRedirection
from trl.trainer.utils import pad

from forge.api import ForgeError, UsageError
from forge_huggingface.rows import put_back
from forge_huggingface.training.recipes.groups import Grouped
from forge_huggingface.training.recipes.rollouts import Decoding
from forge_huggingface.training.recipes.sampler import InOrder
from forge_huggingface.training.recipes.weighing import Answerwise, Batch, mean
from forge_sdpo import fused, head
from forge_sdpo.context import Fitter, Rollout, contexts, is_success
from forge_sdpo.guards import Guards
from forge_sdpo.objective import Objective
from forge_sdpo.shares import counts, loss_mask, shares
from forge_sdpo.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from forge_sdpo.options import Sdpo

STATE = "sdpo.json"
"""The guards' state in a checkpoint."""


@dataclass(slots=True)
class Scores:
    """What the reward functions said of one batch of rollouts.

    Attributes:
        completion_ids: The process's own rollouts.
        prompts: Their prompts.
        rewards: Every process's summed rewards, in order; NaN where none could be given.
        feedback: The process's own.
    """

    completion_ids: list[list[int]]
    prompts: list[Any]
    rewards: list[float]
    feedback: list[str | None]


class SDPOTrainer(Decoding, InOrder, Grouped, Answerwise, GRPOTrainer):  # type: ignore[misc]  # Any to mypy: see pyproject
    """Self-distillation policy optimization (arXiv 2601.20802).

    Args:
        settings: The job's settings, with nothing left open.
        feedback: Returns the feedback on the rollouts that the reward functions scored last, one a rollout.
        warn: Is told what the user should know while the run goes on.
        arguments: Those of GRPOTrainer. Its ``loss_type``, ``beta``, ``delta`` and the like have no say here; with
            ``policy_weight``, ``epsilon`` and ``epsilon_high`` clip the policy's part.

    Raises:
        UsageError: The arguments cannot be combined with SDPO.
    """

    units: ClassVar[Mapping[str, str]] = {**Answerwise.units, "sdpo/gain": "taught", "sdpo/divergence": "taught"}

    _tag_names = ("trl", "sdpo")
    _name = "SDPO"

    def __init__(
        self,
        *,
        settings: Sdpo,
        feedback: Callable[[], Sequence[str | None]] | None = None,
        warn: Callable[[str], None] = warnings.warn,
        **arguments: Any,
    ) -> None:
        args = arguments["args"]
        if args.steps_per_generation % args.gradient_accumulation_steps:
            raise UsageError(
                f"steps_per_generation = {args.steps_per_generation} cannot be",
                f"a step accumulates {args.gradient_accumulation_steps} batches, and they must be of the same rollouts",
                "make it a multiple of gradient_accumulation_steps, or leave it out",
            )
        super().__init__(**arguments)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UsageError("SDPO cannot shard the model", "its teacher needs whole parameters", "use DDP")
        self.settings = settings
        self.feedback_source, self.warn = feedback, warn
        if settings.alpha is None or settings.feedback is None:
            raise UsageError("SDPO's settings are incomplete", "alpha or feedback is open")
        self.objective = Objective(
            alpha=settings.alpha,
            topk=settings.distillation_topk if settings.objective == "top-k" else None,
            tail=settings.distillation_add_tail,
            sampled=settings.objective == "sampled",
            temperature=self.temperature,
            is_clip=settings.distillation_is_clip or None,
            policy_weight=settings.policy_weight,
            epsilon=(self.epsilon_low, self.epsilon_high),
        )
        self.teacher = Teacher(self.model, settings.teacher, settings.teacher_update_rate or 0.0)
        self.guards = Guards(settings.teacher_patience, settings.reward_patience)
        self.window: torch.Tensor | None = None
        self.scores: Scores | None = None
        self._checked = False
        self._redirection = _ForwardRedirection()
        self.fitter = self._fitter()
        self.add_callback(_AfterStep(self))

    # Rollouts

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[Any], completions: list[Any], completion_ids: list[list[int]]
    ) -> torch.Tensor:
        """Note rewards and feedback as they are given. Shape of what is returned: (all rollouts, functions)."""
        each: torch.Tensor = super()._calculate_rewards(inputs, prompts, completions, completion_ids)
        weighted = each * self.reward_weights.to(each.device)
        summed = weighted.nansum(dim=1).masked_fill(each.isnan().all(dim=1), torch.nan)
        said: list[str | None] = list(self.feedback_source()) if self.feedback_source else [None] * len(prompts)
        column = self.settings.feedback_column
        if column is not None:
            said = [text or put_back(row).get(column) for text, row in zip(said, inputs, strict=True)]
        self.scores = Scores(completion_ids, prompts, summed.tolist(), said)
        return each

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Add to a batch of rollouts what the teacher reads: ``teacher_ids`` and ``teacher_mask``, (rollouts, tokens).

        A row of zeros in the mask is a rollout without a teacher.
        """
        output: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.scores is None:
            raise ForgeError("SDPO saw no rewards", "the base trainer did not call _calculate_rewards")
        ids, scores = self._teacher_prompts(self.scores), self.scores
        self.scores = None
        taught = [found is not None for found in ids]
        device = output["completion_ids"].device
        rows = [torch.tensor(found or [self._tokenizer.pad_token_id]) for found in ids]
        masks = [torch.full_like(row, int(has)) for row, has in zip(rows, taught, strict=True)]
        padding = {"padding_side": "left"}
        output["teacher_ids"] = pad(rows, padding_value=self._tokenizer.pad_token_id, **padding).to(device)
        output["teacher_mask"] = pad(masks, padding_value=0, **padding).to(device)
        self._watch(scores, sum(taught))
        return output

    def _teacher_prompts(self, scores: Scores) -> list[list[int] | None]:
        """Return the ids of the teacher's prompt for each of the process's rollouts, None where there is no teacher."""
        mode = "train" if self.model.training else "eval"
        group = self.num_generations if mode == "train" else self.num_generations_eval
        first = self.accelerator.process_index * len(scores.prompts)
        threshold = self.settings.success_reward_threshold
        mine = zip(scores.completion_ids, scores.rewards[first:], strict=False)
        own = [
            self._tokenizer.decode(ids, skip_special_tokens=True) if is_success(reward, threshold) else None
            for ids, reward in mine
        ]
        rollouts = [Rollout(*pair) for pair in zip(scores.rewards, gather_object(own), strict=True)]
        chosen = contexts(rollouts, scores.feedback, first, group, self.settings)
        fitted = [
            self.fitter.fit(prompt, context, self.settings) if context else (None, False)
            for prompt, context in zip(scores.prompts, chosen, strict=True)
        ]
        solved = [any(r.answer is not None for r in rollouts[i : i + group]) for i in range(0, len(rollouts), group)]
        said = [bool(text and text.strip()) for text in scores.feedback]
        counts = {
            "with_teacher": [ids is not None for ids, _ in fitted],
            "with_demonstration": [c.demonstration is not None for c in chosen],
            "with_feedback": [c.feedback is not None for c in chosen],
            "feedback_given": said,
            "cut": [cut for _, cut in fitted],
        }
        for name, each in counts.items():
            self._metrics[mode][f"sdpo/{name}"].append(self._share(each))
        self._metrics[mode]["sdpo/solved_groups"].append(sum(solved) / max(len(solved), 1))
        return [ids for ids, _ in fitted]

    def _watch(self, scores: Scores, taught: int) -> None:
        if not self.model.training:
            return
        said = sum(bool(text and text.strip()) for text in scores.feedback)
        all_taught, all_said = self._sum(taught, said)
        self.guards.batch(
            taught=int(all_taught),
            rewards=scores.rewards,
            threshold=self.settings.success_reward_threshold,
            feedback=int(all_said),
        )
        self._metrics["train"]["sdpo/batches_without_teacher"].append(float(self.guards.without))

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """Return the next micro-batch; note what its optimizer step is a mean over."""
        inputs: dict[str, Any] = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            self.window = counts(inputs)
            return inputs
        each = self.args.gradient_accumulation_steps
        index = self._step % self.args.steps_per_generation
        if self.window is None or index % each == 0:
            local = sum(counts(batch) for batch in self._buffered_inputs[index : index + each])
            self.window = self.accelerator.reduce(local, reduction="sum")
        return inputs

    # The loss

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ARG002
    ) -> torch.Tensor:
        """Return the part of this micro-batch in the loss of its optimizer step."""
        if return_outputs:
            raise ForgeError("SDPO's loss has no outputs")
        inner = self.accelerator.unwrap_model(model)
        if model is inner:
            found: torch.Tensor = self._sdpo_loss(inner, inputs)
        else:  # DDP arms its reduction in its forward pass only
            found = self._redirection(model, inner, self._sdpo_loss, inner, inputs)
        return found

    def _sdpo_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        with self.accelerator.autocast():
            if not self._checked:
                self._check_head(model, inputs)
            return self._loss_of(model, inputs)

    def _loss_of(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        completion_ids, completion_mask = inputs["completion_ids"], inputs["completion_mask"]
        keep, mask = completion_ids.size(1), loss_mask(inputs)
        taught = inputs["teacher_mask"].any(dim=1)
        distilled = mask & taught[:, None]
        # Tokens with a teacher first.
        where = torch.cat([distilled.nonzero(), (mask & ~taught[:, None]).nonzero()])
        pick = (where[:, 0], where[:, 1])

        teacher = self._teacher_logits(model, inputs, taught, distilled)
        states = head.hidden_states(
            model,
            torch.cat([inputs["prompt_ids"], completion_ids], dim=1),
            torch.cat([inputs["prompt_mask"], completion_mask], dim=1),
            keep,
        )
        distill, policy = self._shares(mask, distilled)
        advantages = inputs["advantages"]
        advantages = advantages[:, None].expand_as(mask) if advantages.dim() == 1 else advantages
        older = inputs.get("old_per_token_logps")
        tokens = fused.Tokens(
            labels=completion_ids[pick],
            taught=int(distilled.sum()),
            teacher=teacher,
            distill=self._mismatch(distill, inputs)[pick],
            policy=None if policy is None else self._mismatch(policy, inputs)[pick],
            advantages=None if policy is None else advantages[pick],
            old=None if older is None else older[pick],
        )
        loss, tally = fused.loss(states[pick], head.logits_of(model), head.parameters_of(model), tokens, self.objective)
        self._record(tally, tokens.taught)
        return loss

    def _shares(self, mask: torch.Tensor, distilled: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what each token counts in the two parts of the loss, (rollouts, tokens) each.

        Both are shares of the whole optimizer step on all processes, so a step is the same however it is divided. The
        factor is there because DDP takes the mean of the processes' gradients.
        """
        if self.window is None:
            raise ForgeError("SDPO lost count of its batches", "compute_loss came before _prepare_inputs")
        processes = self.accelerator.num_processes if self.model.training else 1
        share = self.settings.policy_weight
        distill, policy = shares(mask, distilled, self.settings.aggregation, self.window)
        return processes * (1 - share) * distill, processes * share * policy if share else None

    def _mismatch(self, share: torch.Tensor, inputs: dict[str, Any]) -> torch.Tensor:
        """Correct for what vLLM sampled from another distribution than this model's (TRL computes the ratio)."""
        found = inputs.get("importance_sampling_ratio")
        return share if found is None else share * found

    def _teacher_logits(
        self, model: Any, inputs: dict[str, Any], taught: torch.Tensor, distilled: torch.Tensor
    ) -> Callable[[int, int], Any] | None:
        """Run the teacher over the rollouts that have one; return a function that makes logits of their tokens."""
        if not taught.any():
            return None
        ids = torch.cat([inputs["teacher_ids"], inputs["completion_ids"]], dim=1)[taught]
        mask = torch.cat([inputs["teacher_mask"], inputs["completion_mask"]], dim=1)[taught]
        return self.teacher.logits(model, ids, mask, distilled[taught], self.args.gradient_checkpointing_kwargs)

    def _check_head(self, model: Any, inputs: dict[str, Any]) -> None:
        row, mask = inputs["prompt_ids"][:1], inputs["prompt_mask"][:1].bool()
        with self.teacher.speaks(model, self.args.gradient_checkpointing_kwargs, held=False):
            head.check(model, row[mask][None, -8:])
        self._checked = True

    # Evaluation

    def counts(self, inputs: Any) -> Mapping[str, float]:
        """Count the tokens that have a teacher too."""
        return {**super().counts(inputs), "taught": float(counts(inputs)[0])}

    def held_out_loss(self, batches: list[Batch]) -> float:
        """Return the mean over answers, or over the tokens that have a teacher, or with a policy's part over all."""
        tokens = "tokens" if self.settings.policy_weight else "taught"
        unit = tokens if self.settings.aggregation == "token-mean" else "rows"
        return mean([(each.loss, each.counts[unit]) for each in batches])

    # Bookkeeping

    def _record(self, tally: fused.Tally, taught: int) -> None:
        mode = "train" if self.model.training else "eval"
        entropy, divergence, gain = (
            torch.cat(each).sum().item() if each else 0.0 for each in (tally.entropy, tally.divergence, tally.gain)
        )
        seen = sum(map(len, tally.entropy))
        entropy, divergence, gain, every, with_teacher = self._sum(entropy, divergence, gain, seen, taught)
        self._metrics[mode]["entropy"].append(entropy / max(every, 1))
        if with_teacher:
            self._metrics[mode]["sdpo/gain"].append(gain / with_teacher)
            if not self.objective.sampled:  # its value is no divergence
                self._metrics[mode]["sdpo/divergence"].append(divergence / with_teacher)

    def _sum(self, *values: float) -> list[float]:
        """Return sums over all processes."""
        local = torch.tensor(values, dtype=torch.float32, device=self.accelerator.device)
        total: list[float] = self.accelerator.reduce(local, reduction="sum").tolist()
        return total

    def _share(self, each: Sequence[bool]) -> float:
        have, every = self._sum(sum(each), len(each))
        return have / max(every, 1.0)

    def _fitter(self) -> Fitter:
        config = self.accelerator.unwrap_model(self.model).config.get_text_config()
        positions = getattr(config, "max_position_embeddings", None)
        limit = self.settings.max_reprompt_len
        if positions is not None:
            limit = min(limit, positions - self.max_completion_length)
        return Fitter(
            render=lambda prompt: list(self._tokenize_prompts([prompt])[0][0]),
            encode=lambda text: list(self._tokenizer(text, add_special_tokens=False)["input_ids"]),
            decode=lambda ids: str(self._tokenizer.decode(ids)),
            limit=limit,
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save the teacher and the guards beside what the trainer saves."""
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            if self.teacher.held:
                self.teacher.save(folder)
            (folder / STATE).write_text(json.dumps(self.guards.state()), encoding="utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        folder = Path(resume_from_checkpoint)
        self.teacher.load(folder)
        self.guards.restore(json.loads((folder / STATE).read_text(encoding="utf-8")))


class _AfterStep(TrainerCallback):  # type: ignore[misc]  # as above
    """Once the last step on a batch of rollouts is done, the teacher follows and the rewards are judged."""

    def __init__(self, trainer: SDPOTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Runs before evaluation and saving, so that a checkpoint has the teacher of the next rollouts."""
        trainer = self.trainer
        if trainer._step % (args.steps_per_generation * trainer.num_iterations):  # noqa: SLF001
            return
        trainer.teacher.follow()
        if why := trainer.guards.collapsed():
            if args.load_best_model_at_end and state.best_global_step:
                trainer.warn(f"stopping at step {state.global_step}: {why}; step {state.best_global_step} was the best")
                control.should_training_stop = True
                return
            raise ForgeError(
                f"the run has collapsed at step {state.global_step}",
                why,
                "take an earlier checkpoint or load_best_model_at_end, and a frozen or slower teacher",
            )

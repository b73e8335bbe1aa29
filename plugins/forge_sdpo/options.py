"""The keys of ``[plugins.sdpo]``: what SDPO adds to GRPO's arguments, which stay in ``[train]``.

They have a table of their own so that a job changes between ``grpo`` and ``sdpo`` by its ``method`` alone. Names are
those of TRL's ``SDPOConfig`` where it has one, and of the sdpo_rl package's (``enabled``, ``alpha``,
``distillation_topk``, ``teacher_update_rate``). A key without a value is decided by recipe: see ``rules.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, Field

from forge.api import Hint, Mistake, Table
from forge_sdpo.rules import can_feed_back, open_keys, preset, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api import Job

FIELDS = {
    "reprompt_template": ("prompt", "solution", "feedback"),
    "solution_template": ("successful_previous_attempt",),
    "feedback_template": ("feedback_raw",),
}
"""The fields that each template must have."""

NAMES = {
    "distillation_alpha": "alpha",
    "topk": "distillation_topk",
    "top_k": "distillation_topk",
    "is_clip": "distillation_is_clip",
    "teacher_model_kind": 'teacher ("base" is "frozen")',
    "teacher_regularization": "teacher",
    "ema_update_rate": "teacher_update_rate",
    "teacher_sync_steps": "teacher_update_rate; the average moves once a batch of rollouts",
    "distillation_mode": 'objective ("topk_logits" is "top-k", "full_logits" "full", "sampled_token" "sampled")',
    "full_logit_distillation": 'objective = "full" or "sampled"',
    "distillation_weight": "policy_weight, which is 1 less it",
    "include_environment_feedback": 'feedback = "always" or "never"',
    "environment_feedback_only_without_solution": 'feedback = "without-solution"',
    "max_reprompt_length": "max_reprompt_len",
}
"""What other implementations call a key."""


class Sdpo(Table):
    """``[plugins.sdpo]``."""

    enabled: bool = Field(True, description='Must be true: what is left without it is `method = "grpo"`.')
    alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="0 is KL(teacher‖student), 1 KL(student‖teacher), between them a Jensen-Shannon divergence, which "
        "goes to 0 at both ends: 0.01 is not nearly 0. By recipe: 0.5, with feedback 1.",
    )
    objective: Literal["top-k", "full", "sampled"] = Field(
        "top-k", description="Compare the K likeliest tokens, the whole vocabulary, or the sampled token only."
    )
    distillation_topk: int | None = Field(None, ge=1, description="K. By recipe: 100, with feedback 20.")
    distillation_add_tail: bool = Field(
        True, description="With top-K: count the rest of the vocabulary as one token. Without it, renormalise."
    )
    distillation_is_clip: float = Field(
        2.0, ge=0, description="Upper bound of importance ratios where a rollout is older than the student; 0: none."
    )
    aggregation: Literal["token-mean", "sequence-mean"] = Field(
        "token-mean",
        description="Mean over all tokens with a teacher (the paper), or over all rollouts of their tokens' mean (what "
        "the authors' code does with its batch of 1). Neither depends on accumulation or the number of processes.",
    )
    policy_weight: float = Field(
        0.0, ge=0, lt=1, description="λ, the share of GRPO's advantage (the paper's eq. 3). It helped small models."
    )
    teacher: Literal["ema", "trust-region", "frozen", "live"] = Field(
        "ema",
        description="Whose weights: a running average of the student's, the first ones mixed with the present ones, "
        "the first ones, or the present ones, which the paper saw diverge.",
    )
    teacher_update_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of the student in each step of `ema`, once a batch of rollouts, or in the mixture of "
        "`trust-region`. By recipe: 0.05, with feedback 0.01.",
    )
    success_reward_threshold: float = Field(
        1.0, description="Summed, weighted reward from which a rollout is a demonstration for its siblings."
    )
    use_successful_as_teacher: bool = Field(True, description="Show successful siblings to the teacher.")
    dont_reprompt_on_self_success: bool = Field(True, description="Never show a rollout to its own teacher.")
    feedback: Literal["never", "without-solution", "always"] | None = Field(
        None, description="When the teacher sees feedback. By recipe: `never`, with feedback `without-solution`."
    )
    feedback_column: str | None = Field(
        None, min_length=1, description="A column of the rows with feedback, for rollouts that no reward says it of."
    )
    remove_thinking_from_demonstration: bool = Field(True, description="Take `<think>` blocks out of demonstrations.")
    max_reprompt_len: int = Field(
        10240, ge=16, description="Most tokens of a teacher's prompt; the demonstration's middle is cut to fit."
    )
    reprompt_template: str = Field(
        "{prompt}{solution}{feedback}\n\nCorrectly solve the original question.\n",
        description="The teacher's last turn.",
    )
    solution_template: str = Field(
        "\nCorrect solution:\n\n{successful_previous_attempt}\n\n", description="A demonstration in it."
    )
    feedback_template: str = Field(
        "\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback_raw}\n\n",
        description="Feedback in it.",
    )
    teacher_patience: int = Field(
        20, ge=0, description="Stop after this many batches of rollouts in which none had a teacher; 0: never."
    )
    reward_patience: int = Field(
        20,
        ge=0,
        description="Stop when the mean reward of this many batches of rollouts is below half of the best such mean "
        "so far; 0: never.",
    )

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys contradict each other in."""
        if not self.enabled:
            yield Mistake('enabled = false leaves GRPO; write [train] method = "grpo"', ("enabled",))
        if self.objective == "sampled" and self.alpha not in {None, 1.0}:
            what = 'alpha must be 1 with objective = "sampled", which estimates the reverse divergence'
            yield Mistake(what, ("alpha",))
        if self.objective != "top-k" and self.distillation_topk is not None:
            what = f'distillation_topk would do nothing with objective = "{self.objective}"; remove it'
            yield Mistake(what, ("distillation_topk",))
        if self.teacher in {"frozen", "live"} and self.teacher_update_rate is not None:
            what = f'teacher_update_rate would do nothing with teacher = "{self.teacher}"; remove it'
            yield Mistake(what, ("teacher_update_rate",))
        if not self.use_successful_as_teacher and self.feedback == "never":
            what = 'use_successful_as_teacher = false and feedback = "never" leave nothing to teach with'
            yield Mistake(what, ("use_successful_as_teacher",))
        known = {field for every in FIELDS.values() for field in every}
        for name, fields in FIELDS.items():
            lacking = [f"{{{field}}}" for field in fields if f"{{{field}}}" not in getattr(self, name)]
            if lacking:
                yield Mistake(f"{name} lacks {' and '.join(lacking)}", (name,))
            foreign = set(re.findall(r"\{(\w+)\}", getattr(self, name))) & known - set(fields)
            for field in sorted(foreign):
                yield Mistake(f"{name} has {{{field}}}, a field of another template", (name,))

    def resolved(self, *, feedback: bool) -> Sdpo:
        """Return the settings with the recipe's values for what is open. ``feedback``: whether there can be any."""
        values, _ = preset(feedback=feedback)
        taken = {name: values[name] for name in open_keys(dict(self), values)}
        return self.model_copy(update=taken | ({"alpha": 1.0} if self.objective == "sampled" else {}))

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:
        """Say what a key of another implementation is called here."""
        return Hint(f"write {NAMES[key]}") if key in NAMES else None


def settings_of(job: Job) -> Sdpo:
    """Return the settings of a job, with nothing left open that is made use of."""
    return Sdpo.model_validate(table_of(job)).resolved(feedback=can_feed_back(job))


def train_options(method: str) -> type[BaseModel]:  # noqa: ARG001 - the offer's signature
    """Return the model of the keys in ``[train]``: GRPO's, but those for calls, which no teacher would be shown."""
    from forge_huggingface.arguments.options import RewardArguments, build

    return build("GRPOConfig", RewardArguments, without=frozenset({"max_tool_calling_iterations"}))

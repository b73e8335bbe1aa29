"""What can be said about an SDPO job while it is planned: which of the paper's recipes it gets, and what cannot be.

Imports nothing heavy; pydantic and ``ast`` only for a job that has this method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.api import Decision, Problem
from forge_huggingface.functions.reference import reference
from forge_huggingface.rewards.builtin import registry as builtin
from forge_huggingface.rewards.rules import cannot_reward, reward_problems
from forge_huggingface.rules import training
from forge_huggingface.rules.data import layout_problems

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from forge.api import Job, Machine, ModelFacts

WITHOUT_FEEDBACK: Mapping[str, Any] = {
    "alpha": 0.5,
    "distillation_topk": 100,
    "teacher_update_rate": 0.05,
    "feedback": "never",
}
"""The paper's section 3 (Table 12): rewards alone, successful siblings as demonstrations."""

WITH_FEEDBACK: Mapping[str, Any] = {
    "alpha": 1.0,
    "distillation_topk": 20,
    "teacher_update_rate": 0.01,
    "feedback": "without-solution",
}
"""The paper's section 4 (Table 13): an environment that says what went wrong."""

LEARNING_RATE = {False: 1e-5, True: 1e-6}
"""The paper's for every weight, without and with feedback. It trained no adapters."""

NO_SAY = (
    "beta",
    "delta",
    "entropy_coef",
    "importance_sampling_level",
    "loss_type",
    "multi_objective_aggregation",
    "off_policy_mask_threshold",
    "sync_ref_model",
    "top_entropy_quantile",
    "use_adaptive_entropy",
    "use_bias_correction_kl",
)
"""Arguments of GRPO's loss, which SDPO does not compute."""


def preset(*, feedback: bool) -> tuple[Mapping[str, Any], str]:
    """Return a recipe's values, and where they are from."""
    if feedback:
        return WITH_FEEDBACK, "arXiv 2601.20802, section 4: a reward can give feedback"
    return WITHOUT_FEEDBACK, "arXiv 2601.20802, section 3: no reward gives feedback"


def table_of(job: Job) -> Mapping[str, Any]:
    """Return the job's ``[plugins.sdpo]``; empty if it has none."""
    return job.plugins.get("sdpo", {})


def open_keys(table: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Return which of a recipe's keys a table leaves open and makes use of."""
    useless = set()
    if table.get("objective", "top-k") != "top-k":
        useless.add("distillation_topk")
    if table.get("teacher", "ema") in {"frozen", "live"}:
        useless.add("teacher_update_rate")
    return [name for name in values if table.get(name) is None and name not in useless]


def can_feed_back(job: Job) -> bool:
    """Whether a column or one of the rewards can give feedback, as far as its source tells: it has the word."""
    if table_of(job).get("feedback_column"):
        return True
    from forge_huggingface.functions.source import module_file  # only jobs of this method pay for it
    from forge_huggingface.rewards.table import reward_tables  # pydantic, which listing plugins does not need

    for table in reward_tables(job):
        if table.use is None:  # a reward model says a number only
            continue
        refers = reference(table.use)
        try:
            if refers.kind == "builtin":
                path = module_file(f"{builtin.__package__}.{builtin.BUILTINS[refers.place].module}")
            else:
                path = job.path(refers.place) if refers.kind == "file" else module_file(refers.place)
            if path is not None and _has_word(path):
                return True
        except (OSError, SyntaxError, ValueError, ModuleNotFoundError, KeyError):
            continue  # the rules of rewards say what is wrong with it
    return False


def _has_word(path: Path) -> bool:
    """Whether a file has the key or the argument ``feedback``, which ``Score`` of the rewards has too."""
    import ast  # only jobs of this method pay for it

    return any(
        (isinstance(node, ast.Constant) and node.value == "feedback")
        or (isinstance(node, ast.keyword) and node.arg == "feedback")
        or (isinstance(node, ast.Name) and node.id == "feedback")
        for node in ast.walk(ast.parse(path.read_bytes(), str(path)))
    )


def problems(job: Job) -> Iterable[Problem]:
    """Yield what contradicts each other in an SDPO job."""
    from forge_huggingface.arguments.options import default_of  # pydantic, which listing plugins does not need

    yield from training.train_problems(job)
    yield from reward_problems(job)
    yield from layout_problems(job, "prompts")
    options = job.train.options
    for name in NO_SAY:
        if name in options and options[name] != default_of("GRPOConfig", name)[0]:
            yield Problem(f"train.{name}", "is about GRPO's loss, which SDPO does not have", "remove it")
    per_step, each = options.get("steps_per_generation"), options.get("gradient_accumulation_steps") or 1
    if per_step and per_step % each:
        why = f"{per_step} is no multiple of gradient_accumulation_steps ({each}), and a step needs one set of rollouts"
        yield Problem("train.steps_per_generation", why, "make it a multiple, or remove it")


def cannot_train(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot train, or None."""
    return training.cannot_train(machine, job, facts) or cannot_reward(machine, job, facts)


def decide(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:
    """Yield the recipe, and what every method of online learning has decided."""
    feedback = can_feed_back(job)
    values, source = preset(feedback=feedback)
    table = table_of(job)
    for name in open_keys(table, values):
        if name == "alpha" and table.get("objective") == "sampled":
            yield Decision("plugins.sdpo.alpha", 1.0, "the sampled token estimates the reverse divergence only")
        else:
            yield Decision(f"plugins.sdpo.{name}", values[name], source)
    options = job.train.options
    if options.get("learning_rate") is None:
        full = job.adapter.leaves_model
        rate = LEARNING_RATE[feedback] * (1 if full else 10)
        why = source if full else f"ten times that of {source.partition(':')[0]}, for LoRA; the paper trained none"
        yield Decision("train.learning_rate", float(f"{rate:.12g}"), why)
    if options.get("load_best_model_at_end") and not options.get("metric_for_best_model"):
        yield Decision("train.metric_for_best_model", "reward", "the loss of a run that has collapsed is low too")
    for decision in training.decide_training(machine, job, facts):
        if decision.key != "train.learning_rate":
            yield decision

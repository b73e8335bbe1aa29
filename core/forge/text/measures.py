"""What a method logs beside its loss, in words: of a step, and of an evaluation.

The names are those of TRL's trainers. Of online methods it is told whether answers can teach: how many groups of
answers differ in reward, how many are cut, and how sure the model is of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MEASURES = {
    "reward": "reward",
    "rewards/accuracies": "accuracy",
    "accuracy": "accuracy",
    "rewards/margins": "margin",
    "margin": "margin",
    "f1": "F1",
    "mse": "squared error",
    "pearson": "Pearson's r",
}

_RANKED = ("cosine_ndcg@10", "ndcg@10", "spearman_cosine", "spearman", "cosine_ap", "average_precision")
"""What sentence-transformers' evaluators measure, by their names: of each the one that they call the primary."""

_EVALUATED = (
    "eval_loss",
    "eval_mean_token_accuracy",
    *(f"eval_{name}" for name in (*_MEASURES, *_RANKED)),
    "eval_runtime",
)


def measures(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a step measured, in words.

    Example:
        >>> list(measures({"reward": 0.5, "frac_reward_zero_std": 0.25, "completions/clipped_ratio": 0.125}))
        ['reward 0.5', '75% of groups differ', '12% cut']
    """
    if values.get("grad_norm") == 0:
        yield "no gradient"
    if "reward" in values and values["reward"] is None:
        yield "no reward"
    functions = {name[8:-5]: values[name] for name in values if re.fullmatch("rewards/.+/mean", name)}
    each = ", ".join(f"{name} {f'{value:.3g}' if is_number(value) else 'none'}" for name, value in functions.items())
    for name, said in _MEASURES.items():
        if is_number(values.get(name)):
            yield f"{said} {values[name]:.3g}{f' ({each})' if name == 'reward' and len(functions) > 1 else ''}"
    if is_number(alike := values.get("frac_reward_zero_std")):
        yield f"{1 - alike:.0%} of groups differ"
    if is_number(cut := values.get("completions/clipped_ratio")):
        yield f"{cut:.0%} cut"
        if is_number(entropy := values.get("entropy")) and entropy:  # 0 where no token of an answer counts
            yield f"entropy {entropy:.3g}"
    if is_number(divergence := values.get("kl")):
        yield f"KL {divergence:.3g}"


def evaluated(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an evaluation while training measured, in words."""
    for name in _EVALUATED:
        if is_number(values.get(name)):
            yield f"{name[5:]} {values[name]:.4g}"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of the log is a number; a trainer logs None for what it could not measure."""
    return isinstance(value, int | float) and not isinstance(value, bool)

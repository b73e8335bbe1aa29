"""The plugin ``lm-eval``: tasks of the lm-evaluation-harness by name, ``[eval] metrics = ["lm-eval:gsm8k"]``.

The questions, the prompts and the judgement are the harness's own, and its numbers are those that it gives for the
exported model. This module says what the plugin can do and imports nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Offer, Stage, hookimpl
from forge_lm_eval import rules

if TYPE_CHECKING:
    from collections.abc import Iterable

HARNESS = ("lm_eval>=0.4.12",)
REQUIRES = (*HARNESS, "torch>=2.4", "transformers>=5.17,<6", "datasets>=4.7,<6")


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer to evaluate by the harness's tasks."""
    yield Offer(
        stage=Stage.EVALUATE,
        impl="forge_lm_eval.evaluate:evaluate",
        supports=frozenset({"metrics"}),
        requires_dist=REQUIRES,
        config="forge_lm_eval.options:Options",
        probe=rules.cannot_ask,
        check=rules.problems,
        preflight="forge_lm_eval.evaluate:preflight",
    )

"""What a plan says in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from forge.api.plan import Against, Verdict
from forge.text.plan import turned_down


def plan(*verdicts: Verdict, taken: str = "huggingface") -> Any:
    return cast(Any, SimpleNamespace(steps=[SimpleNamespace(plugin=taken)], verdicts=verdicts))


def test_a_plugin_that_was_turned_down_is_told_once_with_the_reason_of_its_loader() -> None:
    said = turned_down(
        plan(
            Verdict("collate", "quick", "it makes other batches", Against.PROBE),
            Verdict("load", "quick", "needs an accelerator (cuda); there is none", Against.PROBE),
            Verdict("adapt", "quick", "needs quick's loader", Against.PROBE),
            Verdict("load", "other", "does not do text", Against.ABILITY),
            Verdict("load", "huggingface", "the only one that can", None),
        )
    )
    assert said == {"quick": "needs an accelerator (cuda); there is none"}


def test_a_plugin_that_serves_a_stage_is_not_turned_down() -> None:
    assert turned_down(plan(Verdict("load", "huggingface", "slow", Against.PROBE))) == {}


def test_a_plugin_that_trains_by_other_methods_is_for_another_kind_of_job() -> None:
    method = Verdict("train", "vectors", "does not do sft", Against.ABILITY)
    assert turned_down(plan(Verdict("load", "vectors", "it is for vectors", Against.PROBE), method)) == {}
    said = turned_down(plan(Verdict("load", "vectors", "needs a GPU", Against.ACCELERATOR), method))
    assert said == {"vectors": "needs a GPU"}

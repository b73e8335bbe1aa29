"""A model in which rows that lie end to end see each other is found out before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge_huggingface.training import apart
from support.projects import Project

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("key", ["packing", "padding_free"])
def test_rows_that_see_each_other_are_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    # Positions alone tell sdpa where a row begins, and with a mask of ones transformers does not look at them.
    flat = apart.TokenCollator._flat
    monkeypatch.setattr(
        apart.TokenCollator,
        "_flat",
        lambda *rest: (batch := flat(*rest)) | {"attention_mask": batch["position_ids"] * 0 + 1},
    )
    project = Project(tmp_path / "p", tiny_model)
    project.write(model={"attn_implementation": "sdpa"}, data={key: True})
    done = project.perform()
    assert done.code != 0
    assert done.error["what"] == "the model does not keep rows apart that lie end to end"
    assert key in done.error["do"]

"""A whole run in a test of a plugin: everything but the plugin is light, and all of it is a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge.api import JobError, RunError
from forge.testing import make_model, run_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.testing import Ran

pytest_plugins = ["forge.testing.fixtures"]

WHOLE = '[data]\neval_size = 2\n[eval]\nmetrics = ["exact-match"]\n[[export]]\nformat = "merged"\n'


def test_a_whole_run_is_light(tmp_path: Path) -> None:
    ran = run_job(WHOLE, tmp_path)
    assert ran.plan.preload == ()  # nothing heavy, so that it takes a second or two
    assert [event.step for event in ran.of_kind("checkpoint")] == [2, 4]  # type: ignore[attr-defined]
    assert {step.plugin for step in ran.plan.steps} == {"light"}
    assert ran.trained.metrics == {"train_loss": 0.5}
    assert [path.name for path in ran.exports] == ["1-merged"]
    assert ran.evaluation is not None
    assert set(ran.evaluation["models"]) == {"base", "tuned"}
    assert [event.task for event in ran.of_kind("done")] == ["train", "eval", "export"]  # type: ignore[attr-defined]


def test_the_fixture_runs_in_a_folder_of_the_test(forge_run: Callable[..., Ran], tmp_path: Path) -> None:
    ran = forge_run("[train]\nmax_steps = 1\n", dry_run=True)
    assert ran.folder.is_relative_to(tmp_path)
    assert (ran.exports, ran.evaluation) == ([], None)
    with pytest.raises(RunError):
        _ = ran.trained


def test_mistakes_are_told_as_forge_tells_them(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="max_stps"):
        run_job("[train]\nmax_stps = 1\n", tmp_path)


def test_the_tiny_model_is_one_that_transformers_loads(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = make_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "Grüße, <|im_start|>東"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert AutoModelForCausalLM.from_pretrained(folder).num_parameters() < 12_000


@pytest.mark.slow
def test_the_model_can_be_exported_for_llama_cpp(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    ran = run_job('[train]\nmax_steps = 1\n[[export]]\nformat = "gguf"\ntypes = ["f16"]\n', tmp_path, whole=True)
    assert [path.name for path in ran.exports[0].glob("*.gguf")]

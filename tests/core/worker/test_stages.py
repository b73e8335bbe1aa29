"""Calling what was chosen: whatever a plugin gets wrong there, its name and what was called are told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forge.api import Data, ExportTable, Job, Loaded, Run, Stage, Step
from forge.errors import PluginError, UsageError
from forge.worker.stages import Stages

MODULE = """
import sys
from forge.api import Finding, Loaded

number = 3

def raises(job, run, data):
    raise KeyError("beta")
    yield

def exits(job, run, data):
    sys.exit(3)

def text(job, run, data):
    yield "too long"

def odd(job, run, data):
    yield Finding("fatal", "too long")

def two(job, run, data):
    yield Finding("error", "one", "mend it")
    yield Finding("error", "two")

def upload(folder, export):
    raise OSError("no network")

def adapt(loaded):
    return Loaded(model=None, traits=frozenset({"hf-model"}))

def nothing(loaded):
    pass

def leaves(loaded):
    sys.exit(3)
"""
DATA = Data(processor=None, train=[], eval={}, layout="tokens", digest="d")


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "staged.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "staged", raising=False)
    seen: list[Any] = []

    def make(stage: Stage, **values: Any) -> Stages:
        given = {
            "label": stage.value,
            "plugin": "x",
            "distribution": "forge-x",
            "version": "1.0",
            "impl": "staged:adapt",
        }
        step = Step(stage=stage, **{**given, **values})
        plan = SimpleNamespace(steps=(step,), step=lambda *_: step, decisions=())
        made = Stages(Run(folder=Path("/run"), plan=cast(Any, plan), sink=seen.append), Job.model_construct())
        cast(Any, made).seen = seen
        return made

    return make


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("raises", "preflight failed in plugin x (forge-x 1.0): KeyError: 'beta'"),
        ("exits", "preflight failed in plugin x (forge-x 1.0): SystemExit: 3"),
        ("text", "preflight failed in plugin x (forge-x 1.0): it yields 'too long' where forge.api.Finding"),
        ("odd", "preflight failed in plugin x (forge-x 1.0): it yields Finding(severity='fatal'"),
        ("number", "plugin x (forge-x 1.0) names staged:number, which is no function"),
    ],
)
def test_a_preflight_that_goes_wrong_is_named_as_what_it_is(stages: Any, function: str, said: str) -> None:
    with pytest.raises(PluginError) as caught:
        stages(Stage.COLLATE, preflight=f"staged:{function}").preflight(DATA)
    assert str(caught.value).startswith(said)


def test_all_that_a_preflight_objects_to_is_emitted_before_the_run_fails(stages: Any) -> None:
    made = stages(Stage.COLLATE, preflight="staged:two")
    with pytest.raises(UsageError, match=r"and 1 more, listed above"):
        made.preflight(DATA)
    assert [(event.kind, event.message) for event in made.seen] == [("error", "one"), ("error", "two")]


def test_an_upload_that_goes_wrong_and_an_implementation_that_is_none_are_named(stages: Any) -> None:
    with pytest.raises(PluginError, match=r"upload failed in plugin x \(forge-x 1.0\): OSError: no network"):
        stages(Stage.EXPORT, upload="staged:upload").upload(ExportTable(format="merged"), Path())
    with pytest.raises(PluginError, match=r"plugin x \(forge-x 1.0\) names staged:number, which is no function"):
        stages(Stage.ADAPT, impl="staged:number").adapt(Loaded(model=None, traits=frozenset()))


def test_a_stage_that_returns_another_type_or_lacks_a_trait_is_named(stages: Any) -> None:
    loaded = Loaded(model=None, traits=frozenset({"hf-model"}))
    with pytest.raises(PluginError, match=r"plugin x \(forge-x 1.0\) did not provide fast, as its offer says"):
        stages(Stage.ADAPT, provides=("fast",)).adapt(loaded)
    with pytest.raises(PluginError, match=r"plugin x \(forge-x 1.0\) returned NoneType, not Loaded"):
        stages(Stage.ADAPT, impl="staged:nothing").adapt(loaded)
    with pytest.raises(PluginError, match=r"adapt failed in plugin x \(forge-x 1.0\): SystemExit: 3"):
        stages(Stage.ADAPT, impl="staged:leaves").adapt(loaded)


def test_a_stage_that_keeps_a_trait_which_its_offer_takes_away_is_refused(stages: Any) -> None:
    loaded = Loaded(model=None, traits=frozenset({"hf-model"}))
    assert stages(Stage.ADAPT).adapt(loaded).traits == {"hf-model"}
    with pytest.raises(PluginError, match=r"plugin x \(forge-x 1.0\) did not remove hf-model, as its offer says"):
        stages(Stage.ADAPT, removes=("hf-model",)).adapt(loaded)

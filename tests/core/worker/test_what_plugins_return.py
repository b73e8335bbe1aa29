"""What a plugin returned or wrote is looked at before anything is lost, and its name is told."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forge.api import CheckpointSaved, Decision, Job, Run, Stage, Step, Trained, Warned
from forge.api.plan import Task
from forge.disk.checkpoints import newest_whole
from forge.errors import BackendImportError, PluginError
from forge.worker.faults import export_fault, trained_fault
from forge.worker.keeping import keep
from forge.worker.stages import Stages

BASE = {"id": "m", "revision": None, "digest": "d"}
TRAINED: dict[str, Any] = {
    "weights": "adapter",
    "kind": "adapter",
    "task": "text",
    "base": BASE,
    "processor": "adapter",
    "traits": frozenset({"hf-model"}),
}
MODULE = """
from forge.api import Trained
seen = []

def train(job, run, loaded, data):
    seen.append(run.config)
    run.decide(run_decision)
    (run.folder / "adapter").mkdir(exist_ok=True)
    (run.folder / "adapter" / "weights").write_text("w")
    return Trained(**given)
"""


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stages whose one stage trains, and returns a Trained with some fields changed."""
    (tmp_path / "trains.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trains", raising=False)

    def make(impl: str = "trains:train", **changes: Any) -> tuple[Stages, list[Any]]:
        import trains  # type: ignore[import-not-found]

        trains.given = TRAINED | changes
        trains.run_decision = Decision("plugins.x.colour", "red", "seen")
        step = Step(stage=Stage.TRAIN, label="train", plugin="x", distribution="forge-x", version="1.0", impl=impl)
        plan = PlanLike(steps=(step,), step=lambda *_: step, decisions=(), configs={"x": {"colour": "blue"}})
        seen: list[Any] = []
        run = Run(folder=tmp_path, plan=cast(Any, plan), sink=seen.append)
        return Stages(run, Job.model_construct()), seen

    return make


class PlanLike(SimpleNamespace):
    """A plan that can be replaced by one with other fields, as a dataclass can."""

    task = Task.TRAIN


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "lora"}, "kind is 'lora'; it is adapter or full"),
        ({"weights": "../outside"}, "weights is '../outside'; it names a folder of the run folder"),
        ({"weights": "nowhere"}, "weights is 'nowhere', and there is nothing in that folder"),
        ({"base": {"id": "m", "revision": None}}, "base has no digest"),
        ({"base": BASE | {"id": Path("m")}}, "base is no JSON data: Object of type"),
        ({"traits": ["hf-model"]}, "traits is ['hf-model']; it is a frozenset of texts"),
        ({"best_step": 1.5}, "best_step is 1.5"),
    ],
)
def test_a_trained_that_no_later_worker_could_read_is_told(tmp_path: Path, changes: Any, said: str) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights").write_text("w")
    assert trained_fault(Trained(**TRAINED), tmp_path) is None
    assert str(trained_fault(Trained(**TRAINED | changes), tmp_path)).startswith(said)


def test_the_plugin_is_named_and_a_number_that_is_none_costs_no_training(
    stages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "decide", lambda *_: None)
    made, seen = stages(metrics={"loss": 1.5, "odd": float("nan"), "far": float("inf")})
    assert made.train(None, None).metrics == {"loss": 1.5}
    warned = next(event for event in seen if isinstance(event, Warned))
    assert warned.message.startswith("plugin x (forge-x 1.0) measured no finite number for far, odd")
    made, _ = stages(base={"id": "m"})
    with pytest.raises(PluginError, match=r"plugin x \(forge-x 1.0\) returned a Trained that cannot be kept"):
        made.train(None, None)
    assert sys.modules["trains"].seen == [{"colour": "blue"}] * 2


def test_what_is_missing_is_told_before_any_stage_is_called(stages: Any) -> None:
    for impl in ("trains:nothing", "forge_surely_not_there:train"):
        made, seen = stages(impl)
        with pytest.raises(BackendImportError, match=r"plugin x \(forge-x 1.0\) cannot be imported"):
            made.resolve()
        assert seen == []
    made, _ = stages("trains:seen")
    with pytest.raises(PluginError, match=r"names trains:seen, which is no function"):
        made.resolve()


def test_what_one_view_of_a_run_decides_all_know(tmp_path: Path) -> None:
    from forge.api.plan import Plan

    plan = Plan.__new__(Plan)
    for name, value in {"decisions": (), "configs": {"x": {"colour": "blue"}}, "task": Task.DRY_RUN}.items():
        object.__setattr__(plan, name, value)
    run = Run(folder=tmp_path, plan=plan)
    view = run.of("x")
    assert (view.config, run.config, view.dry_run) == ({"colour": "blue"}, {}, True)
    run.plan = cast(Any, SimpleNamespace(decisions=(Decision("plugins.x.colour", "red", "r"),), configs={}))
    assert view.config == {"colour": "red"}
    run.resume = tmp_path
    assert view.resume == tmp_path
    with pytest.raises(AttributeError, match=r"run\.resume is not for a plugin to set"):
        view.resume = None
    assert (run.plugin, view.plugin) == ("", "x")


def test_a_checkpoint_counts_once_its_block_has_ended(tmp_path: Path) -> None:
    seen: list[Any] = []
    run = Run(folder=tmp_path, plan=cast(Any, None), sink=seen.append)
    with pytest.raises(RuntimeError, match="only a worker that trains"):
        run.checkpoint(1)
    run.keeper = lambda step, kept, finished: keep(run, tmp_path / "checkpoints", step, kept, finished)
    for step in (1, 2, 3):
        with run.of("x").checkpoint(step, finished=step == 3) as folder:
            (folder / "state.json").write_text(json.dumps(step))
    with pytest.raises(FileNotFoundError), run.checkpoint(4) as folder:
        (folder / "nowhere" / "state.json").write_text("half")
    whole, rejected = newest_whole(tmp_path / "checkpoints")
    assert whole is not None
    assert (whole.name, rejected) == ("checkpoint-3", [])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-3"]
    assert [(event.step, event.bytes > 0) for event in seen if isinstance(event, CheckpointSaved)] == [
        (1, True),
        (2, True),
        (3, True),
    ]


def test_an_export_without_files_with_links_or_with_names_that_are_not_there_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    assert export_fault(out, (), {}) == "it wrote no file"
    (out / "weights").write_text("w")
    assert export_fault(out, ("weights",), {}) is None
    assert "and there is none" in str(export_fault(out, ("other",), {}))
    for name in ("../weights", "/etc/passwd", ""):
        assert "a name is relative to the export's folder" in str(export_fault(out, (name,), {}))
    assert "its report is no JSON data" in str(export_fault(out, (), {"path": out}))
    (out / "link").symlink_to("/etc/passwd")
    assert export_fault(out, (), {}) == "it wrote link, a link to /etc/passwd; an export holds its files itself"

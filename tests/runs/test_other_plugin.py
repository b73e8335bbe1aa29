"""Another plugin brings a method of its own, as docs/plugins/method.md says, and a job asks for it by its word."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Decision, Problem, Stage
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.discover import discover
from forge.errors import JobError
from forge_huggingface.methods import Method
from forge_huggingface.offering import method_offer
from support.guide import files_of
from support.planning import BASE, HELD_OUT, planner
from support.projects import perform_in

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from forge.api import Job, Plan
    from support.projects import Project
    from support.sites import Site


def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Return the plugin of the guide, its modules in a folder of their own."""
    package = tmp_path / "site" / "forge_mine"
    package.mkdir(parents=True)
    for path, text in files_of("method.md").items():
        if path.startswith("forge_mine/"):
            (package.parent / path).write_text(text)
    monkeypatch.syspath_prepend(package.parent)
    for name in [name for name in sys.modules if name.partition(".")[0] == "forge_mine"]:
        monkeypatch.delitem(sys.modules, name)
    offers = tuple(importlib.import_module("forge_mine").forge_offers())
    return Plugin(name="mine", distribution="forge-mine", version="1", offers=offers)


OLD = {
    "forge_old": """
from collections.abc import Iterable
from forge.api import Extension, Offer, Stage, hookimpl

@hookimpl
def forge_offers() -> Iterable[Offer | Extension]:
    yield Extension(impl="forge_old_observer")
    yield Offer(stage=Stage.EXPORT, impl="forge_old_zip:export", serves=frozenset({"old/zip"}),
                options="forge_old_zip:ZipOptions")
""",
    "forge_old_observer": """
from forge.api import Event, StepLogged, hookimpl

@hookimpl
def forge_event(event: Event) -> None:
    if isinstance(event, StepLogged):
        print("old: step", event.step, "loss", event.loss)
""",
    "forge_old_zip": """
import zipfile

from pydantic import BaseModel, ConfigDict, Field

from forge.api import Exported

def export(trained, run, export, out):
    name = f"{export.options['file']}.zip"
    with zipfile.ZipFile(out / name, "w") as archive:
        for path in sorted((run.folder / trained.weights).iterdir()):
            archive.write(path, path.name)
    return Exported(files=(name,))

class ZipOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    file: str = Field("weights", description="Name of the archive.")
""",
}
"""A plugin as `forge plugins new` and the guide of 0.1 make it: what forge_v1 holds, an author may have built upon."""


def later(job: Job) -> list[Problem]:
    return [Problem("train.method", f"{job.train.method} is not for today", "wait")]


def faster(*_: object, named: Collection[str] = ()) -> list[Decision]:
    return [Decision("train.learning_rate", 0.5, f"the job names {len(named)} keys")]


def test_what_a_plugin_checks_and_decides_comes_beside_what_huggingface_does() -> None:
    method = Method("mine/sft", "SFTConfig", "forge_mine.train:recipe", "tokens", "my way")

    def with_offer(**changes: Any) -> Callable[[str], Plan]:
        offer = method_offer(method, "forge_mine.train:train", **changes)
        mine = Plugin(name="mine", distribution="forge-mine", version="1", offers=(offer,))
        return planner(Catalogue((*discover({}).plugins, mine)))

    job = f'{BASE}[train]\nmethod = "mine/sft"\n'
    with pytest.raises(JobError) as caught:
        with_offer(check=later)(f'{job}eval_strategy = "steps"\n')
    said = {each.message for each in caught.value.problems}
    assert said >= {"there are no held-out rows", "mine/sft is not for today"}
    decided = {each.key: each.value for each in with_offer(decide=faster)(job).decisions}
    assert decided["train.learning_rate"] == 0.5
    assert "train.bf16" in decided


def test_a_plugin_of_version_0_1_still_works(
    project: Project, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("forge-old", OLD, "[forge_v1]\nold = forge_old\n", "0.1.0")
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    project.write(use={"with": ["old"]}, export=[{"format": "old/zip"}])
    done = project.perform()
    assert done.code == 0, done.printed
    assert "old: step 1 loss" in done.printed
    lock = (done.folder.path / "job.lock.toml").read_text()
    assert 'file = "weights"' in lock
    assert 'prefer = [\n    "old",\n]' in lock


def test_the_method_of_the_guide_trains(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalogue = Catalogue((*discover({}).plugins, installed(tmp_path, monkeypatch)))
    project.write(train={"method": "mine/sft", "z_weight": 0.5})
    done = perform_in(*project.prepare(catalogue=catalogue))
    assert done.code == 0, done.printed
    assert [event["step"] for event in done.of_kind("step")] == [1, 2, 3, 4]
    assert (done.folder.path / "adapter" / "adapter_model.safetensors").exists()


def test_the_method_of_the_guide_is_planned_as_those_of_huggingface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planner(Catalogue((*discover({}).plugins, installed(tmp_path, monkeypatch))))
    own, mine = (plan(f'{HELD_OUT}[train]\nmethod = "{name}"\n') for name in ("sft", "mine/sft"))
    assert mine.step(Stage.TRAIN).plugin == "mine"
    decided = {each.key: each.value for each in mine.decisions}
    assert (decided["train.bf16"], decided["train.eval_strategy"]) == (True, "epoch")
    # What is decided for sft's own loss and batches is not decided for a method that may have others.
    theirs = {"train.loss_type", "train.kernels", "data.padding_free"}
    for each in own.decisions:
        assert each.key in theirs or decided[each.key] == each.value
    assert set(decided["train.kernels"]) < set(next(d.value for d in own.decisions if d.key == "train.kernels"))
    with pytest.raises(JobError, match="there are no held-out rows"):
        plan(f'{BASE}[train]\nmethod = "mine/sft"\neval_strategy = "steps"\n')
    with pytest.raises(JobError, match="did you mean z_weight"):
        plan(f'{BASE}[train]\nmethod = "mine/sft"\nz_wieght = 0.5\n')

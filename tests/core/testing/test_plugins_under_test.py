"""Plugins in whole runs, as their authors test them: what they do is seen, and what they do wrong has their name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from forge.api import ForgeError, RunError
from forge.testing import check_plugin, run_job

if TYPE_CHECKING:
    from pathlib import Path

    from support.sites import Site

PLUGIN = """
from forge.api import Extension, Offer, Stage, Table, hookimpl

class Settings(Table):
    colour: str = "blue"

@hookimpl
def forge_offers():
    yield Extension(impl="seen_observer", config="seen:Settings")
    for word in ("good", "empty", "link", "lie", "outside", "missing"):
        yield Offer(stage=Stage.EXPORT, impl=f"seen_export:{word}", serves=frozenset({f"seen/{word}"}))
    yield Offer(stage=Stage.TRAIN, impl="seen_export:train", serves=frozenset({"seen/nan"}))
"""
OBSERVER = """
from forge.api import hookimpl

@hookimpl
def forge_event(event, run):
    with (run.folder / "seen.txt").open("a") as file:
        print(run.plan.task, event.kind, run.config["colour"], file=file)
"""
EXPORT = """
from forge.api import Exported, Trained

def good(out):
    (out / "weights").write_text("w")
    return Exported(files=("weights",))

def empty():
    return Exported()

def link(out):
    (out / "weights").symlink_to("/etc/passwd")
    return Exported()

def lie(out):
    (out / "weights").write_text("w")
    return Exported(files=("other",))

def outside(out):
    (out / "weights").write_text("w")
    return Exported(files=("../weights",))

def train(run):
    (run.folder / "model").mkdir()
    (run.folder / "model" / "weights").write_text("w")
    with run.checkpoint(3) as folder:
        (folder / "state").write_text("s")
    return Trained(weights="model", kind="full", task="text", base={"id": 1, "revision": None, "digest": "d"},
                   processor="model", traits=frozenset(), metrics={"loss": float("nan"), "steps": 3})
"""


@pytest.fixture(autouse=True)
def _seen(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Install the plugin for this process and those that it starts."""
    modules = {"seen": PLUGIN, "seen_observer": OBSERVER, "seen_export": EXPORT}
    site.install("forge-seen", modules, "[forge_v1]\nseen = seen\n")
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("PYTHONPATH", site.environment()["PYTHONPATH"])
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))


def test_an_observer_sees_every_worker_of_a_run_with_its_own_table(tmp_path: Path) -> None:
    toml = '[data]\neval_size = 2\n[eval]\n[[export]]\nformat = "seen/good"\n[plugins.seen]\ncolour = "red"\n'
    ran = run_job(toml, tmp_path)
    lines = (ran.folder / "seen.txt").read_text().splitlines()
    assert {line.split()[0] for line in lines} == {"train", "eval", "export"}
    assert {line.split()[2] for line in lines} == {"red"}
    assert {"train step red", "eval evaluated red", "export exported red"} <= set(lines)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("empty", "it wrote no file"),
        ("link", "it wrote weights, a link to /etc/passwd"),
        ("lie", "it names other as a file that it wrote, and there is none"),
        ("outside", "it names '../weights' as a file of its own"),
    ],
)
def test_an_export_that_is_none_is_refused_and_leaves_the_weights(tmp_path: Path, word: str, said: str) -> None:
    with pytest.raises(ForgeError, match=r"plugin seen \(forge-seen 1.0\) made no usable export") as caught:
        run_job(f'[[export]]\nformat = "seen/{word}"\n', tmp_path)
    assert said in str(caught.value)
    assert [path.name for path in tmp_path.glob("runs/*/*/exports/*")] == [f"1-seen-{word}.plan.json"]
    assert list(tmp_path.glob("runs/*/*/adapter/adapter_model.safetensors"))


def test_an_export_whose_function_is_missing_is_told_before_a_row_is_read(tmp_path: Path) -> None:
    with pytest.raises(ForgeError, match="seen_export has no missing"):
        run_job('[[export]]\nformat = "seen/missing"\n', tmp_path)
    assert "collate" not in next(tmp_path.glob("runs/*/*/events.jsonl")).read_text()
    with pytest.raises(AssertionError, match="seen_export has no missing"):
        check_plugin("seen")


def test_a_number_that_is_none_costs_no_training(tmp_path: Path) -> None:
    ran = run_job('[train]\nmethod = "seen/nan"\n', tmp_path)
    assert ran.trained.metrics == {"steps": 3}
    assert [event.message for event in ran.of_kind("warning")] == [  # type: ignore[attr-defined]
        "plugin seen (forge-seen 1.0) measured no finite number for loss; it is left out"
    ]
    assert [event.step for event in ran.of_kind("checkpoint")] == [3]  # type: ignore[attr-defined]


def test_what_is_not_installed_is_said(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no plugin nowhere is installed"):
        check_plugin("nowhere")
    with pytest.raises((RunError, ForgeError), match="nowhere/word"):
        run_job('[[export]]\nformat = "nowhere/word"\n', tmp_path)

"""Plugins of strangers do what they like while forge plans, and harm nobody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Decision, Estimate, Job, ModelFacts, Problem
from forge.discovery import strangers
from forge.discovery.catalogue import Plugin
from forge.discovery.describe import describe_model
from forge.discovery.discover import discover
from forge.discovery.remembered import Memory
from forge.errors import ModelError, UsageError
from forge.machine.presets import PRESETS
from forge.planning.fitting import Choice
from forge.planning.needs import Need
from forge.planning.selection import refusal
from support.crowd import BROKEN, HEAD, install_broken, install_damaged, install_good, install_unreadable, offering

if TYPE_CHECKING:
    from support.sites import Site

CPU, FACTS = PRESETS["linux-cpu"], ModelFacts(id="m", source="unknown")
REASONS = {
    "raises": "RuntimeError: no licence",
    "exits": "SystemExit: 3",
    "ends": "it ended the process that asked it, with code 0",
    "interrupts": "KeyboardInterrupt",
    "kills": "it ended the process that asked it, with signal 9",
    "hangs": "it gave no answer within 1 seconds",
    "hook-hangs": "it gave no answer within 1 seconds",
    "torch": "imports torch at discovery",
    "list": "offers export with supports = ['push']; write frozenset",
    "text": "offers export with serves = 'merged'; write frozenset",
    "path": "PATH in its environment",
    "number": "environment = {'A': 1}; write a dict of texts",
    "impl": "impl = 3; write package.module:function",
    "options-missing": "names nowhere:Keys, which cannot be used: ModuleNotFoundError",
    "options-plain": "it is no pydantic model",
    "options-exit": "SystemExit",
    "options-clash": "adds the key format to [export], which is one of forge's own there",
    "options-load": "offers load with options, and no table of a job is this stage's",
    "endless": "yields more than 1000 offers",
    "own-error": "Own",
    "recurses": "RecursionError",
    "config-missing": "names nowhere:Keys, which cannot be used",
}


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A site whose plugins this process sees, and a memory of its own."""
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORGE_PLUGIN_SECONDS", raising=False)
    return site


def one(name: str) -> Plugin:
    found = discover({}).find(name)
    assert found is not None
    assert found.status == "ok", found.reason
    return found


def job(**tables: Any) -> Job:
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "d"}, **tables})


def test_whatever_a_plugin_does_when_it_is_imported_is_its_own_verdict_alone(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_PLUGIN_SECONDS", "1")
    for way in BROKEN:
        install_broken(here, f"bad-{way}", way)
    install_good(here, "good")
    install_damaged(here)
    install_unreadable(here)
    found = discover({})
    verdicts = {plugin.name.removeprefix("bad-"): plugin for plugin in found.plugins}
    assert {way: verdicts[way].status for way in BROKEN} == dict.fromkeys(BROKEN, "broken")
    assert {way: said for way, said in REASONS.items() if said not in str(verdicts[way].reason)} == {}
    assert verdicts["good"].status == "ok", verdicts["good"].reason
    assert "METADATA is missing" in str(verdicts["no-metadata"].reason)
    assert "entry_points.txt is damaged: 'no-value ='" in str(verdicts["no-value"].reason)
    assert [plugin.status for plugin in found.plugins if plugin.name == "twin"] == ["duplicate", "duplicate"]
    assert {plugin.name for plugin in found.usable if plugin.own} >= {"huggingface", "gguf", "sdpo"}


def test_a_plugin_is_imported_once_for_each_version_of_its_files(here: Site, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("")
    text = f"open({str(count)!r}, 'a').write('x')\n" + offering(
        'yield Offer(stage=Stage.EXPORT, impl="a:b", serves=frozenset({"once/tar"}), sheds=("X_",), priority=3)'
    )
    here.install("forge-once", {"once_mod": text}, "[forge_v1]\nonce = once_mod\n")
    first = one("once").offers
    assert one("once").offers == first
    assert (first[0].sheds, first[0].serves, first[0].priority) == (("X_",), {"once/tar"}, 3)
    assert count.read_text() == "x"
    discover({}, again=True)
    assert count.read_text() == "xx"
    (here.folder / "once_mod.py").write_text(text.replace("tar", "zip-it"))
    assert one("once").offers[0].serves == {"once/zip-it"}
    assert count.read_text() == "xxx"


def test_a_plugin_whose_import_failed_is_asked_again_once_something_was_installed(here: Site) -> None:
    text = "import once_missing\n" + offering("yield Extension(impl='once_missing')")
    here.install("forge-late", {"late_mod": text}, "[forge_v1]\nlate = late_mod\n")
    broken = discover({}).find("late")
    assert broken is not None
    assert "No module named 'once_missing'" in str(broken.reason)
    here.install("once-missing", {"once_missing": ""}, "")
    assert one("late").extensions[0].impl == "once_missing"


def test_a_memory_that_is_damaged_or_cannot_be_written_costs_the_asking_alone(
    here: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_good(here, "good")
    one("good")
    (file,) = (tmp_path / "cache" / "plugins").iterdir()
    keys = json.loads(file.read_text())
    damaged = [{"files": {}, "told": {}}, {}, [], 3]
    for text in ("{", "[]", *(json.dumps(dict.fromkeys(keys, each)) for each in damaged)):
        file.write_text(text)
        one("good")
    (tmp_path / "no-folder").write_text("")
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "no-folder"))
    one("good")
    assert Memory().known == {}


def test_a_plugin_that_takes_long_is_named(
    here: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(strangers, "NAMED_AFTER", 0.2)
    text = "import time\ntime.sleep(0.8)\n" + offering("yield Extension(impl='x')")
    here.install("forge-slow", {"slow_mod": text}, "[forge_v1]\nslow = slow_mod\n")
    one("slow")
    assert capsys.readouterr().err == "waiting for plugin slow (forge-slow 1.0): it is asked what it can do\n"


ASKED = f"""{HEAD}
import os, sys, time

def probe(machine, job, facts):
    print("printed by a probe")
    job.train.options["learning_rate"] = 99.0
    job.export.clear()
    what = job.name
    if what == "exit":
        sys.exit(5)
    if what == "end":
        os._exit(5)
    if what == "hang":
        time.sleep(60)
    if what == "torch":
        import torch
    if what == "int":
        return 3
    if what == "raise":
        raise KeyError("trl")
    return None if what == "fine" else "no"

def check(job):
    yield Problem("train.method", f"is {{job.train.method}}")

def decide(machine, job, facts, *, named=()):
    if job.name == "odd":
        yield "a text"
    if "model.dtype" in named:
        return
    yield Decision("model.dtype", "float32", f"on {{machine.platform}}")

def estimate(machine, job, facts, *, longest=None):
    from forge.api import Estimate
    return 3 if job.name == "odd" else Estimate(parts=(), peak=7, process=None, device="d", room=None, batch="b")

@hookimpl
def forge_describe(id, revision, folder):
    from forge.api import ModelError, ModelFacts
    if id == "gone":
        raise ModelError("it is gone", "deleted", "take another")
    if id == "end":
        os._exit(1)
    return ModelFacts(id=id, source="folder", task="text") if id == "mine" else None

@hookimpl
def forge_offers():
    yield Offer(stage=Stage.LOAD, impl="a:b", supports=frozenset({{"text"}}), probe=probe, check=check,
                decide=decide, estimate="asked_mod:estimate")
"""


@pytest.fixture
def asked(here: Site, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    monkeypatch.setenv("FORGE_PLUGIN_SECONDS", "1")
    here.install("forge-asked", {"asked_mod": ASKED}, "[forge_v1]\nasked = asked_mod\n")
    return one("asked")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("fine", None),
        ("refuse", "no"),
        ("raise", "its probe failed: KeyError: 'trl'"),
        ("exit", "its probe failed: SystemExit: 5"),
        ("end", "its probe failed: it ended the process that asked it, with code 5"),
        ("hang", "its probe failed: it gave no answer within 1 seconds"),
        (
            "torch",
            "its probe failed: HeavyImportError: imports torch at discovery; import it inside the implementation",
        ),
        ("int", "its probe failed: it returns int where a reason or None is due"),
    ],
)
def test_what_a_probe_does_is_a_reason_against_its_plugin_alone(
    asked: Plugin,
    what: str,
    reason: str | None,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waited: list[str] = []
    wait = strangers.Strangers._waited
    monkeypatch.setattr(strangers.Strangers, "_waited", lambda *given: waited.append(given[2]) or wait(*given))
    choice = Choice(Need(asked.offers[0].stage, frozenset(), "load"), asked, asked.offers[0])
    mine = job(name=what, train={"learning_rate": 2.0}, export=[{"format": "merged"}])
    no = refusal(choice, CPU, mine, FACTS)
    assert refusal(choice, CPU, mine, FACTS) == no
    assert len(waited) == (1 if what in {"end", "hang"} else 2)  # what did not answer is not waited for again
    assert (no.reason if no else None) == reason
    assert (mine.train.options["learning_rate"], len(mine.export)) == (2.0, 1)
    assert capfd.readouterr() == ("", "")


def test_what_a_plugin_of_a_stranger_returns_comes_as_records(asked: Plugin) -> None:
    offer = asked.offers[0]
    assert offer.check is not None
    assert offer.decide is not None
    assert list(offer.check(job())) == [Problem("train.method", "is sft")]
    assert list(offer.decide(CPU, job(), FACTS)) == [Decision("model.dtype", "float32", "on linux")]
    assert list(offer.decide(CPU, job(), FACTS, named=frozenset({"model.dtype"}), later=3)) == []  # type: ignore[call-arg]  # as a later forge
    odd = [type(each).__name__ for each in offer.decide(CPU, job(name="odd"), FACTS)]
    assert odd == ["str", "Decision"]
    assert asked.named("asked_mod:estimate")(CPU, job(), FACTS) == Estimate(
        parts=(), peak=7, process=None, device="d", room=None, batch="b"
    )


def test_a_stranger_describes_models_from_the_other_process(asked: Plugin) -> None:
    found = discover({"FORGE_PLUGINS": "asked"})
    assert describe_model(found, "mine", None, Path()).task == "text"
    assert describe_model(found, "other", None, Path()).source == "unknown"
    with pytest.raises(ModelError, match="it is gone: deleted; take another"):
        describe_model(found, "gone", None, Path())
    ended = "plugin asked (forge-asked 1.0): its description of end failed: it ended the process"
    assert ended in str(describe_model(found, "end", None, Path()).note)


def test_nothing_is_asked_and_no_process_started_where_there_are_no_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(strangers.Strangers, "_started", refuse)
    assert discover({"FORGE_PLUGINS": ""}).find("huggingface")


def test_a_limit_that_is_no_number_is_said(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    install_good(here, "good")
    monkeypatch.setenv("FORGE_PLUGIN_SECONDS", "soon")
    with pytest.raises(UsageError, match="FORGE_PLUGIN_SECONDS=soon cannot be used: it is no number of seconds"):
        discover({})

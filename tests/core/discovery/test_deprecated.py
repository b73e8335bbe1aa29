"""What is deprecated still works, and who uses it is told by name, with the cure, wherever people look."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.version import Version

import forge
from forge import api
from forge.api import ForgeDeprecationWarning, Stage
from forge.api.deprecated import _ALL, DEPRECATED, Deprecation, heard, in_described
from forge.api.hooks import EventHooks, Hooks
from forge.api.offer import Offer
from forge.discovery.discover import discover
from forge.discovery.told import Told
from forge.testing import check_plugin, run_job
from support.contract import contract

if TYPE_CHECKING:
    from support.sites import Site

OLD = """
from forge.api import VOCABULARY, Offer, Stage, hookimpl

@hookimpl
def forge_offers():
    assert "push" in VOCABULARY[Stage.EXPORT] and "merged" in VOCABULARY[Stage.EXPORT]
    yield Offer(stage=Stage.EXPORT, impl="old_export:export", supports=frozenset({"old/list", "push"}))
"""
EXPORT = """
from forge.api import VOCABULARY, Exported

def export(out):
    (out / "list.txt").write_text("weights")
    return Exported(files=("list.txt",))
"""
NAME = (
    "forge.api.VOCABULARY, deprecated since forge 0.1 and gone in 0.3: "
    "take NAMES for what a job asks for by name, and ABILITIES for the rest"
)
WORDS = (
    "Offer.supports for what a job asks for by name, deprecated since forge 0.1 and gone in 0.3: "
    "write these words into Offer.serves"
)
JOB = '[[export]]\nformat = "old/list"\n'


@pytest.fixture
def old(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A site with a plugin that is written as forge 0.1 had it."""
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    site.install("forge-old", {"old": OLD, "old_export": EXPORT}, "[forge_v1]\nold = old\n", "1.2")
    return site


@pytest.mark.parametrize("again", [True, False])
def test_what_a_plugin_uses_is_known_also_where_its_answer_is_remembered(old: Site, again: bool) -> None:
    discover({})
    plugin = discover({}, again=again).find("old")
    assert plugin is not None
    assert plugin.deprecated == (NAME, WORDS)
    assert plugin.offers[0].serves == {"old/list"}
    assert plugin.offers[0].supports == {"push"}


def test_it_is_told_by_forge_plugins_in_the_plan_and_in_the_run(old: Site, tmp_path: Path) -> None:
    said = old.forge("plugins")
    assert said.returncode == 0
    assert f"warning: it uses {NAME}" in said.stdout
    assert json.loads(old.forge("plugins", "old", "--json").stdout)["deprecated"] == [NAME, WORDS]
    ran = run_job(JOB, tmp_path)
    who = "plugin old (forge-old 1.2) uses"
    assert [note for note in ran.plan.notes if "uses" in note] == [f"{who} {NAME}", f"{who} {WORDS}"]
    assert (ran.exports[0] / "list.txt").read_text() == "weights"
    warned = [str(event.values["message"]) for event in ran.of_kind("warning")]
    assert [text for text in warned if "uses" in text] == [f"{who} {NAME}"], "its export's module does so too"
    (tmp_path / "clean").mkdir()
    clean = run_job("", tmp_path / "clean")
    assert not [note for note in clean.plan.notes if "uses" in note], "the job does not use the plugin"


def test_it_is_a_finding_of_the_check_of_plugins(old: Site) -> None:
    with pytest.warns(ForgeDeprecationWarning) as caught:
        check_plugin("old")
    who = "plugin old (forge-old 1.2) uses"
    assert {str(each.message) for each in caught} == {f"{who} {NAME}", f"{who} {WORDS}"}


def test_a_name_warns_who_uses_it_outside_of_forge() -> None:
    with pytest.warns(ForgeDeprecationWarning, match="VOCABULARY") as caught:
        assert api.VOCABULARY[Stage.ADAPT] == {"lora", "none", "layers", "dora", "from", "target_parameters"}
    assert caught[0].filename == __file__


def test_hooks_arguments_fields_and_words_can_be_deprecated(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("hook forge_event", "argument forge_event(run)", "field Offer.sheds", "word supports export push"):
        monkeypatch.setitem(DEPRECATED, key, Deprecation(key, key, "1.4", "do without"))

    class Observer:
        @api.hookimpl
        def forge_event(self, event: object, run: object) -> None: ...

    with heard() as told:
        Hooks(EventHooks).admit(Observer())
    ends = ", deprecated since forge 1.4 and gone in 1.6: do without"
    assert set(told) == {f"hook forge_event{ends}", f"argument forge_event(run){ends}"}
    offer = Offer(stage=Stage.EXPORT, impl="a:b", serves=frozenset({"merged"}))
    assert not list(in_described(offer))
    old = dataclasses.replace(offer, sheds=("X",), supports=frozenset({"push"}))
    assert [each.key for each in in_described(old)] == ["field Offer.sheds", "word supports export push"]


def test_other_warnings_of_a_registration_go_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(self: Hooks) -> None:
        warnings.warn("mine", UserWarning, stacklevel=1)

    monkeypatch.setattr(Hooks, "check_pending", noisy)
    with pytest.warns(UserWarning, match="mine"):
        Hooks(EventHooks).admit(object())


@pytest.mark.parametrize("deprecation", _ALL, ids=lambda each: each.key)
def test_what_is_deprecated_is_there_and_goes_in_time(deprecation: Deprecation) -> None:
    assert Version(forge.__version__) < Version(deprecation.gone), f"take it out: {deprecation}"
    assert not deprecation.key.startswith("name ") or f"name api.{deprecation.key[5:]}" in contract()


def test_what_was_said_is_said_again_from_memory() -> None:
    told = Told(deprecated=("x",))
    assert Told.from_json(told.to_json(), lambda *_: None).deprecated == ("x",)  # type: ignore[arg-type, return-value]

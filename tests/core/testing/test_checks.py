"""forge's own plugins keep the contract that others are held to, and the checks see what breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from forge.api import Decision, Extension, Offer, Stage
from forge.discovery.catalogue import OWN, Plugin
from forge.discovery.discover import discover
from forge.testing.checks import check_extension, check_implementation, check_offer, check_plugin

OWN_PLUGINS = sorted(plugin.name for plugin in discover({}).plugins if plugin.distribution == OWN)


@pytest.mark.filterwarnings("ignore:.*is not imported")
@pytest.mark.parametrize("name", OWN_PLUGINS)
def test_a_plugin_of_forge_keeps_the_contract(name: str) -> None:
    assert check_plugin(name).own


def zipping(**values: Any) -> Offer:
    return Offer(stage=Stage.EXPORT, impl="json:dumps", serves=frozenset({"merged"}), **values)


X = Plugin(name="x", distribution="forge-x", version="1.0")


def strange_decide(machine: Any, job: Any, facts: Any) -> Any:
    yield Decision("model.id", "other", "why not")


def changing(machine: Any, job: Any, facts: Any) -> None:
    job.train.options["learning_rate"] = 99.0


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("decides model.id, which is no key", {"decide": strange_decide}),
        ("changes the job that it is shown", {"probe": changing}),
        ("the probe answers 3", {"probe": lambda *_: 3}),
        ("without a reason", {"probe": lambda *_: ""}),
    ],
)
def test_what_an_offer_says_of_jobs_is_checked(said: str, values: Any) -> None:
    with pytest.raises(AssertionError, match=said):
        check_offer(X, zipping(**values))


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("json:dumps asks for", {}),
        ("cannot be imported: json has no nothing", {"impl": "json:nothing"}),
        ("is not callable", {"impl": "json:decoder"}),
        ("calendar:isleap does not take what it is given", {"impl": "os:getcwd", "preflight": "calendar:isleap"}),
        ("calendar:isleap does not take what it is given", {"impl": "os:getcwd", "upload": "calendar:isleap"}),
        ("calendar:isleap does not take what it is given", {"impl": "os:getcwd", "estimate": "calendar:isleap"}),
    ],
)
def test_what_an_offer_names_is_imported_and_its_arguments_are_checked(said: str, values: Any) -> None:
    offer = Offer(**{"stage": Stage.EXPORT, "impl": "json:dumps", "serves": frozenset({"merged"}), **values})
    with pytest.raises(AssertionError, match=said):
        check_implementation(offer)


def test_an_observer_is_imported_and_its_hooks_are_checked(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    hook = "from forge.api import hookimpl\n@hookimpl\ndef {}(event): pass\n"
    for name, text in {"w_good": hook.format("forge_event"), "w_typo": hook.format("forge_evnt"), "w_none": ""}.items():
        (tmp_path / f"{name}.py").write_text(text)
    check_extension(X, Extension(impl="w_good"))
    with pytest.raises(AssertionError, match="unknown hook 'forge_evnt'"):
        check_extension(X, Extension(impl="w_typo"))
    with pytest.raises(AssertionError, match="has no forge_event"):
        check_extension(X, Extension(impl="w_none"))
    with pytest.raises(AssertionError, match="which is no key"):
        check_extension(X, Extension(impl="w_good", decide=strange_decide))

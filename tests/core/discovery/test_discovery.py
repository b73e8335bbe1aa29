"""Discovery: one broken plugin never hurts another, and nothing heavy is imported."""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING

import pytest

from forge.api import API
from forge.api.reference import load_object
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.discover import discover
from forge.discovery.guard import HEAVY, HeavyImportError, import_guard

if TYPE_CHECKING:
    from pathlib import Path

    from support.sites import Site

GOOD = """
from forge.api import Extension, Offer, Stage, hookimpl

@hookimpl
def forge_offers():
    yield Offer(stage=Stage.EXPORT, impl="nowhere:at_all", serves=frozenset({"adapter", "NAME/tar"}))
    yield Extension(impl="nowhere")
"""
HEAD = "from forge.api import Extension, Offer, Stage, hookimpl\n"


class Plugins:
    """Modules that exist for one test, found through entry points."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points: list[EntryPoint] = []

    def add(self, name: str, text: str, group: str = API) -> None:
        module = f"forge_discovery_test_{name}"
        (self.folder / f"{module}.py").write_text(text.replace("NAME", name), encoding="utf-8")
        self.points.append(EntryPoint(name, module, group))

    def discover(self, environ: dict[str, str] | None = None) -> Catalogue:
        return discover(environ or {}, self.points)

    def verdict(self, name: str, text: str) -> Plugin:
        """Discover one plugin beside a good one, which must stay unaffected, and return it."""
        self.add(name, text)
        self.add("good", GOOD)
        found = self.discover()
        assert [plugin.name for plugin in found.usable if plugin.name != name] == ["good"]
        plugin = found.find(name)
        assert plugin is not None
        return plugin


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugins:
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("forge_discovery_test_")]:
        monkeypatch.delitem(sys.modules, name)
    return Plugins(tmp_path)


@pytest.fixture
def fake_torch(plugins: Plugins, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that is not loaded and would say so if it were."""
    package = plugins.folder / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('torch was imported')")
    (package / "nn.py").write_text("")
    for name in [name for name in sys.modules if name == "torch" or name.startswith("torch.")]:
        monkeypatch.delitem(sys.modules, name)


def offering(expression: str) -> str:
    return f"{HEAD}\n@hookimpl\ndef forge_offers():\n    yield {expression}\n"


def test_a_good_plugin_is_found_with_its_offers_and_extensions(plugins: Plugins) -> None:
    plugin = plugins.verdict("fine", GOOD)
    assert (plugin.status, plugin.reason) == ("ok", None)
    assert [offer.serves for offer in plugin.offers] == [{"adapter", "fine/tar"}]
    assert [extension.impl for extension in plugin.extensions] == ["nowhere"]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import forge_surely_not_there", "No module named 'forge_surely_not_there'"),
        ("def broken(:", "SyntaxError"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("class Odd(BaseException): pass\nraise Odd('own kind')", "Odd: own kind"),
    ],
)
def test_a_plugin_that_fails_on_import_is_broken_for_its_own_reason(
    plugins: Plugins, statement: str, reason: str
) -> None:
    plugin = plugins.verdict("bad", f"{statement}\n{GOOD}")
    assert plugin.status == "broken"
    assert reason in str(plugin.reason)
    assert not plugin.offers


def test_a_plugin_whose_hook_fails_is_broken(plugins: Plugins) -> None:
    plugin = plugins.verdict("bad", f"{HEAD}\n@hookimpl\ndef forge_offers():\n    yield 1 / 0\n")
    assert (plugin.status, plugin.reason) == ("broken", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize("statement", ["import torch", "import torch.nn", "from torch import nn"])
@pytest.mark.usefixtures("fake_torch")
def test_a_plugin_that_imports_torch_at_discovery_is_broken(plugins: Plugins, statement: str) -> None:
    plugin = plugins.verdict("heavy", f"{statement}\n{GOOD}")
    assert plugin.status == "broken"
    assert str(plugin.reason).startswith("imports torch at discovery; import it inside")
    assert "torch" not in sys.modules


@pytest.mark.usefixtures("fake_torch")
def test_a_plugin_that_swallows_the_refusal_of_torch_is_broken_too(plugins: Plugins) -> None:
    plugin = plugins.verdict("sly", f"try:\n    import torch\nexcept ImportError:\n    torch = None\n{GOOD}")
    assert plugin.status == "broken"
    assert "imports torch at discovery" in str(plugin.reason)


@pytest.mark.usefixtures("fake_torch")
def test_a_plugin_that_imports_torch_in_its_hook_is_broken(plugins: Plugins) -> None:
    plugin = plugins.verdict("late", GOOD.replace("    yield Offer", "    import torch\n    yield Offer"))
    assert "imports torch at discovery" in str(plugin.reason)


@pytest.mark.usefixtures("fake_torch")
def test_a_plugin_may_ask_whether_torch_is_installed(plugins: Plugins) -> None:
    text = f"import importlib.util\nassert importlib.util.find_spec('torch').origin\n{GOOD}"
    assert plugins.verdict("asking", text).status == "ok"


@pytest.mark.usefixtures("fake_torch")
def test_the_guard_answers_find_spec_and_refuses_the_import_only_inside_its_block() -> None:
    with import_guard() as seen:
        spec = importlib.util.find_spec("torch")
        assert spec is not None
        assert spec.origin is not None
        assert seen == []
        with pytest.raises(HeavyImportError, match="imports torch"):
            importlib.import_module("torch")
        assert seen == ["torch"]
    with pytest.raises(AssertionError, match="torch was imported"):
        importlib.import_module("torch")


def test_the_guard_leaves_no_trace() -> None:
    before = list(sys.meta_path)
    with pytest.raises(ValueError, match="out"), import_guard():
        raise ValueError("out")
    assert sys.meta_path == before


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("'an offer'", "yields str where forge.api.Offer"),
        ("None", "yields NoneType where"),
        (
            'Offer(stage=Stage.TRAIN, impl="a:b", serves=frozenset({"stf"}))',
            "serves stf, unknown for train; known: classification, cpo, distill, dpo, embedding, grpo",
        ),
        ('Offer(stage=Stage.TRAIN, impl="a:b", supports=frozenset({"other/sft"}))', "supports other/sft, unknown"),
        ('Offer(stage=Stage.LOAD, impl="a:b", supports=frozenset({"sft"}))', "supports sft, unknown for load"),
        (
            'Offer(stage=Stage.TRAIN, impl="a:b", serves=frozenset({"dpo"}), supports=frozenset({"sft"}))',
            "supports sft at train; that belongs to serves",
        ),
        (
            'Offer(stage=Stage.TRAIN, impl="a:b", serves=frozenset({"sft", "vision"}))',
            "serves vision at train; that belongs to supports",
        ),
        ('Offer(stage=Stage.TRAIN, impl="a:b", supports=frozenset({"vision"}))', "serves no word of it"),
        ('Offer(stage="laod", impl="a:b", supports=frozenset())', "offers the stage 'laod'"),
        ('Offer(stage="load", impl="a:b", supports=frozenset())', "offers the stage 'load'"),
        ('Offer(stage=Stage.LOAD, impl="a:b", supports=None)', "offers load with supports = None; write frozenset"),
        ('Offer(stage=Stage.LOAD, impl="a:b", suports=frozenset())', "TypeError"),
    ],
)
def test_a_mistake_in_an_offer_disables_its_plugin_and_is_said(plugins: Plugins, expression: str, reason: str) -> None:
    plugin = plugins.verdict("bad", offering(expression))
    assert plugin.status == "broken"
    assert reason in str(plugin.reason)


@pytest.mark.parametrize(
    "text",
    ["", f"{HEAD}\n@hookimpl\ndef forge_offers():\n    return []\n", f"{HEAD}\ndef forge_offers():\n    yield 1\n"],
)
def test_a_plugin_that_offers_nothing_is_broken(plugins: Plugins, text: str) -> None:
    assert str(plugins.verdict("empty", text).reason).startswith("offers nothing")


def test_a_hook_with_a_name_that_forge_does_not_know_is_a_mistake(plugins: Plugins) -> None:
    plugin = plugins.verdict("typo", f"{GOOD}\n@hookimpl\ndef forge_ofers():\n    return []\n")
    assert plugin.status == "broken"
    assert "forge_ofers" in str(plugin.reason)


def test_another_api_version_is_reported_without_import(plugins: Plugins) -> None:
    plugins.add("future", "raise AssertionError('imported')", group="forge_v2")
    plugin = plugins.discover().find("future")
    assert plugin is not None
    assert (plugin.status, plugin.reason) == ("other API", "speaks forge_v2, this forge speaks forge_v1")
    assert "forge_discovery_test_future" not in sys.modules


@pytest.mark.parametrize(
    ("variable", "loaded"),
    [
        (None, ["one", "three", "two"]),
        ("one,two", ["one", "two"]),
        (" one , two ", ["one", "two"]),
        ("-one", ["three", "two"]),
        ("-one,-two", ["three"]),
        ("one,two,-two", ["one"]),
        ("nobody", []),
    ],
)
def test_forge_plugins_says_which_plugins_load(plugins: Plugins, variable: str | None, loaded: list[str]) -> None:
    for name in ("one", "two", "three"):
        plugins.add(name, GOOD)
    found = plugins.discover({"FORGE_PLUGINS": variable} if variable is not None else None)
    assert [plugin.name for plugin in found.usable] == loaded
    assert {(plugin.status, plugin.reason) for plugin in found.unusable} <= {
        ("disabled", "switched off by FORGE_PLUGINS")
    }
    assert len(found.plugins) == 3


def test_a_name_in_forge_plugins_that_no_plugin_has_is_told(plugins: Plugins) -> None:
    plugins.add("one", GOOD)
    assert plugins.discover({"FORGE_PLUGINS": "-one, -on,nobody"}).missed == ("nobody", "on")
    assert plugins.discover({"FORGE_PLUGINS": "one"}).missed == ()


def test_a_plugin_that_is_switched_off_is_not_imported(plugins: Plugins) -> None:
    plugins.add("off", "raise AssertionError('imported')")
    assert plugins.discover({"FORGE_PLUGINS": "-off"}).plugins[0].status == "disabled"
    assert "forge_discovery_test_off" not in sys.modules


def test_a_reference_to_a_missing_name_is_an_import_error() -> None:
    with pytest.raises(ImportError, match="json has no nothing"):
        load_object("json:nothing")


LIST = """
import json, sys
from forge.discovery.discover import discover
from forge.discovery.guard import HEAVY
found = discover()
print(json.dumps({
    "plugins": [[p.name, p.distribution, p.version, p.status, p.reason] for p in found.plugins],
    "heavy": sorted(HEAVY & set(sys.modules)),
    "slow": sorted({"pydantic", "rich", "numpy", "packaging"} & set(sys.modules)),
}))
"""


def test_installed_plugins_are_found_beside_forges_own_and_nothing_heavy_is_loaded(site: Site) -> None:
    site.install("forge-stranger", {"stranger": GOOD.replace("NAME", "stranger")}, f"[{API}]\nstranger = stranger\n")
    found = json.loads(site.python(LIST))
    assert ["stranger", "forge-stranger", "1.0", "ok", None] in found["plugins"]
    assert [p[3] for p in found["plugins"] if p[0] == "huggingface"] == ["ok"]
    assert found["heavy"] == []
    assert found["slow"] == []


def test_of_two_plugins_with_one_name_neither_loads_and_both_distributions_are_named(site: Site) -> None:
    site.install("forge-first", {"first": "raise AssertionError('imported')"}, f"[{API}]\ntwin = first\n")
    site.install("forge-second", {"second": "raise AssertionError('imported')"}, f"[{API}]\ntwin = second\n", "2.0")
    found = json.loads(site.python(LIST))
    twins = [p for p in found["plugins"] if p[0] == "twin"]
    assert [(p[1], p[3]) for p in twins] == [("forge-first", "duplicate"), ("forge-second", "duplicate")]
    for twin in twins:
        assert twin[4] == "two plugins have this name: forge-first 1.0 and forge-second 2.0; uninstall one"
    assert [p[3] for p in found["plugins"] if p[0] == "huggingface"] == ["ok"]


def test_a_stranger_cannot_take_the_name_of_forges_own_plugin_nor_disable_it(site: Site) -> None:
    site.install("forge-thief", {"thief": GOOD.replace("NAME", "huggingface")}, f"[{API}]\nhuggingface = thief\n")
    found = json.loads(site.python(LIST))
    there = {p[1]: (p[3], p[4]) for p in found["plugins"] if p[0] == "huggingface"}
    assert there["forge-train"] == ("ok", None)
    assert there["forge-thief"] == ("duplicate", "huggingface is a plugin of forge's own; it needs another name")


def test_the_same_distribution_twice_on_the_path_is_one_plugin(plugins: Plugins) -> None:
    plugins.add("once", GOOD)
    plugins.points *= 2
    assert [plugin.status for plugin in plugins.discover().plugins] == ["ok"]


def test_the_heavy_packages_include_all_that_unsloth_patches() -> None:
    assert {"torch", "transformers", "trl", "peft", "datasets", "unsloth"} <= HEAVY


@pytest.mark.parametrize("name", ["x" * 65, "evil\x1b[31m", "a b", "../x", "a/b", "plügin"])
def test_a_plugin_with_an_odd_name_is_listed_as_broken(plugins: Plugins, name: str) -> None:
    plugins.add("good", GOOD)
    plugins.points.append(EntryPoint(name, "forge_discovery_test_good", API))
    (odd,) = plugins.discover().unusable
    assert odd.reason == "a plugin's name is of at most 64 letters (a-z), digits, dashes, underscores and dots"
    assert odd.name == (name if len(name) < 65 else "x" * 63 + "…")


def test_what_a_plugin_prints_and_raises_is_out_of_the_way_and_without_logins(
    plugins: Plugins, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "print('hello')\nraise ValueError('no answer from http://me:WORD@host')"
    assert plugins.verdict("loud", text).reason == "ValueError: no answer from http://***@host"
    assert capsys.readouterr() == ("", "")

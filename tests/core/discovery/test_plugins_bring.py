"""What plugins bring beside offers: commands, and what they know of models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge.api import Command, ModelFacts
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.discovery.describe import describe_model
from forge.errors import ModelError, PluginError

if TYPE_CHECKING:
    from support.sites import Site

BRINGS = """
import click
from forge.api import Command, hookimpl

@hookimpl
def forge_commands():
    yield Command("greet", "Say hello.", "brings_command:command")
    yield Command("broken", "Name nothing.", "brings_command:nothing")
    yield Command("run", "Take forge's own place.", "brings_command:command")
"""
COMMAND = """
import click

@click.command()
@click.argument("name")
def command(name):
    '''Say hello to NAME.'''
    click.echo(f"hello {name}")
"""


@pytest.fixture
def installed(site: Site) -> Site:
    site.install("forge-brings", {"brings": BRINGS, "brings_command": COMMAND}, "[forge_v1]\nbrings = brings\n")
    return site


def test_a_command_of_a_plugin_is_a_command_of_forge(installed: Site) -> None:
    assert installed.forge("greet", "Ada").stdout == "hello Ada\n"
    assert "forge greet" in installed.forge("plugins").stdout
    assert "Say hello." in installed.forge("plugins", "brings").stdout


def test_a_command_of_a_plugin_is_imported_only_when_it_is_called(installed: Site) -> None:
    (installed.folder / "brings_command.py").write_text("raise SystemExit('imported')")
    for arguments in (["--help"], ["plugins"], ["run", "--help"], ["doctor"]):
        done = installed.forge(*arguments)
        assert done.returncode == 0, done.stderr
    assert installed.forge("greet", "Ada").returncode != 0


def test_forges_own_command_is_never_replaced(installed: Site) -> None:
    assert "Train what JOB says" in installed.forge("run", "--help").stdout


def test_a_command_that_cannot_be_had_names_its_plugin(installed: Site) -> None:
    done = installed.forge("broken")
    assert done.returncode == 1
    assert "plugin brings (forge-brings 1.0) brings forge broken, which cannot be used" in done.stderr


def test_a_command_of_a_name_that_nobody_can_type_disables_the_plugin(site: Site) -> None:
    text = BRINGS.replace('"greet"', '"Greet Me"')
    site.install("forge-brings", {"brings": text}, "[forge_v1]\nbrings = brings\n")
    assert "broken: brings the command 'Greet Me'; a name is of lower-case" in site.forge("plugins").stdout


def test_of_two_commands_of_one_name_forges_own_is_taken() -> None:
    mine, theirs = (Command("report", "x", f"{name}:command") for name in ("mine", "theirs"))
    found = Catalogue(
        (
            Plugin(name="a", distribution="forge-a", version="1", commands=(theirs,)),
            Plugin(name="b", distribution=OWN, version="1", commands=(mine,)),
        )
    )
    taken = found.command("report")
    assert taken is not None
    assert taken[1] is mine


def describing(name: str, answer: object, *, own: bool = False) -> Plugin:
    def describe(id: str, revision: str | None, folder: Path) -> ModelFacts | None:  # noqa: A002
        if isinstance(answer, Exception):
            raise answer
        return ModelFacts(id=id, source="folder", model_type=name) if answer else None

    return Plugin(name=name, distribution=OWN if own else f"forge-{name}", version="1", describe=describe)


def described(*plugins: Plugin) -> ModelFacts:
    return describe_model(Catalogue(plugins), "m", None, Path())


def test_the_first_plugin_that_knows_a_model_describes_it_and_forges_own_is_asked_first() -> None:
    assert described(describing("a", True), describing("z", True, own=True)).model_type == "z"
    assert described(describing("a", True), describing("z", None, own=True)).model_type == "a"


def test_a_stranger_may_know_what_forges_own_refuses() -> None:
    refusing = describing("own", ModelError("m is no model"), own=True)
    assert described(refusing, describing("a", True)).model_type == "a"
    with pytest.raises(ModelError, match="m is no model"):
        described(refusing, describing("a", None))


def test_a_model_that_nobody_knows_is_unknown_with_a_note() -> None:
    facts = described()
    assert (facts.source, facts.note) == ("unknown", "no installed plugin knows it; assumed text, not verified")


def test_a_plugin_that_fails_at_a_model_is_named() -> None:
    said = "plugin a (forge-a 1): its description of m failed: ValueError: oops"
    assert str(described(describing("a", ValueError("oops"))).note).endswith(said)
    assert described(describing("a", ValueError("oops")), describing("b", True)).model_type == "b"
    with pytest.raises(PluginError, match=re.escape(said.replace("forge-a", OWN))):
        described(describing("a", ValueError("oops"), own=True))


def test_two_plugins_cannot_bring_one_command(site: Site) -> None:
    site.install("forge-brings", {"brings": BRINGS, "brings_command": COMMAND}, "[forge_v1]\nbrings = brings\n")
    site.install("forge-second", {"second": BRINGS}, "[forge_v1]\nsecond = second\n")
    said = site.forge("plugins").stdout
    assert "brings the command greet, as plugin brings does; use one of the two" in said
    assert site.forge("greet", "Ada").stdout == "hello Ada\n"


@pytest.mark.parametrize("impl", ["None", '"brings_command"', '"a b:c"'])
def test_a_command_without_an_object_disables_the_plugin(site: Site, impl: str) -> None:
    text = BRINGS.replace('"brings_command:command"', impl, 1)
    site.install("forge-brings", {"brings": text}, "[forge_v1]\nbrings = brings\n")
    assert "write package.module:name" in site.forge("plugins").stdout


def test_a_misspelt_command_of_a_plugin_is_found(installed: Site) -> None:
    assert "Did you mean 'greet'?" in installed.forge("gret").stderr
    assert "Did you mean 'report'?" in installed.forge("repot").stderr


def test_a_plugin_may_only_describe_models(site: Site) -> None:
    text = "from forge.api import hookimpl\n@hookimpl\ndef forge_describe(id, revision, folder): ...\n"
    site.install("forge-knows", {"knows": text}, "[forge_v1]\nknows = knows\n")
    assert "knows" in site.forge("plugins").stdout
    assert "broken" not in site.forge("plugins", "knows").stdout


def test_a_stranger_is_asked_about_what_forges_own_do_not_know() -> None:
    unsure = ModelFacts(id="org/name", source="unknown", note="offline")
    sure = ModelFacts(id="org/name", source="folder", task="text", model_type="theirs")

    def found(answer: object) -> Catalogue:
        return Catalogue(
            (
                # A stranger's hook may answer with anything, which is what is tried here.
                Plugin(name="a", distribution="forge-a", version="1", describe=lambda *_: answer),  # type: ignore[arg-type,return-value]
                Plugin(name="b", distribution=OWN, version="1", describe=lambda *_: unsure),
            )
        )

    assert describe_model(found(sure), "org/name", None, Path()) == sure
    assert describe_model(found(None), "org/name", None, Path()) == unsure
    said = "offline; plugin a (forge-a 1): its description of org/name failed: it returns dict where"
    assert said in str(describe_model(found({"id": "org/name"}), "org/name", None, Path()).note)

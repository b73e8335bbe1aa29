"""``forge report``: a command of a plugin, which costs nothing until a page is written."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.sites import Site


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"], ["plugins", "report"], ["plan", "job.toml"], ["runs"]])
def test_what_only_looks_loads_nothing_of_the_page(site: Site, arguments: list[str]) -> None:
    (site.folder / "job.toml").write_text('[model]\nid = "org/name"\n[data]\npath = "d.jsonl"\n')
    found = site.modules(*arguments)
    assert "forge.cli" in found
    assert not {name for name in found if name.startswith(("forge_report.", "jinja2", "markupsafe"))}


def test_help_says_what_the_command_does_without_loading_the_templates(site: Site) -> None:
    shown = site.forge("report", "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith("Usage: forge report [OPTIONS] RUN\n\n  Write a page about RUN")
    assert "jinja2" not in site.modules("report", "--help")


def test_a_run_that_is_not_there_is_told_in_a_sentence(site: Site) -> None:
    done = site.forge("report", "nothing")
    assert done.returncode == 2
    assert "error: there is no run nothing" in done.stderr


def test_templates_and_style_lie_in_the_package() -> None:
    found = {path.name for path in (files("forge_report") / "templates").iterdir()}
    assert {"page.html.jinja", "page.css", "shapes.html.jinja"} <= found

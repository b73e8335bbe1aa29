"""The examples of docs/plugins/: each page holds a whole plugin, as files that are named where they begin."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.sites import Site

PAGES = Path(__file__).parents[2] / "docs" / "plugins"
CODE = re.compile(r"^```(python (\S+)|toml pyproject|toml other-plugin)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def files_of(page: str) -> dict[str, str]:
    """Return the files of a page's example by their paths."""
    text = (PAGES / page).read_text(encoding="utf-8")
    return {found[2]: found[3] for found in CODE.finditer(text) if found[2]}


def job_of(page: str) -> str | None:
    """Return the part of a job that asks for the example; None if no job does."""
    text = (PAGES / page).read_text(encoding="utf-8")
    return next((found[3] for found in CODE.finditer(text) if found[1] == "toml other-plugin"), None)


def install(site: Site, page: str) -> str:
    """Install the example of a page, and return its plugin's name."""
    text = (PAGES / page).read_text(encoding="utf-8")
    declared = next(found[3] for found in CODE.finditer(text) if found[1] == "toml pyproject")
    name, module = re.findall(r'^(\w+) = "(\w+)"$', declared, re.MULTILINE)[0]
    modules = {path.removesuffix(".py"): code for path, code in files_of(page).items() if not path.startswith("tests/")}
    site.install(f"forge-{name}", modules, f"[forge_v1]\n{name} = {module}\n")
    return str(name)

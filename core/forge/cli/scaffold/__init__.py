"""The beginning of a plugin: a package that works, is tested, and does something that is seen in its first run."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

import forge
from forge.api.hooks import API
from forge.cli.scaffold.common import CI, IGNORED, PYPROJECT, README
from forge.cli.scaffold.kinds import KINDS
from forge.discovery.installed import installed
from forge.disk.files import write_text
from forge.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from forge.discovery.catalogue import Plugin

_LONGEST = 40


def scaffold(name: str, folder: Path, kind: str = "observer", *, commands: Collection[str] = ()) -> list[Path]:
    """Write a distribution ``forge-<name>`` below a folder.

    Args:
        name: The plugin's name: lower-case letters, digits and dashes.
        folder: Where to make it.
        kind: What it is to bring, from :data:`KINDS`.
        commands: Names of commands that a plugin cannot bring.

    Returns:
        The files that were written.

    Raises:
        UsageError: The name is not usable, or the folder exists.
    """
    if len(name) > _LONGEST or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        do = f"begin with a lower-case letter, and use these, digits and dashes, at most {_LONGEST} in all"
        raise UsageError(f"{name} is no name for a plugin", do=do)
    package = f"forge_{name.replace('-', '_')}"
    if name == "train" or find_spec(package):
        why = f"forge-{name} or {package} is installed already, and one of the two would hide the other"
        raise UsageError(f"{name} is taken", why, "choose another name")
    if owner := next((each for each in installed() if each.point.name == name), None):
        why = f"{' '.join(owner.source)} has a plugin of this name, and forge would take neither"
        raise UsageError(f"{name} is taken", why, "choose another name")
    if kind == "command" and name in commands:
        why = f"forge {name} is a command already, and would go first"
        raise UsageError(f"{name} is taken", why, "choose another name")
    if kind == "target" and (sender := _target(name)):
        raise UsageError(f"{name} is taken", f"{sender} sends jobs to {name}", "choose another name")
    root = folder / f"forge-{name}"
    if root.exists():
        raise UsageError(f"{root} exists", do="choose another name")
    made = KINDS[kind]
    texts = {
        "pyproject.toml": PYPROJECT,
        "README.md": README,
        ".gitignore": IGNORED,
        ".github/workflows/ci.yml": CI,
        f"{package}/py.typed": "",
        "tests/test_plugin.py": made.test,
        **{f"{package}/{file}": text for file, text in made.modules.items()},
    }
    words = {
        "@NAME@": name,
        "@PACKAGE@": package,
        "@API@": API,
        "@NEEDS@": f"{made.needs}>={'.'.join(forge.__version__.split('.')[:2])}",
        "@ABOUT@": made.about,
        "@JOB@": made.job.strip(),
        "@SEEN@": made.seen,
    }
    written = []
    for file, text in texts.items():
        for word, value in (*words.items(), *words.items()):  # the values hold words, too
            text = text.replace(word, value)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        write_text(root / file, text)
        written.append(root / file)
    return written


def _target(name: str) -> Plugin | None:
    """Return the plugin that sends jobs to a target of a name, if there is one."""
    from forge.discovery.discover import discover  # other kinds do not pay for it

    found = discover().target(name)
    return found[0] if found else None

"""The beginning of a plugin: a package that works, with the one test that a plugin needs first."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from forge.api.hooks import API
from forge.disk.files import write_text
from forge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def scaffold(name: str, folder: Path) -> list[Path]:
    """Write a distribution ``forge-<name>`` below a folder.

    Args:
        name: The plugin's name: lower-case letters, digits and dashes.
        folder: Where to make it.

    Returns:
        The files that were written.

    Raises:
        UsageError: The name is not usable, or the folder exists.
    """
    if len(name) > _LONGEST or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        do = f"use lower-case letters, digits and dashes, at most {_LONGEST} of them"
        raise UsageError(f"{name} is no name for a plugin", do=do)
    package = f"forge_{name.replace('-', '_')}"
    if name == "train" or find_spec(package):
        why = f"forge-{name} or {package} is installed already, and one of the two would hide the other"
        raise UsageError(f"{name} is taken", why, "choose another name")
    root = folder / f"forge-{name}"
    if root.exists():
        raise UsageError(f"{root} exists", do="choose another name")
    texts = {
        root / "pyproject.toml": _PYPROJECT.format(name=name, package=package, api=API),
        root / package / "__init__.py": _PLUGIN.format(name=name, package=package),
        root / package / "observer.py": _OBSERVER.format(name=name),
        root / "tests" / "test_plugin.py": _TEST.format(name=name),
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return list(texts)


_LONGEST = 100

_PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "forge-{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["forge-train"]

[project.entry-points.{api}]
{name} = "{package}"
"""

_PLUGIN = '''\
"""The plugin `{name}`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Offer, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension]:
    """Say what the plugin can do."""
    # An observer that acts on jobs with `[use] with = ["{name}"]`. To serve a stage, yield an Offer:
    #   Offer(stage=Stage.EXPORT, impl="{package}.export:export", serves=frozenset({{"{name}/my-format"}}))
    yield Extension(impl="{package}.observer")
'''

_OBSERVER = '''\
"""Sees what happens in a run."""

from forge.api import Event, StepLogged, hookimpl


@hookimpl
def forge_event(event: Event) -> None:
    """Print the steps."""
    if isinstance(event, StepLogged):
        print("{name}: step", event.step, "loss", event.loss)
'''

_TEST = '''\
"""The contract of a forge plugin, checked."""

from forge.testing import check_plugin


def test_the_plugin_keeps_its_contract() -> None:
    check_plugin("{name}")
'''

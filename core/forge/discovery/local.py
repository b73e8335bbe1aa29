"""Reading the plugins that a job brings as files, ``[use] plugins``, and what speaks against one; none is imported."""

from __future__ import annotations

import re
import sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from forge.api.code import Code
from forge.discovery.faults import LONGEST

if TYPE_CHECKING:
    from collections.abc import Iterable

_LARGEST = 2**20
_HEADER = re.compile(r"(?m)^# /// script$\s(?P<content>(^#(| .*)$\s)+)^# ///$")
"""A block of the Python packaging guide's inline script metadata (PEP 723)."""


def read_code(text: str, folder: Path, taken: Iterable[str] = ()) -> tuple[Code | None, str | None]:
    """Read a plugin's file.

    Args:
        text: Its path, as the job has it.
        folder: Where relative paths start.
        taken: Names of installed plugins.

    Returns:
        The plugin, or None and what speaks against it, as a phrase.
    """
    path = Path(text)
    if path.suffix != ".py":
        return None, f"{text} is no Python file; an installed plugin needs no mention, or one in [use] prefer or with"
    name = path.stem
    if len(name) > LONGEST or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        return None, f"{path.name} gives no name for a plugin; use letters, digits and underscores"
    if name in set(taken):
        return None, f"an installed plugin is called {name}; rename the file"
    if _is_module(name, folder, (folder / path).parent):
        return None, f"there is a module {name} already, which it would hide; rename the file"
    try:
        path = (folder / path.expanduser()).absolute()
        content = path.read_bytes()
        content.decode("utf-8")
    except FileNotFoundError:
        return None, f"there is no file {path}"
    except UnicodeDecodeError as error:
        return None, f"{path} is not UTF-8 (byte {error.start})"
    except (OSError, RuntimeError) as error:
        return None, f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
    if len(content) > _LARGEST:
        return None, f"{path} is larger than 1 MiB"
    code = Code(name, path, content)
    return (code, None) if (fault := _unmet(code)) is None else (None, fault)


def _is_module(name: str, *own: Path) -> bool:
    """Tell whether a module of a name can be imported from elsewhere than some folders and the current one."""
    if name in sys.stdlib_module_names or name in sys.builtin_module_names:
        return True
    others = [entry for entry in sys.path if entry not in {"", "."} and Path(entry) not in {Path.cwd(), *own}]
    spec = PathFinder.find_spec(name, others)
    return spec is not None and spec.origin is not None  # a folder without code is no module that it would hide


def needs_of(code: Code) -> tuple[str, ...]:
    r"""Return what a file says that it depends on, in inline script metadata. Raises ValueError if that is damaged.

    >>> needs_of(Code("x", Path("x.py"), b'# /// script\n# dependencies = ["forge-train>=0.1"]\n# ///\n'))
    ('forge-train>=0.1',)
    """
    found = _HEADER.search(code.content.decode("utf-8").replace("\r\n", "\n"))
    if found is None:
        return ()
    lines = found["content"].splitlines()
    said = tomli.loads("\n".join(line[2:] for line in lines)).get("dependencies", [])
    if not isinstance(said, list) or not all(isinstance(each, str) for each in said):
        raise ValueError("dependencies is no list of texts")
    return tuple(said)


def _unmet(code: Code) -> str | None:
    """Return what is not installed of what a file says that it depends on."""
    from packaging.requirements import InvalidRequirement, Requirement

    from forge.discovery.requirements import quoted, unmet_forge

    try:
        needs = needs_of(code)
        if unmet := unmet_forge(needs, None):
            return f"it {unmet}"
        lacking = [text for text in needs if not _is_installed(Requirement(text))]
    except (ValueError, InvalidRequirement) as error:
        return f"its block `# /// script` cannot be read: {str(error).splitlines()[0]}"
    return f"it needs {', '.join(lacking)} (pip install {quoted(lacking)})" if lacking else None


def _is_installed(requirement: Any) -> bool:
    if requirement.name.replace("_", "-").lower() == "forge-train":
        return True
    if requirement.marker and not requirement.marker.evaluate():
        return True
    try:
        return bool(requirement.specifier.contains(version(requirement.name), prereleases=True))
    except PackageNotFoundError:
        return False

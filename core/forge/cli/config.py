"""The user's own ``config.toml``: what they prefer in every job that does not say it itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.errors import JobError, Problem, UsageError
from forge.machine.places import config_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user prefers.

    Attributes:
        path: The file that says so.
        prefer: Plugins or backends, the best first, for jobs without ``[use] prefer``.
        submit: The tables ``[submit.<target>]``: options for where jobs are sent.
    """

    path: Path | None = None
    prefer: tuple[str, ...] = ()
    submit: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def user_wishes() -> Wishes:
    """Read the user's ``config.toml``; nothing where there is none.

    Raises:
        UsageError: It cannot be read.
        JobError: It has mistakes: a typo must not be ignored in silence.
    """
    path = config_file()
    if path is None or not path.exists():
        return Wishes()
    import tomli  # most users have no such file

    try:
        text = path.read_text(encoding="utf-8-sig")
        tables = tomli.loads(text)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read", error.strerror, "mend it, or set FORGE_CONFIG= to do without"
        ) from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file", f"byte {error.start} is not UTF-8") from None
    except tomli.TOMLDecodeError as error:
        raise JobError(str(path), [Problem("", f"not TOML: {error.msg}", line=error.lineno)]) from None
    except (ValueError, RecursionError) as error:
        raise JobError(str(path), [Problem("", f"not TOML: {error}")]) from None
    use, submit = tables.get("use", {}), tables.get("submit", {})
    there = 'it holds [use] prefer = ["…"] and tables [submit.<target>], and nothing else'
    strange = [name for name in tables if name not in {"use", "submit"}]
    strange += [f"use.{name}" for name in use if name != "prefer"] if isinstance(use, dict) else ["use"]
    problems = [_problem(text, name, "unknown key", there) for name in strange]
    prefer = use.get("prefer", []) if isinstance(use, dict) else []
    if not isinstance(prefer, list) or not all(isinstance(name, str) and name for name in prefer):
        problems.append(_problem(text, "use.prefer", "must be a list of names", 'write prefer = ["mlx"]'))
    if not isinstance(submit, dict) or not all(isinstance(table, dict) for table in submit.values()):
        problems.append(_problem(text, "submit", "holds something else than tables", "write [submit.slurm]"))
    if problems:
        raise JobError(str(path), problems)
    return Wishes(path, tuple(prefer), submit)


def _problem(text: str, key: str, message: str, do: str) -> Problem:
    from forge.job.locate import locate  # only mistakes pay for it

    return Problem(key, message, do, locate(text, list(key.split("."))))

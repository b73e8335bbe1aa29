"""Functions of plugins that a job names by a word: readers of rows, metrics, rewards.

Every process knows those of its plan; one that plans knows those of all plugins that were found.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.api.reference import load_object
from forge.errors import DataError, ForgeError, PluginError, told_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.job.data import Source
    from forge.job.job import Job

_known: dict[str, str] = {}


def know(functions: Mapping[str, str]) -> None:
    """Take these as the functions of this process: what they do is imported when it is asked for.

    Args:
        functions: By name, ``<plugin>/<word>``: ``"package.module:function"``. A plugin that evaluates by questions of
            its own stands under its name alone.
    """
    _known.clear()
    _known.update(functions)


def function_of(name: str) -> str | None:
    """Return the ``"package.module:function"`` of a name, or None if no plugin has it.

    >>> know({"cards/suit": "forge_cards.metrics:suit"})
    >>> function_of("cards/suit"), function_of("cards/rank")
    ('forge_cards.metrics:suit', None)
    >>> know({})
    """
    return _known.get(name)


def read_by(path: str) -> tuple[str, str] | None:
    """Return the name of the reader that a path of a job names, and what it is to read; None if it names none.

    >>> know({"sqlite/rows": "forge_sqlite.read:rows"})
    >>> read_by("sqlite/rows:chats.db"), read_by("rows.jsonl")
    (('sqlite/rows', 'chats.db'), None)
    >>> know({})
    """
    name, colon, rest = path.partition(":")
    return (name, rest) if colon and "/" in name and name in _known else None


def measured_by(metric: str) -> tuple[str, str] | None:
    """Return the plugin that a metric of a job names, and by what that measures; None if it names none.

    >>> know({"lm-eval": "forge_lm_eval.evaluate:evaluate"})
    >>> measured_by("lm-eval:gsm8k"), measured_by("./metrics.py:polite")
    (('lm-eval', 'gsm8k'), None)
    >>> know({})
    """
    name, colon, rest = metric.partition(":")
    return (name, rest) if colon and "/" not in name and name in _known else None


def rows_of(job: Job, source: Source, path: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a path that names a reader.

    Raises:
        DataError: The reader cannot read it, or yields what is no row.
        PluginError: It cannot be imported.
    """
    found = read_by(path)
    assert found is not None, path
    name, rest = found
    try:
        reader: Any = load_object(_known[name])
    except ImportError as error:
        raise PluginError(f"the reader {name} cannot be imported", str(error)) from error
    given = {"job": job, "source": source, "path": rest}
    wanted = inspect.signature(reader).parameters
    count = 0
    try:
        for row in reader(**{key: value for key, value in given.items() if key in wanted}):
            count += 1
            if not isinstance(row, Mapping):
                raise TypeError(f"row {count} is a {type(row).__name__}; a row is a dict by column")
            yield dict(row)
    except (ForgeError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        why = f"plugin {name.partition('/')[0]}: {told_by(error)}"
        raise DataError(f"{path} cannot be read", why) from error

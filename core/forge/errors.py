"""Every error that forge raises on purpose.

::

    ForgeError                      exit code 1
    ├── UsageError                  2   the command or the job is wrong; nothing was started
    │   ├── JobError                    every mistake of a job file at once
    │   ├── PlanError                   no plugin can serve a stage, or the named one cannot
    │   ├── DataError                   the rows are wrong
    │   ├── RunError                    the run folder is missing, in use, or does not match
    │   └── ModelError                  the model is missing, gated, incomplete or unsuited
    ├── PluginError                 1   a plugin broke its contract
    ├── OutOfMemory                 1   the device's memory is too small for the job
    ├── BackendImportError          1   a planned package cannot be imported
    ├── MachineError                1   a disk, a permission or a limit of the machine is in the way
    │   └── DiskFull                    there is no room for a file
    ├── PeerLost                    1   another process of the training is gone, or does not answer
    ├── ExportError                 1   an export failed; the trained weights are safe
    ├── ModelDied                   1   the process that held a model ended
    └── Interrupted                 130 the user, or the system, asked forge to stop

An error has three parts, each a phrase without a final full stop, and prints as ``what: why; what to do``.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from forge.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class ForgeError(Exception):
    """Something went wrong that forge can explain.

    Args:
        what: What happened.
        why: The cause, as far as it is known.
        do: What the user can do about it.
    """

    exit_code: ClassVar[int] = 1
    fields: ClassVar[tuple[str, ...]] = ()
    """What an error of this class holds beside its three parts; it goes with it from process to process."""

    def __init__(self, what: str, why: str | None = None, do: str | None = None) -> None:
        what, why, do = masked(what), why and masked(why), do and masked(do)  # a library's words may quote an address
        super().__init__(what, why, do)
        self.what, self.why, self.do = what, why, do

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.do:
            text += f"; {self.do}"
        return text

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON data, for the event that carries it to the parent."""
        kinds = [kind.__name__ for kind in type(self).__mro__ if issubclass(kind, ForgeError)]
        more = {name: getattr(self, name) for name in self.fields}
        return {"type": kinds[0], "kinds": kinds, "what": self.what, "why": self.why, "do": self.do, **more}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ForgeError:
        """Rebuild an error of this class from :meth:`to_json`'s data."""
        error = cls(data["what"], data.get("why"), data.get("do"))
        for name in cls.fields:
            if name in data:
                setattr(error, name, data[name])
        return error


class UsageError(ForgeError):
    """The command or the job is wrong; nothing was started."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a job file.

    Attributes:
        where: The key's path, as in ``train.learning_rate``.
        message: What is wrong.
        do: What to write instead.
        line: The line of the key in the file, from 1; of one that is missing, its table's or the file's last. ``None``
            where it has none (``--set``).
    """

    where: str
    message: str
    do: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A contradiction between keys of one table.

    Attributes:
        message: What is wrong, and what to write instead.
        keys: The keys that it is about, as in ``("bf16", "fp16")``; it stands at the first of them that the file has.
        by: The key whose value leaves the first of ``keys`` without effect. Where that value is a change for one time
            (``--set``), it is no mistake: the key that has no effect is taken out for this time.
    """

    message: str
    keys: tuple[str, ...] = ()
    by: str | None = None

    def __str__(self) -> str:
        return self.message


class Mistakes(ValueError):  # noqa: N818 - several of them
    """Contradictions that a table's validator found; each becomes a :class:`Problem` of its own, with its line.

    Args:
        mistakes: All that there are, not the first alone.
    """

    def __init__(self, *mistakes: Mistake) -> None:
        super().__init__(*mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "; also, ".join(map(str, self.mistakes))


class JobError(UsageError):
    """A job file has mistakes; all of them are listed, each with its line, and what mends several at once."""

    def __init__(self, source: str, problems: Sequence[Problem], do: str | None = None) -> None:
        self.source = source
        problems = [replace(each, message=masked(each.message), do=each.do and masked(each.do)) for each in problems]
        self.problems = tuple(sorted(problems, key=lambda p: (p.line is None, p.line or 0, p.where)))
        count = len(self.problems)
        super().__init__(f"{source} has {count} mistake{'s' if count != 1 else ''}", do=do)

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON data, each mistake with its key and line."""
        return super().to_json() | {"source": self.source, "problems": [asdict(problem) for problem in self.problems]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> JobError:
        """Rebuild an error from :meth:`to_json`'s data."""
        return cls(data["source"], [Problem(**problem) for problem in data["problems"]], data["do"])

    def __str__(self) -> str:
        lines = [f"{self.what}:"]
        for problem in self.problems:
            place = f"{self.source}:{problem.line}" if problem.line else self.source
            parts = [place, *([problem.where] if problem.where else []), problem.message]
            lines.append(f"  {': '.join(parts)}" + (f"; {problem.do}" if problem.do else ""))
        if self.do:
            lines.append(f"  {self.do}")
        return "\n".join(lines)


class PlanError(UsageError):
    """No plugin can serve a stage, or the one that the job names cannot."""


class DataError(UsageError):
    """The rows are missing, malformed, or would teach nothing."""


class RunError(UsageError):
    """A run folder is missing, in use by another process, or does not match the job."""


class ModelError(UsageError):
    """The model is missing, gated, incomplete, damaged, or not of the kind that the job needs."""


class PluginError(ForgeError):
    """A plugin broke its contract."""


class OutOfMemory(ForgeError):  # noqa: N818 - the field's own word
    """The device's memory is too small for what the job asks.

    Attributes:
        probing: True when the first batch had not been trained yet, so that other settings may still be tried.
        relief: Changes that would need less memory, each a dict of ``key``, ``value`` and ``reason``; forge tries them
            if the job left those keys open.
    """

    fields = ("probing", "relief")

    def __init__(
        self,
        what: str,
        why: str | None = None,
        do: str | None = None,
        *,
        probing: bool = False,
        relief: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(what, why, do)
        self.probing, self.relief = probing, list(relief)


class BackendImportError(ForgeError):
    """A package that the plan preloads, or that an implementation needs, cannot be imported.

    Attributes:
        plugin: The plugin that wanted it.
    """

    fields = ("plugin",)

    def __init__(self, what: str, why: str | None = None, do: str | None = None, *, plugin: str | None = None) -> None:
        super().__init__(what, why, do)
        self.plugin = plugin


class MachineError(ForgeError):
    """A file could not be read or written, and no code is to blame: a disk, a permission, or a limit of the machine."""


class DiskFull(MachineError):  # noqa: N818 - the field's own word
    """A file could not be written for want of space."""


class PeerLost(ForgeError):  # noqa: N818 - what happened to another process
    """Another process of the training is gone, or does not answer; why, that one says itself, if it can."""


class ExportError(ForgeError):
    """An export failed. The trained weights are on disk and the export can be repeated."""


class ModelDied(ForgeError):  # noqa: N818 - no exception of the model's
    """The process that held a model ended while somebody talked to it."""


class Interrupted(ForgeError):  # noqa: N818 - not an error but a wish
    """The user or the system asked forge to stop."""

    exit_code = 130


def from_json(data: Mapping[str, Any]) -> ForgeError:
    """Rebuild an error that a worker reported: of its class, or of the nearest one above that is known here."""
    known = {kind.__name__: kind for kind in _family(ForgeError)}
    kinds = [name for name in data.get("kinds", [data["type"]]) if name in known]
    return known[kinds[0] if kinds else "ForgeError"].from_json(data)


def _family(kind: type[ForgeError]) -> Iterator[type[ForgeError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then what it was made from or came up in the handling of, and so on; of a circle, each once."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__ or each.__context__


def told_by(error: BaseException) -> str:
    """Return what somebody else's error is and says, as a phrase.

    >>> told_by(KeyError("beta"))
    "KeyError: 'beta'"
    """
    said = text_of(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def text_of(error: BaseException) -> str:
    """Return the text of somebody else's error; nothing of one that raises where it is asked."""
    try:
        return str(error)
    except BaseException:  # noqa: BLE001 - a stranger's class may do anything
        return ""


def first_line(error: BaseException) -> str:
    """Return the first line of what somebody else's error says, as a phrase; its class where it says nothing.

    >>> first_line(OSError("no such file."))
    'no such file'
    """
    lines = text_of(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__


def no_text(name: object) -> str | None:
    r"""Return why a name, such as a file's, can stand in no file of a run, or None: it may hold bytes, not text.

    >>> no_text("rows\udcff.jsonl")
    'its byte 0xff is not UTF-8'
    """
    try:
        str(name).encode()
    except UnicodeEncodeError as error:
        code = ord(error.object[error.start])
        if not 0xDC80 <= code <= 0xDCFF:
            return "it holds half a letter"
        read_as = sys.getfilesystemencoding()
        if read_as != "utf-8":  # Python keeps what it cannot read as such bytes, letters of UTF-8 too
            return f"names are read as {read_as} here, which has no byte 0x{code - 0xDC00:02x}; set PYTHONUTF8=1"
        return f"its byte 0x{code - 0xDC00:02x} is not UTF-8"
    return None

"""Find the rows that a source of the job names.

A path of the job may be a file, a folder, a glob, a list of files or a hub id. This module decides which, says so
plainly when it is none of them, yields raw rows one by one together with the place that they came from, and tells which
files beside them are not read.
"""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import DataError, alike, read_by, rows_of
from forge.disk.named import may_be_on_hub
from forge_huggingface.hub.snapshot import transport_errors
from forge_huggingface.sources.files import read
from forge_huggingface.sources.folders import Found, choose, in_folder, is_cache, names, not_a_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from forge.api import Job, Source
    from forge_huggingface.sources.texts import RawRow


_OFFLINE = "the hub cannot be reached, and nothing of that name lies here or in the cache"
_GO_ONLINE = "else go online once, or unset HF_HUB_OFFLINE"


def iterate(job: Job, source: Source, *, streaming: bool = False) -> Iterator[tuple[str, RawRow]]:
    """Yield ``(origin, row)`` for every row of a source, in order.

    Args:
        job: The job, for its folder.
        source: Where to read.
        streaming: Do not download a hub data set as a whole.

    Raises:
        DataError: Nothing is there, or it cannot be read.
    """
    for text in _paths(source):
        if read_by(text):
            yield from ((f"{text}:{number}", row) for number, row in enumerate(rows_of(job, source, text), 1))
        elif is_hub_id(job, text):
            yield from _hub(text, job, source, streaming)
        else:
            for path in find(job, text, source.split).files:
                yield from read(path, call(job, path))


def left_out(job: Job, sources: Sequence[Source]) -> list[str]:
    """Return a sentence for each local path of the sources beside whose files others lie that no source reads.

    Args:
        job: The job, for its folder.
        sources: All sources of the job, so that a split which is held out is not called unread.

    Raises:
        DataError: The files of a source cannot be found.
    """
    found = [
        (text, find(job, text, source.split))
        for source in sources
        for text in _paths(source)
        if not read_by(text) and not is_hub_id(job, text)
    ]
    told = {path for _, each in found for path in each.files}
    said: list[str] = []
    for text, each in found:
        base = job.path(text) if job.path(text).is_dir() else job.folder
        parts: list[str] = []
        for why, paths in each.left.items():
            if rest := [path for path in paths if path not in told]:
                told.update(rest)
                parts.append(f"{names(rest, base)} ({why})")
        if parts:
            said.append(f"not read of {text}: {'; '.join(parts)}")
    return said


def _paths(source: Source) -> list[str]:
    return [source.path] if isinstance(source.path, str) else list(source.path or ())


def is_hub_id(job: Job, text: str) -> bool:
    """Tell whether a path of the job is a hub id: ``org/name``, nothing local of that name, no suffix of a file."""
    return may_be_on_hub(text) and not job.path(text).exists()


def call(job: Job, path: Path) -> str:
    """Return the name of a file for people: relative to the job's folder where it lies below it."""
    whole, folder = (Path(os.path.abspath(each)) for each in (path, job.folder))  # noqa: PTH100 - links keep their names
    return whole.relative_to(folder).as_posix() if whole.is_relative_to(folder) else str(path)


def find(job: Job, text: str, split: str | None) -> Found:
    """Return the files that a local path of the job stands for, and what lies beside them.

    What exists by the name is meant, brackets and all; else the path is a pattern from its first part that does not.

    Raises:
        DataError: There are none, or it cannot be told which.
    """
    try:
        return _find(job.path(text), text, split)
    except OSError as error:
        raise DataError(f"{text} cannot be read", str(error)) from error


def _find(path: Path, text: str, split: str | None) -> Found:
    if path.is_file():
        if split not in (None, "train"):
            raise DataError(
                f"{text} has no split {split!r}",
                "it is a single file",
                "remove the split, or name another file with eval_path, or set eval_size",
            )
        return Found([path])
    if path.is_dir():
        return in_folder(path, text, split)
    if path.is_symlink():
        raise not_a_file(path, text)
    first = _missing(path)
    if glob.has_magic(first.name):
        return _matching(first.parent, path.relative_to(first.parent).as_posix(), text, split)
    near = _near(first)
    raise DataError(
        f"{text} was not found",
        f"there is no {path.resolve()}",
        f"did you mean {near}?" if near else "mend the path, or give a hub id (org/name)",
    )


def _matching(base: Path, pattern: str, text: str, split: str | None) -> Found:
    """Return the files below a folder that match a pattern; of them those of a split, where one is asked for."""
    # It finds links to folders too, and goes through a link to a folder around it as often as the system lets it.
    matched = [base / name for name in glob.glob(pattern, root_dir=base, recursive=True)]  # noqa: PTH207 - see above
    real = {folder: folder.resolve() for folder in {path.parent for path in matched}}
    once: dict[tuple[Path, str], Path] = {}
    for path in sorted(matched, key=lambda path: (len(path.parts), path)):
        once.setdefault((real[path.parent], path.name), path)
    matched = sorted(once.values())
    if broken := [path for path in matched if not path.exists()]:
        raise not_a_file(broken[0], text)
    caches = [path for path in matched if is_cache(path)]
    files = [path for path in matched if path.is_file() and path not in caches]
    if not files:
        there = sorted(path for path in base.iterdir() if not path.name.startswith("."))
        why = f"{base.resolve()} has {names(there, base)}" if there else f"{base.resolve()} is empty"
        raise DataError(f"no file matches {text}", why, "mend the pattern; ** stands for folders of any depth")
    opened = {folder for path in files for folder in path.parents}
    closed = [path for path in matched if path.is_dir() and path not in opened and any(path.iterdir())]
    found = Found(files) if split is None else choose(files, base, text, split)
    more = {"caches of datasets": caches, "folders, which a pattern does not open": closed}
    return Found(found.files, found.left | {why: paths for why, paths in more.items() if paths})


def _missing(path: Path) -> Path:
    """Return the first part of a path that is not there, as a path."""
    while path != path.parent and not path.parent.is_dir():
        path = path.parent
    return path


def _near(path: Path) -> str | None:
    """Name what the user may have meant: files of the folder that the path would lie in."""
    if not path.parent.is_dir():
        return None
    there = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    return " or ".join(alike(path.name, there)) or None


def _hub(name: str, job: Job, source: Source, streaming: bool) -> Iterator[tuple[str, RawRow]]:
    split = source.split or "train"
    for number, row in enumerate(_load(name, job, source, split, streaming), 1):
        yield f"{name}[{split}]:{number}", row


def _load(name: str, job: Job, source: Source, split: str, streaming: bool) -> Any:
    """Open a hub data set. No code of its repository is ever run."""
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{name} cannot be read",
            "the package datasets is missing",
            'install it: pip install "forge-train[huggingface]"',
        ) from error
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled

    what = f"the data set {name} cannot be read"
    near = _near(_missing(job.path(name)))
    mend = f"write {near} if you meant what lies here" if near else "mend the path if you meant a file"
    try:
        rows = datasets.load_dataset(name, source.name, split=split, revision=source.revision, streaming=streaming)
        return _undecoded(rows)
    except (datasets.exceptions.DatasetNotFoundError, GatedRepoError) as error:
        if "gated" in str(error).lower():
            raise DataError(
                what,
                "its owner wants a licence to be accepted",
                f"accept it at https://huggingface.co/datasets/{name}, then `hf auth login` or set HF_TOKEN",
            ) from error
        raise DataError(
            what,
            "there is no such file or folder here, and no such data set on the hub",
            f"{mend}; for a private data set, `hf auth login` or set HF_TOKEN",
        ) from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(what, _reason(error.__cause__ or error)) from error
    except (OfflineModeIsEnabled, ConnectionError, TimeoutError, *transport_errors()) as error:
        raise DataError(what, _OFFLINE, f"{mend}; {_GO_ONLINE}") from error
    except HfHubHTTPError as error:
        raise DataError(what, _reason(error)) from error
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        # `datasets` raises these for an unknown split, an unknown or missing configuration, and script data sets.
        if "offline" in str(error).lower() or "connect" in str(error).lower():
            raise DataError(what, _OFFLINE, f"{mend}; {_GO_ONLINE}") from error
        raise DataError(what, _reason(error), "set split, name or revision of the source") from error


def _undecoded(rows: Any) -> Any:
    """Return the rows with images as the bytes of their files: what is not decoded need not be encoded again."""
    from datasets import Image

    for name, feature in (rows.features or {}).items():
        if isinstance(feature, Image):
            rows = rows.cast_column(name, Image(decode=False))
        elif isinstance(getattr(feature, "feature", None), Image):
            rows = rows.cast_column(name, type(feature)(Image(decode=False)))
    return rows


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")

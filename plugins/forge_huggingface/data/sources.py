"""Find the rows that a source of the job names.

A path of the job may be a file, a folder, a glob, a list of files or a hub id. This module decides which, says so
plainly when it is none of them, and yields raw rows one by one together with the place that they came from.
"""

from __future__ import annotations

import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import DataError, alike
from forge_huggingface.data.files import SUPPORTED, kind, read
from forge_huggingface.hub.snapshot import transport_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api import Job, Source
    from forge_huggingface.data.texts import RawRow


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OTHER_FILES = {
    ".txt",
    ".md",
    ".xlsx",
    ".xls",
    ".pkl",
    ".pickle",
    ".pt",
    ".npy",
    ".npz",
    ".zip",
    ".tar",
    ".gz",
    ".zst",
    ".xml",
    ".yaml",
    ".yml",
    ".toml",
    ".html",
    ".db",
    ".sqlite",
    ".feather",
}
"""Suffixes that say *file*, so that a missing one is not taken for a hub id."""

_BOOKKEEPING = {"dataset_info.json", "dataset_dict.json", "dataset_infos.json", "state.json", "metadata.json"}
"""Files that lie beside rows and hold none."""

_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "eval": "eval",
    "evaluation": "eval",
}
_SPLIT_NAME = re.compile(rf"({'|'.join(sorted(_SPLITS, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)

_OFFLINE = "the hub cannot be reached, and nothing of that name lies here or in the cache"
_GO_ONLINE = "mend the path if you meant a file; else go online once, or unset HF_HUB_OFFLINE"


def iterate(job: Job, source: Source, *, streaming: bool = False) -> Iterator[tuple[str, RawRow]]:
    """Yield ``(origin, row)`` for every row of a source, in order.

    Args:
        job: The job, for its folder.
        source: Where to read.
        streaming: Do not download a hub data set as a whole.

    Raises:
        DataError: Nothing is there, or it cannot be read.
    """
    paths = [source.path] if isinstance(source.path, str) else list(source.path or ())
    for text in paths:
        if is_hub_id(job, text):
            yield from _hub(text, source, streaming)
        else:
            for path in find(job, text, source.split):
                yield from read(path, call(job, path))


def is_hub_id(job: Job, text: str) -> bool:
    """Tell whether a path of the job is a hub id: ``org/name``, nothing local of that name, no suffix of a file."""
    if not _HUB_ID.fullmatch(text) or job.path(text).exists():
        return False
    path = Path(text)
    return kind(path) is None and path.suffix.lower() not in _OTHER_FILES


def call(job: Job, path: Path) -> str:
    """Return the name of a file for people: relative to the job's folder where it lies below it."""
    try:
        return path.resolve().relative_to(job.folder.resolve()).as_posix()
    except ValueError:
        return str(path)


def find(job: Job, text: str, split: str | None) -> list[Path]:
    """Return the files that a local path of the job stands for, sorted."""
    path = job.path(text)
    if path.is_file():
        if split not in (None, "train"):
            raise DataError(
                f"{text} has no split {split!r}",
                "it is a single file",
                "remove the split, or name another file with eval_path, or set eval_size",
            )
        return [path]
    if path.is_dir():
        return _folder(path, text, split)
    if glob.has_magic(text):
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute pattern
        files = [file for file in files if file.is_file()]
        if not files:
            raise DataError(f"no file matches {text}", f"it was looked for in {job.folder.resolve()}")
        return files
    near = _near(path)
    raise DataError(
        f"{text} was not found",
        f"there is no {path.resolve()}",
        f"did you mean {near}?" if near else "mend the path, or give a hub id (org/name)",
    )


def _near(path: Path) -> str | None:
    """Name what the user may have meant: files of the nearest folder above that exists."""
    parent = path.parent
    if not parent.is_dir():
        return None
    names = sorted(entry.name for entry in parent.iterdir() if not entry.name.startswith("."))
    return " or ".join(alike(path.name, names)) or None


def _folder(folder: Path, text: str, split: str | None) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and kind(path)
        and path.name not in _BOOKKEEPING
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not files:
        raise DataError(f"{text} holds no rows", "the folder has no file of a known kind", f"known are {SUPPORTED}")
    by_split: dict[str, list[Path]] = {}
    for path in files:
        if name := _split_of(path.relative_to(folder)):
            by_split.setdefault(name, []).append(path)
    if not by_split:
        if split not in (None, "train"):
            raise DataError(
                f"{text} has no split {split!r}",
                "no file or folder in it is named after a split",
                f"name the files after their splits ({split}.jsonl), or name a file",
            )
        return files
    wanted = _SPLITS.get(split.lower(), split) if split else "train" if "train" in by_split else None
    if wanted is None and len(by_split) == 1:
        wanted = next(iter(by_split))
    if wanted is None or wanted not in by_split:
        problem = f"{text} has no split {split!r}" if split else f"{text} has several splits and none is called train"
        raise DataError(problem, f"there are {', '.join(sorted(by_split))}", "set split to one of them")
    return by_split[wanted]


def _split_of(relative: Path) -> str | None:
    """Return the split that a file belongs to: by the folder it lies in, else by how its name begins."""
    for part in relative.parts:
        if found := _SPLIT_NAME.match(part):
            return _SPLITS[found[1].lower()]
    return None


def _hub(name: str, source: Source, streaming: bool) -> Iterator[tuple[str, RawRow]]:
    split = source.split or "train"
    for number, row in enumerate(_load(name, source, split, streaming), 1):
        yield f"{name}[{split}]:{number}", row


def _load(name: str, source: Source, split: str, streaming: bool) -> Any:
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
            "mend the path; for a private data set, `hf auth login` or set HF_TOKEN",
        ) from error
    except datasets.exceptions.DatasetGenerationError as error:
        raise DataError(what, _reason(error.__cause__ or error)) from error
    except (OfflineModeIsEnabled, ConnectionError, TimeoutError, *transport_errors()) as error:
        raise DataError(what, _OFFLINE, _GO_ONLINE) from error
    except HfHubHTTPError as error:
        raise DataError(what, _reason(error)) from error
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        # `datasets` raises these for an unknown split, an unknown or missing configuration, and script data sets.
        if "offline" in str(error).lower() or "connect" in str(error).lower():
            raise DataError(what, _OFFLINE, _GO_ONLINE) from error
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

"""Find the files of rows in a folder, and account for all others in it.

Splits are told by the names of files and folders, as `datasets` tells them, and by the records that `datasets` writes
beside what it saves. What is not read is either an error or named, but for what never is rows: hidden files, images,
and the bookkeeping of tools.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.sources.files import SUPPORTED, kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


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
_WORD = re.compile(r"[^\W\d_]+")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")

_STATE, _DICT = "state.json", "dataset_dict.json"
_BOOKKEEPING = {_STATE, _DICT, "dataset_info.json", "dataset_infos.json", "config.json", "thumbs.db", "desktop.ini"}
_RECORD = "metadata.json"
"""A name that says of a file of JSON that it holds no rows; a tool of many writes it, so it is not passed over."""

_PROSE = ("readme", "license", "licence", "_")
"""How the names of files begin that say something about rows; with an underscore, Spark's (``_SUCCESS``)."""

_IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".avif", ".jp2"}
_NAMED = 5


@dataclass(slots=True)
class Found:
    """What a path of the job stands for.

    Attributes:
        files: The files to read, in order.
        left: The files that lie beside them and are not read, by the reason.
    """

    files: list[Path]
    left: dict[str, list[Path]] = field(default_factory=dict)


def in_folder(folder: Path, text: str, split: str | None) -> Found:
    """Return the files of a folder that belong to a split, or to the training rows where none is asked for.

    Args:
        folder: The folder.
        text: How the job calls it.
        split: The split that the job asks for.

    Raises:
        DataError: There are none, or what is to be read cannot be told from names; or the folder cannot be read.
    """
    rows, splits, left = _listing(folder, text)
    texts = [path for path in rows if _is_text(path)]
    if len(texts) < len(rows) and texts:  # notes beside rows
        rows = [path for path in rows if not _is_text(path)]
        left["texts beside rows of another kind"] = texts
    if not rows:
        other = [path for paths in left.values() for path in paths]
        why = f"it has {names(other, folder)} alone" if other else "there is no file in it that could be rows"
        raise DataError(f"{text} holds no rows", why, f"files of rows are {SUPPORTED}")
    found = choose(rows, folder, text, split, splits)
    return Found(found.files, found.left | left)


def choose(
    rows: Iterable[Path], base: Path, text: str, split: str | None, known: dict[Path, str] | None = None
) -> Found:
    """Return those of the files that belong to a split.

    Args:
        rows: The files.
        base: The folder below which names of files and folders may be those of splits.
        text: How the job calls the files.
        split: The split that the job asks for; None for the training rows.
        known: The splits of folders, where something other than their names says so.

    Raises:
        DataError: Names do not tell which files belong to the split, or none does.
    """
    by_split: dict[str, list[Path]] = defaultdict(list)
    unclear: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(rows):
        said = _splits_of(path, base, known or {})
        if len(said) == 1:
            by_split[said[0]].append(path)
        else:
            unclear["named after several splits" if said else "named after no split"].append(path)
    if not by_split and list(unclear) == ["named after no split"]:
        if split not in (None, "train"):
            raise DataError(
                f"{text} has no split {split!r}",
                "no file or folder in it is named after a split",
                f"name the files after their splits ({split}.jsonl), or name a file",
            )
        return Found(unclear["named after no split"])
    doubt = [path for paths in unclear.values() for path in paths]
    groups = {f"of split {name}": paths for name, paths in sorted(by_split.items())} | unclear
    if doubt and (split is None or not by_split):
        raise DataError(
            f"which files of {text} are of split {split or 'train'} cannot be told from their names",
            "; ".join(f"{names(paths, base)} {why}" for why, paths in groups.items()),
            "give all of them names like train-a.jsonl and test.jsonl, or list those to read in path",
        )
    taken = _taken(by_split, text, split)
    del groups[f"of split {taken}"]
    return Found(by_split[taken], groups)


def _taken(by_split: dict[str, list[Path]], text: str, split: str | None) -> str:
    """Return the name of the split that is asked for; a saved or sharded one must have a name of its own."""
    wanted = (split or "train").lower()
    if wanted in by_split:
        return wanted
    family = _SPLITS.get(wanted, wanted)
    similar = [name for name in by_split if family in _families(name)]
    if len(similar) == 1:
        return similar[0]
    there = sorted(similar or by_split)
    what = f"{text} has several splits for {wanted!r}" if similar else f"{text} has no split {wanted!r}"
    why = f"there {'are' if len(there) > 1 else 'is'} {', '.join(there)}"
    raise DataError(what, why, f'set split, as in split = "{there[0]}", or name the files themselves')


def _splits_of(path: Path, base: Path, known: dict[Path, str]) -> list[str]:
    """Return the splits that a file may belong to: by the outermost folder that is named after one, or its own name."""
    parts = path.relative_to(base).parts
    for depth, part in enumerate(parts, 1):
        is_file = depth == len(parts)
        if not is_file and (split := known.get(base.joinpath(*parts[:depth]))):
            return [split]
        if families := _families(part):
            shard = _SHARD.match(part) if is_file else None
            return [shard[1].lower()] if shard and len(families) == 1 else families
    return []


def _families(name: str) -> list[str]:
    return sorted({_SPLITS[word] for word in _WORD.findall(name.lower()) if word in _SPLITS})


def _listing(folder: Path, text: str) -> tuple[list[Path], dict[Path, str], dict[str, list[Path]]]:
    """Return a folder's files of rows, the splits of its folders that records tell, and other files by the reason."""
    rows: list[Path] = []
    splits: dict[Path, str] = {}
    left: dict[str, list[Path]] = defaultdict(list)
    for here, entries in _walk(folder, text, set()):
        if _DICT in entries:
            for split in _record(here / _DICT, text).get("splits", ()):
                if not (here / split).is_dir():
                    raise DataError(
                        f"{text} is not whole", f"{_DICT} names the split {split}, and there is no folder {split}"
                    )
                splits[here / split] = split.lower()
        saved = _saved(here, text) if _STATE in entries else None
        for name in entries:
            path = here / name
            if _is_silent(path, saved=saved is not None):
                continue
            if kind(path) is None:
                left["of a kind that is not read"].append(path)
            elif saved is not None and name not in saved:
                left[f"not in {_STATE}"].append(path)
            elif name.lower() == _RECORD:
                left["a record about rows by its name"].append(path)
            elif path.is_file():
                rows.append(path)
            else:
                raise not_a_file(path, text)
    return rows, splits, {why: sorted(paths) for why, paths in sorted(left.items())}


def _walk(top: Path, text: str, seen: set[Path]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each folder with the names of its files; links to folders too, and each folder once."""
    links: list[Path] = []

    def refuse(error: OSError) -> None:
        raise DataError(f"{text} cannot be read", str(error)) from error

    for root, folders, files in os.walk(top, onerror=refuse):
        here = Path(root)
        if (real := here.resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        links += [here / name for name in folders if (here / name).is_symlink()]
        yield here, [name for name in files if not name.startswith(".")]
    for link in sorted(links):
        real = link.resolve()
        if real in seen:
            continue
        if top.resolve().is_relative_to(real):
            raise DataError(f"{text} has no end", f"{link} is a link to a folder around it", "remove the link")
        yield from _walk(link, text, seen)


def _saved(folder: Path, text: str) -> set[str] | None:
    """Return the names of the files that `save_to_disk` has written, or None if it was not it."""
    state = _record(folder / _STATE, text)
    if "_data_files" not in state:
        return None
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise DataError(
            f"{text} is a selection of rows that an old version of datasets saved",
            f"{_STATE} in {folder} names a file with the numbers of the rows",
            "load it with that version, and save it again after flatten_indices()",
        )
    listed = {str(entry["filename"]) for entry in state["_data_files"]}
    if missing := sorted(name for name in listed if not (folder / name).is_file()):
        raise DataError(f"{text} is not whole", f"{_STATE} names {missing[0]}, which is not there", "copy it again")
    return listed


def _record(path: Path, text: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{text} cannot be read", f"{path} is damaged: {error}", "save the data set again") from error
    return record if isinstance(record, dict) else {}


def not_a_file(path: Path, text: str) -> DataError:
    """Return the error for what has the name of a file and is none: mostly a link to what was never fetched."""
    if path.is_symlink():
        why = f"{path} is a link to {path.readlink()}, which is not there"
        return DataError(f"{text} is not whole", why, "fetch the file, or remove the link")
    return DataError(f"{text} cannot be read", f"{path} is not a plain file", "remove it")


def is_cache(path: Path) -> bool:
    """Tell whether a file is one that `datasets` has put beside a data set on disk, to save itself work."""
    return path.name.startswith("cache-") and path.suffix == ".arrow" and path.with_name(_STATE).exists()


def _is_text(path: Path) -> bool:
    return kind(path) == ".txt"


def _is_silent(path: Path, *, saved: bool) -> bool:
    name = path.name.lower()
    if name in _BOOKKEEPING or path.suffix.lower() in _IMAGES:
        return True
    return is_cache(path) if saved else kind(path) is None and name.startswith(_PROSE)


def names(paths: list[Path], base: Path) -> str:
    """Name files for people, relative to a folder, and the first few of many."""
    shown = [path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path) for path in paths]
    more = f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else ""
    return ", ".join(shown[:_NAMED]) + more

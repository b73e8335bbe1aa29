"""What a path of a job can name: a file or folder here, or a data set on the hub."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OF_ROWS = ".arrow .csv .json .jsonl .ndjson .parquet .tsv .txt"
_OF_OTHERS = (
    ".bz2 .db .docx .feather .gz .html .md .npy .npz .ods .pdf .pickle .pkl .pt .sqlite .tar .toml .xls .xlsx .xml .xz "
    ".yaml .yml .zip .zst"
)
_SUFFIXES = frozenset([*_OF_ROWS.split(), *_OF_OTHERS.split()])


def may_hold_rows(path: Path) -> bool:
    """Tell whether a file is of a kind that holds rows, or a folder is one that a user made."""
    if path.name.startswith("."):
        return False
    return path.is_dir() or any(suffix in _OF_ROWS.split() for suffix in path.suffixes)


def may_be_on_hub(text: str) -> bool:
    """Tell whether a path that is not here may be a hub id: ``org/name``, with no suffix that says *file*.

    >>> [may_be_on_hub(text) for text in ("org/name", "org/name.v2", "rows/train.jsonl", "name", "./org/name")]
    [True, True, False, False, False]
    """
    return bool(_HUB_ID.fullmatch(text)) and PurePath(text).suffix.lower() not in _SUFFIXES

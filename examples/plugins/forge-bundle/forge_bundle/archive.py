"""A tar archive that is the same, byte for byte, whenever and wherever it is made of the same files."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Literal

MODES: Mapping[str, tuple[Literal["w", "w:xz"], str]] = {"none": ("w", ".tar"), "xz": ("w:xz", ".tar.xz")}
"""By the word for a compression: tarfile's mode, and how the file's name ends."""


def write(path: Path, compression: str, files: Mapping[str, Path | bytes]) -> None:
    """Write files under the names that they are to have, in that order."""
    with tarfile.open(path, MODES[compression][0]) as archive:
        for name, source in files.items():
            entry = tarfile.TarInfo(name)  # of 1970, of nobody, readable by all
            entry.size = len(source) if isinstance(source, bytes) else source.stat().st_size
            with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
                archive.addfile(entry, content)


def sums(path: Path) -> dict[str, str]:
    """Return the sha256 of each file in an archive, read back from it."""
    with tarfile.open(path) as archive:
        return {entry.name: digest(content) for entry in archive if (content := archive.extractfile(entry))}


def digest(content: IO[bytes]) -> str:
    """Return the sha256 of what is left to read."""
    return hashlib.file_digest(content, "sha256").hexdigest()  # type: ignore[arg-type]  # any file will do

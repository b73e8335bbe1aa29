"""What a base model says of its licence: in its card, and in files of its own."""

from __future__ import annotations

import re
from pathlib import Path

_KEY = re.compile(r"^license:\s*(.+?)\s*$", re.MULTILINE)


def licence_of(model: Path | None) -> str | None:
    """Return the licence that the card of a model's folder names, or None."""
    card = model / "README.md" if model else None
    if card is None or not card.is_file():
        return None
    text = card.read_text(encoding="utf-8", errors="replace")
    head = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    found = _KEY.search(head)
    return found.group(1).strip("'\"") if found else None


def licence_files(model: Path | None) -> list[Path]:
    """Return the files of a model's folder that are licences or notices."""
    if model is None or not model.is_dir():
        return []
    names = ("license", "licence", "notice", "use_policy")
    return sorted(path for path in model.iterdir() if path.is_file() and path.name.lower().startswith(names))

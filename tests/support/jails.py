"""The sandbox with some of what holds it missing, as on a machine that does not have it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forge_huggingface.rewards.sandbox import jail, run

if TYPE_CHECKING:
    import pytest


_WITHOUT = {
    "namespaces": ('part(libc, network=spec["network"])', "pass"),
    "Landlock": ("version < 1", "True"),
    "seccomp": ('spec["calls"]', "0"),
}
WALLS = tuple(_WITHOUT)


def break_down(monkeypatch: pytest.MonkeyPatch, folder: Path, *walls: str) -> None:
    """Run programs without some of the walls from here on."""
    text = Path(jail.__file__).read_text(encoding="utf-8")
    for wall in walls:
        old, new = _WITHOUT[wall]
        assert old in text
        text = text.replace(old, new)
    weak = folder / "weak-jail.py"
    weak.write_text(text, encoding="utf-8")
    monkeypatch.setattr(jail, "__file__", str(weak))
    assert run.jail is jail

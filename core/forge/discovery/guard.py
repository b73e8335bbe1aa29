"""The import guard: nothing heavy may be imported before a run's worker has been started."""

from __future__ import annotations

import sys
from contextlib import contextmanager, redirect_stdout
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType


HEAVY = frozenset(
    {"accelerate", "datasets", "jax", "mlx", "mlx_lm", "peft", "tensorflow", "torch", "transformers", "trl", "unsloth"}
)
"""Packages that nothing may import before a run's worker has been started."""


class HeavyImportError(ImportError):
    """A heavy package was imported while plugins were being discovered."""


class NoAnswer(Exception):  # noqa: N818 - what became of a question
    """A plugin that was asked in another process did not answer; the text says why, as a phrase."""


class _Refusal(Loader):
    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        self.seen.append(spec.name)
        raise HeavyImportError(f"imports {spec.name} at discovery; import it inside the implementation")

    def exec_module(self, module: ModuleType) -> None:  # pragma: no cover - create_module has raised
        raise NotImplementedError


class _Guard(MetaPathFinder):
    """Finds heavy packages, so that ``find_spec`` still answers, and refuses to load them."""

    def __init__(self, seen: list[str]) -> None:
        self.seen = seen

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in HEAVY:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _Refusal(self.seen)
        return spec


@contextmanager
def import_guard() -> Iterator[list[str]]:
    """Refuse heavy imports inside the block; yields the list of those tried, even where the error was swallowed.

    What a plugin prints there goes to standard error: a program may read what the command prints.
    """
    seen: list[str] = []
    guard = _Guard(seen)
    sys.meta_path.insert(0, guard)
    try:
        with redirect_stdout(sys.stderr):
            yield seen
    finally:
        sys.meta_path.remove(guard)

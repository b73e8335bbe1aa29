"""Adapters in the type that is computed in: rounded by each layer, or once for a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from forge_huggingface.kernels.pieces import Piece


@dataclass(frozen=True, slots=True)
class Ready:
    """The adapters of layers with one input, in the type that is computed in.

    Attributes:
        a: The first matrices, one below the other.
        bs: The second ones; None of a layer that has no adapter.
    """

    a: torch.Tensor | None
    bs: Sequence[torch.Tensor | None]


@dataclass(slots=True)
class Copies:
    """Adapters of some layers in 16 bit, and what they are copies of.

    Attributes:
        ready: They, as layers take them.
        to: Each matrix of them.
        of: The parameter that each is a copy of.
        used: Whether the batch in work has asked for them.
    """

    ready: Ready
    to: Sequence[torch.Tensor]
    of: Sequence[torch.Tensor]
    used: bool = True

    @property
    def fit(self) -> bool:
        """Whether the parameters are still where and as large as they were."""
        return all(a.shape == b.shape and a.device == b.device for a, b in zip(self.to, self.of, strict=True))


class Rounded:
    """Adapters in 16 bit, rounded together once for a batch.

    Each layer would round its own, by a launch for each matrix: of a small model they take longer than its arithmetic.
    What is held is used within a batch, between the first layer that asks and the end of the backward pass, in which no
    adapter changes, and where a gradient is wanted; whatever asks at another time, such as writing answers, rounds for
    itself. What a batch has not asked for is dropped in the next one.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], Copies] = {}
        self._in_work = self._fresh = False

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """Have what is held rounded anew within a batch, by the first layer that asks: a trainer may move weights."""
        self._in_work, self._fresh = True, False
        try:
            yield
        finally:
            self._in_work = False

    def of(self, pieces: Sequence[Piece], dtype: torch.dtype) -> Ready | None:
        """Return the adapters of layers, if this is the time for it."""
        if not self._in_work or not torch.is_grad_enabled():
            return None
        first = next((p.a for p in pieces if p.a is not None), None)
        if first is None or first.dtype == dtype:
            return None
        if not self._fresh:
            self._refresh()
        key = (dtype, *((id(p.a), id(p.b)) if p.a is not None else None for p in pieces))
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = _copies(pieces, dtype)
        found.used = True
        return found.ready

    def forget(self) -> None:
        """Let go of everything."""
        self._held = {}

    @torch.no_grad()
    def _refresh(self) -> None:
        self._held = {key: each for key, each in self._held.items() if each.used and each.fit}
        every = self._held.values()
        if every:
            to = [tensor for each in every for tensor in each.to]
            torch._foreach_copy_(to, [tensor for each in every for tensor in each.of])
        for each in every:
            each.used = False
        self._fresh = True


@torch.no_grad()
def _copies(pieces: Sequence[Piece], dtype: torch.dtype) -> Copies:
    firsts, seconds = [p.a for p in pieces if p.a is not None], [p.b for p in pieces if p.b is not None]
    a = firsts[0].new_empty((sum(map(len, firsts)), firsts[0].shape[1]), dtype=dtype)
    bs = [each.new_empty(each.shape, dtype=dtype) for each in seconds]
    to, of = [*a.split([len(each) for each in firsts]), *bs], [*firsts, *seconds]
    torch._foreach_copy_(to, of)
    rest = iter(bs)
    return Copies(Ready(a, [None if p.b is None else next(rest) for p in pieces]), to, of)


ROUNDED = Rounded()
"""Those of the model that is trained."""


def ready(pieces: Sequence[Piece], dtype: torch.dtype) -> Ready:
    """Return the adapters of layers in a type."""
    firsts = [p.a for p in pieces if p.a is not None]
    a = (firsts[0] if len(firsts) == 1 else torch.cat(firsts)).to(dtype) if firsts else None
    return Ready(a, [None if p.b is None else p.b.to(dtype) for p in pieces])

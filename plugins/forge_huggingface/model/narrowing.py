"""Rows that have ended leave a batch that is decoded: the model then writes for fewer.

An answer of 20 tokens in a batch with one of 1,000 is otherwise computed 980 times for nothing. What draws a token,
penalises and stops is still transformers' own ``generate`` over the whole batch: only the model's forward pass is made
of the rows that go on, and their logits are put back in their places. So the same seed draws the same tokens, up to
the rounding that a matrix of other height has.

Which rows have ended is copied to the host while the device works, and is looked at one token later: nothing waits.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COST = 30
"""Tokens in whose time a batch is made smaller: three passes without a graph, each of about ten with one."""


class Watch:
    """Looks whether a batch has ended, in the place of transformers' ``StopCheck``, one token late.

    The token that is then too much is taken back, and so is what was drawn for it: the next batch draws what it would
    have drawn.

    Args:
        ids: The prompts, of shape ``(rows, tokens)``.
        longest: Tokens of prompt and answer at which all rows end.
        streamer: Gets each token, one token late.

    Attributes:
        alive: Which rows had not ended before the last token.
        left: Tokens that may still come; None before the first.
    """

    def __init__(self, ids: Any, longest: int | None, streamer: Any = None) -> None:
        import torch

        self._device, self._longest, self._streamer = ids.device, longest, streamer
        cuda = ids.device.type == "cuda"
        self._slots = [
            (
                torch.ones(ids.shape[0], dtype=torch.long, pin_memory=cuda),
                torch.zeros(ids.shape[0], dtype=torch.long, pin_memory=cuda),
                torch.cuda.Event(blocking=True) if cuda else None,
            )
            for _ in range(2)
        ]
        self._drawn: Any = None
        self.alive = [True] * ids.shape[0]
        self.left: int | None = None

    def __call__(self, unfinished: Any, tokens: Any, length: int) -> bool:
        """Return whether the loop is to end.

        Args:
            unfinished: Not 0 for rows that go on, of shape ``(rows,)``.
            tokens: The new token of each row.
            length: Tokens of a row by now.
        """
        flags, texts, done = self._slots[0]
        flags.copy_(unfinished, non_blocking=True)
        if self._streamer is not None:
            texts.copy_(tokens, non_blocking=True)
        if done is not None:
            done.record()
        self._slots.reverse()
        if self.left is not None:
            self.alive = self._read()
        self.left = max(0, self._longest - length) if self._longest is not None else COST
        if not any(self.alive):
            self._random(self._drawn)
            return True
        self._drawn = self._random()
        return self._longest is not None and length >= self._longest

    def finish(self) -> int:
        """Return how many tokens are to be taken back."""
        if not any(self.alive):
            return 1
        self._slots.reverse()
        self._read()
        return 0

    def _read(self) -> list[bool]:
        flags, texts, done = self._slots[0]
        if done is not None:
            done.synchronize()
        if self._streamer is not None:
            self._streamer.put(texts.clone())
        return [bool(flag) for flag in flags.tolist()]

    def _random(self, state: Any = None) -> Any:
        """Return the state of what draws on the device, which lies on the host; or put it back."""
        import torch

        if self._device.type == "cuda":
            return (
                torch.cuda.get_rng_state(self._device)
                if state is None
                else torch.cuda.set_rng_state(state, self._device)
            )
        return torch.get_rng_state() if state is None else torch.set_rng_state(state)


class Narrow:
    """A forward pass for one token, of the rows that go on.

    Args:
        make: Returns a forward pass for batches of one size.
        size: Bytes that a row has read and written for a token.
        fixed: Bytes that a token has read whatever the rows are.

    Attributes:
        watch: Knows the rows that go on; None where nobody looks.
        rows: Places of the rows that are computed, on the device; None for all.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]], *, size: int, fixed: int) -> None:
        self._make, self._size, self._fixed = make, size, fixed
        self._step = make()
        self._held: list[int] = []
        self._logits: Any = None
        self.watch: Watch | None = None
        self.rows: Any = None

    def __call__(self, **inputs: Any) -> Any:
        """Return the model's output for the whole batch. Logits of rows that have ended mean nothing."""
        import torch
        from torch.utils import _pytree

        cache, count = inputs.pop("past_key_values"), inputs["input_ids"].shape[0]
        if self.watch is not None:
            self._narrow(self.watch, cache, inputs["input_ids"].device)
        if self.rows is None:
            return self._step(**inputs, past_key_values=cache)

        def fewer(leaf: Any) -> Any:
            whole = isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and leaf.shape[0] == count
            return leaf.index_select(0, self.rows) if whole else leaf

        output = self._step(**_pytree.tree_map(fewer, inputs), past_key_values=cache)
        if self._logits is None:
            self._logits = output.logits.new_zeros((count, *output.logits.shape[1:]))
        self._logits.index_copy_(0, self.rows, output.logits)
        return type(output)(logits=self._logits, past_key_values=cache)

    def _narrow(self, watch: Watch, cache: Any, device: Any) -> None:
        """Leave out what has ended, where the tokens to come are worth it."""
        import torch

        held = self._held or list(range(len(watch.alive)))
        going = [row for row in held if watch.alive[row]]
        size = 1 << max(0, len(going) - 1).bit_length()  # few sizes: each is recorded anew
        saved = (len(held) - size) * self._size / (self._fixed + len(held) * self._size)
        if not going or saved * (watch.left or 0) < COST:
            return
        others = [row for row in held if not watch.alive[row]]
        kept = sorted(going + others[: size - len(going)])
        places = {row: place for place, row in enumerate(held)}
        chosen = torch.tensor([places[row] for row in kept], device=device)
        self._step = self._make()
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys.index_select(0, chosen), layer.values.index_select(0, chosen)
            layer.batch_size = size
        self._held, self.rows = kept, torch.tensor(kept, device=device)


@contextlib.contextmanager
def watched(narrow: Narrow) -> Iterator[None]:
    """Have the next ``generate`` tell which rows go on, if transformers asks by the name that it has today."""
    from transformers.generation import utils

    theirs = getattr(utils, "DeferredStopCheck", None)
    if theirs is None:
        yield
        return

    class Ours:
        """Stands where transformers chooses how to look for the end of a batch."""

        def __new__(cls, ids: Any, longest: int | None, _cache: Any, _returned: bool, streamer: Any = None) -> Any:
            narrow.watch = Watch(ids, longest, streamer)
            return narrow.watch

        @staticmethod
        def is_supported(*_: Any, **__: Any) -> bool:
            return True

    vars(utils)["DeferredStopCheck"] = Ours
    try:
        yield
    finally:
        vars(utils)["DeferredStopCheck"] = theirs

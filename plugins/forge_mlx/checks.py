"""What ``forge doctor`` says of MLX on a Mac: what must still be tried there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Machine

UNTRIED = (
    "forge plan on a job of a text model: load, adapt and train are mlx's, without [use]",
    "the quick start: 20 steps, no warning, valid cards 0 % before and near 100 % after (docs/quickstart.md)",
    'the quick start with --set use.backend=huggingface and --set model.dtype="float32" for both: the losses of '
    "the steps agree to 1 part in 1,000",
    "forge run --dry-run: the peak beside its estimate (Metal's attention may keep more or less of its scores)",
    "a run whose worker is killed (kill -9) and resumed: the same adapter_model.safetensors, byte by byte",
    'load_in_4bit = true on a model of 1B or more, and a chat with it: "forge chat RUN"',
    'a model of mlx-community in 4 bit, and packing = true: load, train, and format = "mlx" of it',
    "gradient_checkpointing = true on rows of 2,048 tokens: less memory, the same losses",
    'format = "mlx" with bits = 4, and "mlx_lm.generate --model EXPORT": the answers of forge chat',
    "a batch that is too large: forge tells that memory is out, and the Mac goes on",
    "tokens a second beside transformers on MPS, from the line that ends a run",
)
"""What a Mac's owner must still try: no Apple hardware has run any of it."""


def untried(machine: Machine) -> Iterable[Finding]:
    """Yield a note for each thing that is to be tried, on a Mac with MLX."""
    if machine.platform == "darwin" and "mlx" in machine.versions:
        for number, task in enumerate(UNTRIED, 1):
            yield Finding("note", f"not tried on a Mac by anyone yet, {number} of {len(UNTRIED)}: {task}")

"""The shape of the rows that a trainer takes, and how rows become it: what every layout has, and the plain one.

A method names a layout; everything that depends on it is here and in :mod:`.preferences` and :mod:`.layouts`: which
formats of data fit, which sequences of tokens a row makes, which columns are stored, what a batch looks like, and what
of it the preview shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from forge_huggingface.batches.images import ImageCollator
from forge_huggingface.batches.tokens import TokenCollator
from forge_huggingface.rows import BadRow, Plain, Record, Rendered, Row
from forge_huggingface.rules.attention import NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forge.api import Job, Loaded, Run
    from forge_huggingface.data.store import Store
    from forge_huggingface.rendering.render import Renderer


Part = tuple[str | None, list[int], list[int]]
"""A sequence of a row, for the preview: its name, ids and labels."""


@dataclass(frozen=True)
class Layout:
    """Base of the layouts, and the layout ``tokens``: ids and labels, for supervised fine-tuning.

    Attributes:
        job: The job.
        processor: The tokenizer or processor.
        pad: The id that fills short rows.
        sees: Whether rows may hold images.
        limit: The most tokens of a row.
    """

    name: ClassVar[str] = "tokens"
    formats: ClassVar[tuple[str, ...]] = (
        "messages",
        "sharegpt",
        "prompt-completion",
        "instruction",
        "input-output",
        "text",
        "tokens",
    )
    train_on: ClassVar[str | None] = None
    """What is in the loss, where the layout leaves the job no choice."""
    columns: ClassVar[tuple[str, str]] = ("tokens", "images")
    """The columns of the store, as :func:`.store.features` names them: without images, and with."""
    templated: ClassVar[bool] = True
    """Whether messages become text by a chat template."""
    ends: ClassVar[bool] = True
    """Whether rows teach the end of an answer."""

    job: Job
    processor: Any
    pad: int
    sees: bool
    limit: int

    @property
    def store(self) -> str:
        """The columns of the store."""
        return self.columns[self.sees]

    @property
    def whose(self) -> str:
        """Who trains on such rows, for errors."""
        return f'method = "{self.job.train.method}"'

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        for rendered in renderer.render([row for row in rows if isinstance(row, Plain)]):
            yield rendered if isinstance(rendered, BadRow) else self.single(rendered)

    def single(self, row: Rendered) -> Record:
        """Return a row of one sequence as it is stored, with the pieces that follow it."""
        rest = tuple(self.single(piece) for piece in row.rest)
        return Record((replace(row, rest=()),), row.columns(images=self.sees), rest)

    def settled(self, store: Store, run: Run) -> Self:  # noqa: ARG002 - for those that learn something of them
        """Return the layout with what only all rows of the training data tell, held-out ones among them."""
        return self

    def by(self, summary: Mapping[str, Any]) -> Self:  # noqa: ARG002 - for those that have something of it
        """Return the layout with what a summary of the rows says."""
        return self

    def told(self, store: Store) -> tuple[dict[str, Any], str, list[Any]]:  # noqa: ARG002 - as settled
        """Return what there is to say of the training rows: for the summary, for people, and as warnings."""
        return {}, "", []

    def collator(self) -> Callable[[Loaded], Any] | None:
        """Return what makes the batch collator once the model is there; None for the trainer's own."""
        if self.sees:
            counted = self.job.train.method == "sft"
            return lambda _: ImageCollator(self.processor, self.pad, counted=counted)
        return lambda loaded: _tokens(self.pad, self.job, loaded)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        return [(None, list(row["input_ids"]), list(row["labels"]))]

    def companions(self, row: Mapping[str, Any]) -> list[str] | None:  # noqa: ARG002 - for those that have some
        """Return the names of the columns that go with a stored row to the user's functions; None where none can."""
        return None


def _tokens(pad: int, job: Job, loaded: Loaded) -> TokenCollator:
    name = str(getattr(getattr(loaded.model, "config", None), "_attn_implementation", ""))
    kernel, unsloth = name == NAME, "unsloth-patched" in loaded.traits
    mask: tuple[int, ...] | None = None
    if kernel and not unsloth:
        from forge_huggingface.kernels.attention import KNOWN_HERE  # imports transformers

        mask = KNOWN_HERE
    return TokenCollator(
        pad,
        flat=bool(job.data.padding_free),
        rounded=getattr(getattr(loaded.model, "device", None), "type", "cpu") != "cpu",
        boundaries=kernel or "flash" in name,
        mask=mask,
        lengths=unsloth,
        counted=job.train.method == "sft",
    )

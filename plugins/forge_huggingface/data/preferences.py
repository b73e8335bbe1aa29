"""The layouts of methods that learn which answer is better: from pairs, or from answers that are rated alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge_huggingface.batches import answers
from forge_huggingface.batches.images import ImageCollator
from forge_huggingface.data.layout import Layout, Part
from forge_huggingface.methods import METHODS
from forge_huggingface.rows import BadRow, CutAlike, LongRow, Pair, Rated, Record, Rendered, Row, parting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forge.api import Loaded
    from forge_huggingface.rendering.render import Renderer


class _Preferences(Layout):
    """Base of the layouts whose rows have two sides."""

    formats = ("preference",)
    train_on = "completion"

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        pairs = [row for row in rows if isinstance(row, Pair)]
        rendered = iter(renderer.render([side for pair in pairs for side in (pair.chosen, pair.rejected)]))
        for pair in pairs:
            chosen, rejected = next(rendered), next(rendered)
            if isinstance(chosen, BadRow):
                yield chosen
            elif isinstance(rejected, BadRow):
                yield rejected
            elif chosen.input_ids == rejected.input_ids and (chosen.truncated or rejected.truncated):
                what = f"has answers that are the same in their first {self.limit} tokens, prompt included"
                do = 'raise max_seq_length, or set on_long_row = "drop"'
                yield CutAlike(what, "max_seq_length cuts off where they differ", do)
            elif chosen.input_ids == rejected.input_ids:
                yield BadRow("has the same answer as chosen and as rejected", "there is nothing to prefer")
            else:
                yield self.record(pair, chosen, rejected)

    def record(self, pair: Pair, chosen: Rendered, rejected: Rendered) -> Record | BadRow:
        """Put the two sides of a row together."""
        raise NotImplementedError


class Pairs(_Preferences):
    """``pairs``: a prompt and two answers, the better one first."""

    name = "pairs"
    columns = ("pairs", "image-pairs")

    def record(self, pair: Pair, chosen: Rendered, rejected: Rendered) -> Record | BadRow:  # noqa: ARG002
        """Put the two sides of a row together."""
        start = min(_start(chosen), _start(rejected), parting(chosen.input_ids, rejected.input_ids))
        if self.sees:
            columns: dict[str, Any] = {"pictures": list(chosen.pictures)}
            for name, side in (("chosen", chosen), ("rejected", rejected)):
                columns |= {f"{name}_{key}": value for key, value in side.columns(images=True).items()}
            return Record((chosen, rejected), columns)
        columns = {
            "prompt_ids": chosen.input_ids[:start],
            "chosen_ids": chosen.input_ids[start:],
            "rejected_ids": rejected.input_ids[start:],
        }
        return Record(tuple(_from(side, start) for side in (chosen, rejected)), columns)

    def collator(self) -> Callable[[Loaded], Any]:
        """Return what makes the batch collator once the model is there."""
        if self.sees:
            return lambda _: answers.ImagePairs(ImageCollator(self.processor, self.pad))
        method = METHODS.get(self.job.train.method)
        make = answers.Split if method and method.whole else answers.PairBatches
        return lambda _: make(self.pad)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        if self.sees:
            sides = ("chosen", "rejected")
            return [(side, list(row[f"{side}_input_ids"]), list(row[f"{side}_labels"])) for side in sides]
        return [_joined(side, row["prompt_ids"], row[f"{side}_ids"]) for side in ("chosen", "rejected")]


class Ranked(_Preferences):
    """``ranked``: two whole conversations, the better one first, for a reward model."""

    name = "ranked"
    columns = ("ranked", "ranked")

    def record(self, pair: Pair, chosen: Rendered, rejected: Rendered) -> Record | BadRow:
        """Put the two sides of a row together."""
        if chosen.truncated or rejected.truncated:  # the number would be for a text that nobody judged
            return LongRow(
                f"has {max(chosen.length, rejected.length)} tokens",
                f"max_seq_length is {self.limit}; an answer that is cut cannot be judged",
                'raise it, or set on_long_row = "drop"',
            )
        columns = {"chosen_ids": chosen.input_ids, "rejected_ids": rejected.input_ids, "margin": pair.margin}
        return Record((chosen, rejected), columns)

    def collator(self) -> Callable[[Loaded], Any]:
        """Return what makes the batch collator once the model is there."""
        return lambda _: answers.RankedBatches(self.pad)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        # The model's number stands at the last token, so there the loss is.
        return [
            (side, ids, [-100] * (len(ids) - 1) + ids[-1:])
            for side in ("chosen", "rejected")
            if (ids := list(row[f"{side}_ids"]))
        ]


class RatedRows(Layout):
    """``rated``: a prompt, an answer, and whether it is a good one."""

    name = "rated"
    formats = ("unpaired-preference",)
    columns = ("rated", "rated")
    train_on = "completion"

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        rated = [row for row in rows if isinstance(row, Rated)]
        for row, rendered in zip(rated, renderer.render([row.row for row in rated]), strict=True):
            if isinstance(rendered, BadRow):
                yield rendered
                continue
            whole = answer_of(rendered)
            start, ids = whole.labels.count(-100), whole.input_ids
            columns = {"prompt_ids": ids[:start], "completion_ids": ids[start:], "label": row.good}
            yield Record((whole,), columns)

    def collator(self) -> Callable[[Loaded], Any]:
        """Return what makes the batch collator once the model is there."""
        return lambda _: answers.RatedBatches(self.pad, self.limit)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        return [_joined("good" if row["label"] else "bad", row["prompt_ids"], row["completion_ids"])]


def answer_of(row: Rendered) -> Rendered:
    """Return a row of a prompt and its answer, with all of the answer in the loss and nothing else."""
    return _from(row, _start(row))


def _start(row: Rendered) -> int:
    """Return where the answer begins."""
    return next(index for index, label in enumerate(row.labels) if label != -100)


def _from(row: Rendered, start: int) -> Rendered:
    """Return the row with everything from a place on in the loss, as preference trainers have it."""
    return replace(row, labels=[-100] * start + row.input_ids[start:])


def _joined(name: str, prompt: Sequence[int], answer: Sequence[int]) -> Part:
    return name, [*prompt, *answer], [-100] * len(prompt) + list(answer)

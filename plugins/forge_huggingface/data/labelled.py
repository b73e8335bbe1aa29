"""The layout of rows with labels: a text as tokens, and what is to be told of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from forge.api import Finding
from forge_huggingface.batches.answers import LabelledBatches
from forge_huggingface.data.layout import Layout, Part
from forge_huggingface.facts.adapter import start_of
from forge_huggingface.heads import labels as known
from forge_huggingface.hub.snapshot import adapter_snapshot, snapshot
from forge_huggingface.rows import (
    BadRow,
    Conversation,
    Label,
    Labelled,
    LongRow,
    Record,
    Rendered,
    Row,
    Text,
    source_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forge.api import Data, Job, Loaded, Run
    from forge_huggingface.data.store import Store
    from forge_huggingface.heads.labels import Labels
    from forge_huggingface.rendering.render import Renderer


class Ready(NamedTuple):
    """A row for the tokenizer: its text and whether a chat template has written it, a second text, and its label."""

    text: str
    templated: bool
    pair: str | None
    label: Label | None


@dataclass(frozen=True)
class LabelledRows(Layout):
    """``labelled``: the tokens of a text, or of two, as its tokenizer makes them, and its label.

    Attributes:
        labels: The labels that there are; None until all training rows are read.
    """

    name = "labelled"
    formats = ("classification",)
    columns = ("labelled", "labelled")
    train_on = "label"
    ends = False

    labels: Labels | None = None
    _first: list[str] = field(default_factory=list)  # of which kind the first row's label is

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        labelled = [row for row in rows if isinstance(row, Labelled)]
        ready = [self._ready(row, renderer) for row in labelled]
        encoded = {at: one for templated in (False, True) for at, one in _encoded(ready, renderer.tokenizer, templated)}
        around = _around(renderer.tokenizer)
        for at, each in enumerate(ready):
            try:
                if isinstance(each, BadRow):
                    raise each
                yield self._record(each, encoded[at], around, renderer)
            except BadRow as bad:
                yield bad

    def _ready(self, row: Labelled, renderer: Renderer) -> Ready | BadRow:
        """Return a row's texts and its label, if they can be used."""
        options = self.job.train.options
        named = self.labels.names if self.labels else options.get("labels")
        kind = self.labels.problem_type if self.labels else options.get("problem_type")
        kind = kind or (self._first[0] if self._first else known.kind_of(row.label))
        try:
            label = known.fitted(row.label, kind, named or None, named=bool(options.get("labels")))
            ready = Ready(*self._text(row.row, renderer), row.pair, label)
        except BadRow as bad:
            return bad
        if not self._first:
            self._first.append(kind)
        return ready

    def _text(self, row: Conversation | Text, renderer: Renderer) -> tuple[str, bool]:
        """Return a row's text, and whether a chat template has written it."""
        if isinstance(row, Text):
            return row.text, False
        if renderer.template is not None:
            return renderer.told(row), True
        if row.tools:
            raise BadRow("has tools", "without a chat template nothing says how they are written")
        return source_of(row.messages), False

    def asked(self, row: Conversation | Text, renderer: Renderer) -> Record:
        """Return a text without a label, as the model is asked. Raises :class:`BadRow` if it cannot be used."""
        ready = Ready(*self._text(row, renderer), None, None)
        (_, encoded), *_ = _encoded([ready], renderer.tokenizer, ready.templated)
        return self._record(ready, encoded, _around(renderer.tokenizer), renderer)

    def _record(self, row: Ready, encoded: Mapping[str, list[int]], around: set[int], renderer: Renderer) -> Record:
        length = len(encoded["input_ids"])
        if around.issuperset(encoded["input_ids"]):
            raise BadRow("is empty once it is rendered", "the tokenizer knows nothing of its text")
        if length > self.limit:
            if not renderer.labels.cuts:
                do = 'raise it, shorten the row, or set on_long_row = "truncate" or "drop"'
                raise LongRow(f"has {length} tokens", f"max_seq_length is {self.limit}", do)
            # What the tokenizer puts around a text stays, and of two texts the longer one is cut.
            cut = {"truncation": True, "max_length": self.limit, "add_special_tokens": not row.templated}
            encoded = dict(renderer.tokenizer(row.text, row.pair, **cut))
        ids, types = encoded["input_ids"], encoded.get("token_type_ids") or []
        columns = {
            "input_ids": ids,
            "token_types": types if any(types) else [],
            "target": json.dumps(row.label, ensure_ascii=False),
        }
        return Record((Rendered(ids, [-100] * len(ids), length, ""),), columns)

    def settled(self, store: Store, run: Run) -> Self:
        """Return the layout with the labels that the rows have, in the order in which the model has them already."""
        start = start_of(self.job)
        folders = [snapshot(self.job, run, weights=False)]
        if start is not None:
            folders.insert(0, start.folder or adapter_snapshot(self.job, start.revision))
        own = next((names for folder in folders if (names := known.own_labels(folder)) is not None), None)
        found = targets(store.open())
        return replace(self, labels=known.settle(found, self.job.train.options, self._first[0], own))

    def by(self, summary: Mapping[str, Any]) -> Self:
        """Return the layout, with the labels that a summary has."""
        return replace(self, labels=known.Labels.of(summary))

    def told(self, store: Store) -> tuple[dict[str, Any], str, list[Any]]:
        """Return what the training rows' labels are, for the summary and for people, and what speaks against them."""
        assert self.labels is not None
        found = targets(store.open())
        summary = known.described(self.labels, found)
        warnings = known.doubts(self.labels, summary, list(zip(store.fingerprints(), found, strict=True)))
        return summary, known.said(summary), warnings

    def collator(self) -> Callable[[Loaded], Any]:
        """Return what makes the batch collator once the model is there."""
        assert self.labels is not None
        labels, types = self.labels, getattr(self.processor, "pad_token_type_id", 0)
        return lambda _: LabelledBatches(self.pad, labels, types)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        label = json.loads(row["target"])
        name = (", ".join(label) or "no label") if isinstance(label, list) else str(label)
        ids = list(row["input_ids"])
        return [(name, ids, [-100] * len(ids))]


def findings(job: Job, run: Run, data: Data) -> Iterator[Finding]:  # noqa: ARG001 - the preflight's signature
    """Yield what in the job does not fit what the rows are labelled with."""
    labels, options = known.Labels.of(data.summary), job.train.options
    metric = str(options.get("metric_for_best_model") or "loss").removeprefix("eval_")
    if metric not in (there := ("loss", *known.scores_of(labels))):
        what = f"metric_for_best_model: there is no {metric} of a {labels.problem_type}"
        yield Finding("error", what, f"write one of {', '.join(there)}")
    if labels.problem_type != known.SINGLE and options.get("label_smoothing_factor"):
        what = f"label_smoothing_factor is for one label of several, and the rows make it a {labels.problem_type}"
        yield Finding("error", what, "remove it")


def _encoded(
    rows: Sequence[Ready | BadRow], tokenizer: Any, templated: bool
) -> Iterator[tuple[int, Mapping[str, list[int]]]]:
    """Yield what the tokenizer makes of the rows whose special tokens a template writes, or the tokenizer itself."""
    chosen = [(at, row) for at, row in enumerate(rows) if isinstance(row, Ready) and row.templated is templated]
    for paired in (False, True):
        alike = [(at, row) for at, row in chosen if (row.pair is not None) is paired]
        if not alike:
            continue
        second = [row.pair for _, row in alike] if paired else None
        found = tokenizer([row.text for _, row in alike], second, add_special_tokens=not templated, verbose=False)
        for number, (at, _) in enumerate(alike):
            yield at, {name: values[number] for name, values in found.items()}


def _around(tokenizer: Any) -> set[int]:
    """Return the tokens that say nothing: those around a text, and the one for what the tokenizer does not know."""
    return {*tokenizer("")["input_ids"], tokenizer.unk_token_id}


def targets(rows: Any) -> list[Any]:
    """Return the labels of stored rows: a list is hashable nowhere, so several are a tuple."""
    found = (json.loads(value) for value in rows.with_format("arrow")["target"].to_pylist())
    return [tuple(label) if isinstance(label, list) else label for label in found]

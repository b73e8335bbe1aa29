"""Held-out rows as questions: what to ask, what the row answers, and the tokens whose loss is measured.

Rows are read again from their sources by the reader that training used, never decoded from tokens: what a metric sees
is what the file says. Whatever a method trains on can be asked: of two answers the better one is the reference, and a
prompt without an answer has none. A further kind of row needs a case in :func:`_answered` and in :func:`question`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from forge.api import DataError, Prompt
from forge.disk.folder import RunFolder
from forge_huggingface.data.collate import eval_sources
from forge_huggingface.data.conversion.cells import parsed_list
from forge_huggingface.data.conversion.formats import FORMATS
from forge_huggingface.data.labelled import LabelledRows
from forge_huggingface.data.layout import Layout
from forge_huggingface.data.layouts import LAYOUTS, Seq2Seq, texts_of
from forge_huggingface.data.mixing import whole
from forge_huggingface.data.reader import Reader
from forge_huggingface.data.store import origins_path
from forge_huggingface.data.tally import Tally
from forge_huggingface.rows import (
    BadRow,
    Completion,
    Conversation,
    Labelled,
    LongRow,
    Pair,
    Plain,
    Rated,
    Record,
    Row,
    row_of,
    source_of,
    text_of,
)
from forge_huggingface.rows import Prompt as PromptRow
from forge_huggingface.rules.placement import positions
from forge_huggingface.vision.images import listed, seat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api import Job, Run, Source
    from forge_huggingface.rendering.render import Renderer
    from forge_huggingface.vision.images import Gallery


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A held-out row.

    Attributes:
        origin: Where it came from.
        asked: The prompt as functions see it: a list of messages, or a text; None if there is nothing to ask.
        prompt: The same as the model sees it.
        reference: The row's own answer, or None.
        columns: The row as it is in its file.
        rows: Its tokens and labels, as training would get them: several of a text that is split, none without a loss.
    """

    origin: str
    asked: list[dict[str, Any]] | str | None = None
    prompt: Prompt | None = None
    reference: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()


class HeldOutLayout(Layout):
    """The rows of an evaluation: of any format, each rendered as its one right answer, if it has one."""

    name = "tokens"

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what has no answer has no sequence either."""
        answers = [_answered(row) for row in rows]
        rendered = iter(renderer.render([answer for answer in answers if answer is not None]))
        for answer in answers:
            made = None if answer is None else next(rendered)
            if isinstance(made, BadRow):
                yield made
            elif made is None:
                yield Record((), {})
            else:
                yield self.single(made)


def _formats(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return all formats, those that the run trained on first: there they are told by the same columns."""
    trained = LAYOUTS.get(record.get("layout", ""), Layout).formats
    return tuple(dict.fromkeys([*trained, *FORMATS]))


def _answered(row: Row) -> Plain | None:
    """Return a row as a text to learn, or None if nobody says what is right."""
    if isinstance(row, Pair):
        return row.chosen
    if isinstance(row, Rated):
        return row.row if row.good else None
    return None if isinstance(row, PromptRow | Labelled) else row


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The rows of an evaluation.

    Attributes:
        questions: The rows, in the order of their sources.
        read: How many there were before ``max_rows``.
        bad: How many could not be used.
        first_bad: What was wrong with the first of them.
        name: What to call the rows.
        cuts: What was cut off or split, as numbers.
    """

    questions: tuple[Question, ...]
    read: int
    bad: int
    first_bad: str | None
    name: str
    cuts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> list[Question]:
        """Those that can be asked, not only measured."""
        return [question for question in self.questions if question.prompt is not None]


def held_out(job: Job, run: Run, renderer: Renderer, *, limit: int | None = None) -> HeldOut:
    """Read the rows to ask: those of ``[eval] path``, or the held-out rows of ``[data]``.

    Args:
        job: The job.
        run: The run, whose folder knows which rows ``eval_size`` held out.
        renderer: Renders prompts and tokens.
        limit: Read no more than this many rows.

    Raises:
        DataError: There are none, or they cannot be read.
    """
    assert job.eval is not None
    sources, wanted, name = _sources(job, run)
    record = RunFolder(run.folder).data() or {}
    kind: type[Layout] = HeldOutLayout
    make = question
    if record.get("layout") == LabelledRows.name:
        kind, make = LabelledRows, of_labels
    elif run.plan.facts.task == "seq2seq":
        kind, make = Seq2Seq, of_texts
    layout = kind(job, renderer.tokenizer, 0, renderer.sees, renderer.max_seq_length).by(record.get("summary") or {})
    formats = _formats(record) if kind is HeldOutLayout else kind.formats
    # An encoder's text is cut as in training; a decoder's prompt is asked whole, and must leave room for an answer.
    end = positions(run.plan.facts) if kind is HeldOutLayout else None
    questions: list[Question] = []
    bad, first_bad, tally = 0, None, Tally(job.data)
    for source in sources:
        reader = Reader(job, source, renderer, layout, formats)
        for origin, raw, row, rendered in reader.whole(batch=64 if limit else 512):
            if limit is not None and len(questions) >= limit:
                break
            if wanted is not None:
                if not wanted[origin]:
                    continue
                wanted[origin] -= 1
            try:
                if isinstance(rendered, BadRow):
                    raise rendered
                assert not isinstance(row, BadRow)
                assert not isinstance(raw, BadRow)
                made = make(origin, raw, row, rendered, renderer)
                if end is not None and made.prompt is not None:
                    fits(made.prompt, renderer, end)
                questions.append(made)
                if rendered.parts:
                    tally.see(origin, rendered, None)
            except BadRow as fault:
                long = isinstance(fault, LongRow) and job.data.on_long_row == "drop"
                if not long and job.data.on_bad_row == "error":
                    raise fault.at(origin) from fault
                bad += 1
                first_bad = first_bad or str(fault.at(origin))
    if not questions:
        raise DataError(f"there are no usable rows in {name}", first_bad or "nothing was found", "mend [eval] path")
    read = len(questions)
    if job.eval.max_rows is not None and job.eval.max_rows < read and limit is None:
        rng = random.Random(job.eval.seed)  # noqa: S311 - a repeatable choice, not a secret
        questions = [questions[index] for index in sorted(rng.sample(range(read), job.eval.max_rows))]
    return HeldOut(tuple(questions), read, bad, first_bad, name, tally.cuts())


class _Pictures(Sequence[Any]):
    """The images of a row, opened when they are looked at: those of a thousand rows do not fit into memory."""

    def __init__(self, gallery: Gallery, row: Conversation) -> None:
        self.gallery, self.row = gallery, row

    def __len__(self) -> int:
        return len(self.row.pictures)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[position] for position in range(len(self))[index]]
        return self.gallery.open(self.row.pictures[index], self.row.folder, index + 1)[1]


def question(origin: str, raw: Mapping[str, Any], row: Row, rendered: Record, renderer: Renderer) -> Question:
    """Turn one row into a question. Raises :class:`BadRow` if its prompt cannot be rendered."""
    made = Question(origin=origin, columns=raw, rows=_columns(rendered))
    match row:
        case Pair():
            row = row.chosen
        case Rated():
            row = row.row
            if not made.rows:
                return replace(question(origin, raw, row, rendered, renderer), reference=None)
    if isinstance(row, Conversation):
        return _conversation(made, row, renderer)
    if isinstance(row, PromptRow) and not isinstance(row.prompt, str):
        messages, given = seat(row.prompt, listed(parsed_list(row.images))) if renderer.sees else (row.prompt, ())
        return _conversation(
            made,
            Conversation(tuple(messages), len(messages), turns=False, pictures=given, folder=row.folder),
            renderer,
        )
    if isinstance(row, Completion | PromptRow):
        asked = str(row.prompt)
        before = renderer.tokenizer.decode(renderer.before) if renderer.before else ""
        reference = row.completion if isinstance(row, Completion) else None
        return replace(made, asked=asked, prompt=Prompt(text=before + asked), reference=reference)
    return made


def _columns(rendered: Record) -> tuple[Mapping[str, Any], ...]:
    return tuple(record.columns for record in (rendered, *rendered.rest) if record.columns)


def of_texts(origin: str, raw: Mapping[str, Any], row: Row, rendered: Record, renderer: Renderer) -> Question:  # noqa: ARG001
    """Turn one row into a question to an encoder-decoder model. Raises :class:`BadRow` if it is not a pair of texts."""
    texts = texts_of(row)
    if isinstance(texts, BadRow):
        raise texts
    asked, reference = texts
    prompt = Prompt(text=asked)
    return Question(
        origin=origin, asked=asked, prompt=prompt, reference=reference, columns=raw, rows=_columns(rendered)
    )


def of_labels(origin: str, raw: Mapping[str, Any], row: Row, rendered: Record, renderer: Renderer) -> Question:  # noqa: ARG001
    """Turn one row into a question to a classifier, whose reference is the row's label, as JSON."""
    assert isinstance(row, Labelled)
    asked = source_of(row.row.messages) if isinstance(row.row, Conversation) else row.row.text
    asked = asked if row.pair is None else f"{asked}\n\n{row.pair}"
    return Question(
        origin=origin, asked=asked, columns=raw, reference=rendered.columns["target"], rows=(rendered.columns,)
    )


def fits(prompt: Prompt, renderer: Renderer, end: int) -> None:
    """Raise :class:`LongRow` for a prompt that leaves no position for an answer."""
    ids = renderer.tokenizer(prompt.text, add_special_tokens=False, verbose=False)["input_ids"]
    if (bad := renderer.foreign(ids)) is not None:
        raise bad
    count = len(ids)
    if count >= end:
        why = f"the model has {end} positions, for prompt and answer"
        raise LongRow(f"asks with {count} tokens", why, 'shorten it, or set on_long_row = "drop"')


def _conversation(made: Question, row: Conversation, renderer: Renderer) -> Question:
    messages = list(row.messages)
    reference = text_of(messages[-1]["content"]) if messages[-1]["role"] == "assistant" else None
    before = messages[:-1] if reference is not None else messages
    template = renderer.template
    assert template is not None  # the reader has refused the rows otherwise
    text, _ = template.render(renderer.tokenizer, before, tools=row.tools, prompt=True, extra=dict(row.extra))
    gallery = getattr(renderer, "gallery", None)
    prompt = Prompt(text=text, images=_Pictures(gallery, row) if gallery and row.pictures else ())
    return replace(made, asked=before, prompt=prompt, reference=reference)


def _sources(job: Job, run: Run) -> tuple[Sequence[Source], Counter[str] | None, str]:
    """Return the sources of the rows, which of their rows to take (None: all of them), and their name."""
    data, table = job.data, job.eval
    assert table is not None
    if table.path is not None:
        source = whole(data.all_sources()[0], path=table.path, name=None, split=None, revision=None)
        return [source], None, _named(table.path)
    if others := eval_sources(job):
        name = _named(data.eval_path) if data.eval_path else f"the split {data.eval_split}"
        return others, None, name
    if data.eval_size is not None:
        path = origins_path(run.folder / "data" / "eval.arrow")
        if not path.is_file():
            raise DataError(
                "it is not known any more which rows were held out",
                f"{path} is missing",
                "name rows: [eval] path, or `forge eval RUN --data FILE`",
            )
        origins = map(row_of, path.read_text(encoding="utf-8").split("\n")[:-1])
        wanted = Counter(origin for origin in origins if origin is not None)
        return data.all_sources(), wanted, "the rows held out of the training data"
    raise DataError(
        "there are no held-out rows",
        "[data] names none",
        "write [data] eval_path, eval_split or eval_size, or [eval] path",
    )


def _named(path: str | list[str]) -> str:
    return path if isinstance(path, str) else ", ".join(path)

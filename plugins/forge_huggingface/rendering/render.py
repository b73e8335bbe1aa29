"""Rows to tokens and labels: the one way in forge.

Training, evaluation, the preview, chat and export all go through :class:`Renderer`. Wherever a framework has two such
ways, they drift apart, and the model is then asked in a form that it was not taught.

Templates are rendered to text first, and the text is tokenised without special tokens, so a BOS is never put twice.
Where the loss begins is decided on tokens if the prompt's tokens begin the row's, as TRL does it, and on character
offsets if not. A row whose loss would not include an end token gets one: a model that never sees it never stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from forge.api import DataError
from forge_huggingface.rendering.spans import Span, answers, inside, starts_at
from forge_huggingface.rendering.templates import Template, missing
from forge_huggingface.rows import BadRow, Completion, Conversation, LongRow, Message, Plain, Rendered, parting, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


TrainOn = Literal["auto", "completion", "assistant", "all"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A row as text, and what of it is in the loss: what follows ``prompt``, or ``spans`` of it, or all."""

    text: str
    plain: bool = False
    prompt: str | None = None
    spans: tuple[tuple[int, int], ...] | None = None
    open_end: bool = True  # the last message is an answer, so that the row's end belongs to it


class Renderer:
    """Turns rows into tokens and labels.

    Args:
        processor: A tokenizer, or a processor that has one.
        template: The chat template, or None if there is none.
        train_on: What is in the loss.
        max_seq_length: The most tokens of a row.
        on_long_row: What to do with a longer one.
        stops: Token ids that end generation beside the tokenizer's EOS.

    Attributes:
        sees: Whether rows may hold images.
    """

    sees = False

    def __init__(
        self,
        processor: Any,
        template: Template | None,
        *,
        train_on: TrainOn = "auto",
        max_seq_length: int = 2048,
        on_long_row: Literal["truncate", "drop", "error"] = "truncate",
        stops: Iterable[int] = (),
    ) -> None:
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.template = template
        self.train_on = train_on
        self.max_seq_length = max_seq_length
        self.on_long_row = on_long_row
        if self.tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end token",
                "eos_token is not set, so no row could teach an end",
                "set eos_token in the model's tokenizer_config.json",
            )
        self.eos: int = self.tokenizer.eos_token_id
        self.stops = frozenset({self.eos, *stops})
        self.before = special_prefix(self.tokenizer)
        self._white: dict[int, bool] = {}

    def prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Any] | None = None, extra: dict[str, Any] | None = None
    ) -> list[int]:
        """Return the tokens of a prompt that the model is to answer, as training showed them to it."""
        if self.template is None:
            raise missing("messages")
        text, _ = self.template.render(self.tokenizer, messages, tools=tools, prompt=True, extra=extra)
        return self._tokenise([text])[0][0]

    def render(self, rows: Sequence[Plain]) -> list[Rendered | BadRow]:
        """Turn rows into tokens and labels; what cannot be used comes back as :class:`BadRow`."""
        pieces: list[Piece | BadRow] = []
        for row in rows:
            try:
                pieces.append(self._piece(row))
            except BadRow as bad:
                pieces.append(bad)
        usable = [piece for piece in pieces if isinstance(piece, Piece)]
        whole = iter(self._tokenise([piece.text for piece in usable]))
        prompts = iter(self._tokenise([piece.prompt for piece in usable if piece.prompt is not None]))
        rendered: list[Rendered | BadRow] = []
        for piece in pieces:
            if isinstance(piece, BadRow):
                rendered.append(piece)
                continue
            ids, encoding = next(whole)
            prompt = next(prompts)[0] if piece.prompt is not None else None
            rendered.append(self._label(piece, ids, encoding, prompt))
        return rendered

    def _piece(self, row: Plain) -> Piece:
        eos = self.tokenizer.eos_token
        if isinstance(row, Conversation):
            return self._conversation(row)
        if isinstance(row, Completion):
            completion = row.completion if row.completion.endswith(eos) else row.completion + eos
            prompt = None if self.train_on == "all" else row.prompt
            return Piece(row.prompt + completion, plain=True, prompt=prompt)
        if self.train_on in ("completion", "assistant"):
            raise DataError(
                f'train_on = "{self.train_on}" cannot be used',
                "rows of the format text have no answers",
                'set train_on = "all" or "auto"',
            )
        return Piece(row.text if row.text.endswith(eos) else row.text + eos, plain=True)

    def _conversation(self, row: Conversation) -> Piece:
        template = self.template
        if template is None:
            raise missing("messages" if row.turns else "prompt and answer")
        messages, tokenizer = row.messages, self.tokenizer
        train_on = self.train_on if self.train_on != "auto" else "assistant" if row.turns else "completion"
        last = messages[-1]["role"] == "assistant"
        if train_on != "all" and not any(message["role"] == "assistant" for message in messages):
            raise BadRow("has no assistant turn")
        if train_on == "completion" and not last:
            raise BadRow(
                "does not end with an assistant turn",
                f"its last turn is by {messages[-1]['role']}",
                'remove that turn, or set train_on = "assistant"',
            )
        text, marked = template.render(tokenizer, messages, tools=row.tools, extra=row.extra)
        if lost := _lost(messages, text):
            raise BadRow(
                f"loses message {lost} in the chat template {template.name}",
                "what it says is not in the rendered text",
                "set another chat_template",
            )
        if train_on == "completion":
            before = messages[: row.start]
            prompt, _ = template.render(tokenizer, before, tools=row.tools, prompt=True, extra=row.extra)
            return Piece(text, prompt=prompt)
        if train_on == "all":
            return Piece(text, open_end=last)
        spans = marked if template.marks_answers else answers(template, tokenizer, row, text)
        if not spans:
            raise BadRow(
                "has no answer that the chat template marks", f"{{% generation %}} of {template.name} is empty"
            )
        return Piece(text, spans=tuple(spans), open_end=last)

    def _tokenise(self, texts: list[str]) -> list[tuple[list[int], Any]]:
        """Return tokens and, where the tokenizer has them, encodings that know character offsets."""
        if not texts:
            return []
        batch = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        encodings = getattr(batch, "encodings", None) or [None] * len(texts)
        return list(zip(batch["input_ids"], encodings, strict=True))

    def _label(
        self, piece: Piece, ids: list[int], encoding: Any, prompt: list[int] | None, images: Sequence[Span] = ()
    ) -> Rendered | BadRow:
        count = len(ids)
        diverged = False
        if prompt is not None and piece.prompt is not None:
            start = len(prompt)
            if ids[:start] != prompt:
                diverged = not piece.text.startswith(piece.prompt)
                if diverged or encoding is None:
                    start = parting(prompt, ids)
                else:
                    start = starts_at(encoding.offsets, len(piece.prompt))
            runs = [(start, count)]
        elif piece.spans is not None:
            if encoding is None:
                raise DataError(
                    "the answers cannot be found in the rows",
                    "this tokenizer knows no character offsets",
                    'set train_on = "completion", or use a fast tokenizer',
                )
            runs = inside(encoding.offsets, piece.spans)
        else:
            runs = [(0, count)]
        # An end token directly behind an answer is part of what must be learned, whether the template marks it or not.
        runs = [(start, end + 1 if end < count and ids[end] in self.stops else end) for start, end in runs]
        eos, ids = "there", list(ids)
        if piece.open_end and runs and not self._ends(ids, runs[-1]):
            if runs[-1][1] < count and self._ends(ids, (runs[-1][0], count)):
                runs[-1] = (runs[-1][0], count)
            else:
                ids.append(self.eos)
                runs[-1] = (runs[-1][0], count + 1)
                eos = "appended"
        elif runs and not piece.open_end and not self._ends(ids, runs[-1]):
            eos = "missing"
        labels = [-100] * len(ids)
        for start, end in runs:
            labels[start:end] = ids[start:end]
        for start, end in images:
            labels[start:end] = [-100] * (end - start)
        if piece.plain and self.before and ids[: len(self.before)] != self.before:
            ids = self.before + ids
            # TRL puts the BOS of a plain text into its labels. It is never predicted (nothing comes before it).
            whole = piece.prompt is None and piece.spans is None
            labels = (self.before if whole else [-100] * len(self.before)) + labels
        return self._fit(ids, labels, eos, diverged, max((end for _, end in images), default=0))

    def _fit(self, ids: list[int], labels: list[int], eos: str, diverged: bool, needed: int = 0) -> Rendered | BadRow:
        limit, length = self.max_seq_length, len(ids)
        if length > limit:
            if self.on_long_row != "truncate":
                return LongRow(
                    f"has {length} tokens",
                    f"max_seq_length is {limit}",
                    'raise it, shorten the row, or set on_long_row = "truncate" or "drop"',
                )
            if needed > limit:  # an image that is cut is no image
                return LongRow(
                    f"has {length} tokens, and its last image ends at {needed}",
                    f"max_seq_length is {limit}",
                    'raise it, take smaller images, or set on_long_row = "drop"',
                )
            if any(label != -100 for label in labels[limit:]):
                eos = "cut"
            ids, labels = ids[:limit], labels[:limit]
        # The first token has nothing before it: it is never predicted, whatever its label says.
        if all(label == -100 for label in labels[1:]):
            why = f"its answer begins after the first {limit} tokens" if length > limit else None
            return BadRow("has nothing to train on", why, "raise max_seq_length or shorten the prompt" if why else None)
        return Rendered(ids, labels, length, eos, diverged)

    def _ends(self, ids: list[int], run: tuple[int, int]) -> bool:
        """Tell whether a run of tokens ends with an end token, white space behind it apart."""
        start, end = run
        while end > start:
            end -= 1
            if ids[end] in self.stops:
                return True
            if not self._is_white(ids[end]):
                return False
        return False

    def _is_white(self, token: int) -> bool:
        if token not in self._white:
            self._white[token] = not self.tokenizer.decode([token]).strip()
        return self._white[token]


def special_prefix(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer puts before plain text: a BOS, or nothing."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for index in range(len(full) - len(plain) + 1):
        if full[index : index + len(plain)] == plain:
            return list(full[:index])
    return []


def _lost(messages: Sequence[Message], text: str) -> int | None:
    """Return the number of the last answer if the template did not write it.

    Templates of vision models take a text for a list of parts and write nothing at all, without an error.
    """
    for number in range(len(messages), 0, -1):
        if messages[number - 1]["role"] == "assistant":
            lines = text_of(messages[number - 1]["content"]).strip().splitlines()
            return number if lines and lines[-1].strip() not in text else None
    return None

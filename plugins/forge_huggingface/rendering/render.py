"""Rows to tokens and labels: the one way in forge.

Training, evaluation, the preview, chat and export all go through :class:`Renderer`. Wherever a framework has two such
ways, they drift apart, and the model is then asked in a form that it was not taught.

Templates are rendered to text first, and the text is tokenised without special tokens, so a BOS is never put twice.
What of them is in the loss, :mod:`forge_huggingface.rendering.labels` says.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.rendering import tokenizers
from forge_huggingface.rendering.advice import advice
from forge_huggingface.rendering.conversations import Conversations, TrainOn
from forge_huggingface.rendering.effort import Effort
from forge_huggingface.rendering.labels import Labels, OnLongRow, Piece
from forge_huggingface.rendering.study import require_forgetting, study, turn_end
from forge_huggingface.rendering.templates import Template, missing
from forge_huggingface.rows import (
    BadRow,
    Completion,
    Conversation,
    Ids,
    Message,
    Plain,
    Rendered,
    Text,
    UnwrittenRow,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


_ADVISED = 5
"""How many of the rows that the template does not write are tried in others."""


class Renderer:
    """Turns rows into tokens and labels.

    Args:
        processor: A tokenizer, or a processor that has one.
        template: The chat template, or None if there is none.
        train_on: What is in the loss.
        max_seq_length: The most tokens of a row.
        on_long_row: What to do with a longer one.
        stops: Token ids that end generation beside the tokenizer's EOS.
        mask_empty_reasoning: Whether what a template writes in place of reasoning stays out of the loss.
        vocabulary: How many tokens the model has an embedding for; None if nobody knows.
        ends: Whether rows teach an end, for which the tokenizer needs a token.

    Attributes:
        sees: Whether rows may hold images.
        stops: Token ids that end a row's answers; an answer without any gets the tokenizer's EOS.
        turn_end: The token that the chat template writes behind an answer, which need not be one of them.
    """

    sees = False

    def __init__(
        self,
        processor: Any,
        template: Template | None,
        *,
        train_on: TrainOn = "auto",
        max_seq_length: int = 2048,
        on_long_row: OnLongRow = "truncate",
        stops: Iterable[int] = (),
        mask_empty_reasoning: bool = False,
        vocabulary: int | None = None,
        ends: bool = True,
    ) -> None:
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self.template = template and study(template, self.tokenizer)
        self.train_on = train_on
        self.mask_empty_reasoning = mask_empty_reasoning
        self._advised = 0
        self.max_seq_length = max_seq_length
        self.on_long_row = on_long_row
        if ends and self.tokenizer.eos_token_id is None:
            raise DataError(
                "the tokenizer has no end token",
                "eos_token is not set, so no row could teach an end",
                "set eos_token in the model's tokenizer_config.json",
            )
        if self.template is not None and self.template.keep_reasoning:
            require_forgetting(self.template)
        self.stops = frozenset({self.tokenizer.eos_token_id, *stops} - {None})
        self.turn_end = turn_end(self.template, self.tokenizer) if self.template is not None else None
        self.before = special_prefix(self.tokenizer)
        self.vocabulary = vocabulary
        self._overflows = vocabulary is not None and tokenizers.top(self.tokenizer) > vocabulary
        self.labels = Labels(self.tokenizer, self.stops, self.before, max_seq_length, on_long_row)

    @property
    def ends(self) -> frozenset[int]:
        """Token ids at which an answer that is generated has ended."""
        return self.stops if self.turn_end is None else self.stops | {self.turn_end}

    def asked(self, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[Message]:
        """Return a prompt that the model is to answer, as the template wants it.

        Args:
            messages: The prompt.
            tools: What the model may call.

        Raises:
            BadRow: The template refuses it, or does not write all of it.
        """
        if self.template is None:
            raise missing("messages")
        row = Conversation(tuple(messages), len(messages), turns=False, tools=tuple(tools) or None)
        with self._advised_on(row, self.template) as used:
            text, _ = used.render(self.tokenizer, messages, tools=row.tools, prompt=True)
            Conversations(used, self.tokenizer).told(row, text)
            return used.fitted(messages)

    def told(self, row: Conversation) -> str:
        """Return a whole conversation as text.

        Raises:
            BadRow: The template refuses it, or does not write all of it.
        """
        if self.template is None:
            raise missing("messages")
        with self._advised_on(row, self.template) as used:
            text, _ = used.render(self.tokenizer, row.messages, tools=row.tools, extra=row.extra)
            Conversations(used, self.tokenizer).told(row, text)
            return text

    def render(self, rows: Sequence[Plain]) -> list[Rendered | BadRow]:
        """Turn rows into tokens and labels; what cannot be used comes back as :class:`BadRow`."""
        pieces: list[Piece | Rendered | BadRow] = []
        for row in rows:
            self._refuse_split(row)
            try:
                pieces.append(self._take(row) if isinstance(row, Ids) else self._piece(row))
            except BadRow as bad:
                pieces.append(bad)
        usable = [piece for piece in pieces if isinstance(piece, Piece)]
        whole = iter(self._tokenise([piece.text for piece in usable]))
        prompts = iter(self._tokenise([piece.prompt for piece in usable if piece.prompt is not None]))
        rendered: list[Rendered | BadRow] = []
        for piece in pieces:
            if not isinstance(piece, Piece):
                rendered.append(piece)
                continue
            ids, encoding = next(whole)
            prompt = next(prompts)[0] if piece.prompt is not None else None
            rendered.append(self.labels.put(piece, ids, encoding, prompt))
        return rendered

    def foreign(self, ids: Sequence[int], *, given: bool = False) -> BadRow | None:
        """Return what is wrong with tokens that the model has no embedding for; None if it has one for each.

        Args:
            ids: The tokens.
            given: Whether they come from the row, and not from the tokenizer.
        """
        if not (given or self._overflows) or not ids:
            return None
        count = len(self.tokenizer) if self.vocabulary is None else self.vocabulary
        token = next((token for token in (max(ids), min(ids)) if not 0 <= token < count), None)
        if token is None:
            return None
        name = self.tokenizer.convert_ids_to_tokens(token) if 0 <= token < tokenizers.top(self.tokenizer) else None
        if name is None:
            do = "make the rows with this model's tokenizer"
            return BadRow(f"has the token id {token}", f"the model's ids are 0 to {count - 1}", do)
        return BadRow(
            f"has the token {name!r} with the id {token}, and the model has {count} tokens",
            "the tokenizer has been extended, and the model's embedding has not",
            "resize the model's embedding (resize_token_embeddings) and save it, or remove the token",
        )

    def _refuse_split(self, row: Plain) -> None:
        if self.on_long_row == "split" and not isinstance(row, Text) and not (isinstance(row, Ids) and row.whole):
            raise DataError(
                'on_long_row = "split" cannot be used',
                "only plain texts become several rows, and these are none",
                'set on_long_row = "auto", which splits plain texts and cuts other rows',
            )

    def _take(self, row: Ids) -> Rendered | BadRow:
        """Return a row of finished tokens."""
        if (self.train_on == "all" and not row.whole) or (self.train_on in ("completion", "assistant") and row.whole):
            which = "leave tokens out of the loss" if self.train_on == "all" else "do not say what an answer is"
            raise DataError(
                f'train_on = "{self.train_on}" cannot be used',
                f"rows of the format tokens say themselves what is in the loss, and these {which}",
                'set train_on = "auto"' if self.train_on == "all" else 'add labels, or set train_on = "auto"',
            )
        return self.labels.take(row)

    def _piece(self, row: Conversation | Completion | Text) -> Piece:
        eos = self.tokenizer.eos_token
        if isinstance(row, Conversation):
            if self.template is None:
                raise missing("messages" if row.turns else "prompt and answer")
            return self._conversation(row, self.template)
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
        return Piece(row.text if row.text.endswith(eos) else row.text + eos, plain=True, divisible=True)

    def _conversation(self, row: Conversation, template: Template) -> Piece:
        with self._advised_on(row, template) as used:
            return Conversations(used, self.tokenizer, self.train_on, self.mask_empty_reasoning).piece(row)

    @contextmanager
    def _advised_on(self, row: Conversation, template: Template) -> Iterator[Template]:
        """Give the template that a row is rendered by, and say of the first rows that it does not write what to do."""
        effort = Effort()
        used = replace(template.used(row.tools), effort=effort)
        try:
            yield used
            effort.check()  # what was asked for beyond it may have been answered by guessing
        except UnwrittenRow as bad:
            if bad.do is None and self._advised < _ADVISED:  # trying other templates takes a hundred times a row's time
                self._advised += 1
                bad.do = advice(row, used, self.tokenizer)
            raise

    def _tokenise(self, texts: list[str]) -> list[tuple[list[int], Any]]:
        """Return tokens and, where the tokenizer has them, encodings that know character offsets."""
        if not texts:
            return []
        batch = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        encodings = getattr(batch, "encodings", None) or [None] * len(texts)
        return list(zip(batch["input_ids"], encodings, strict=True))


def special_prefix(tokenizer: Any) -> list[int]:
    """Return the tokens that a tokenizer puts before plain text: a BOS, or nothing."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for index in range(len(full) - len(plain) + 1):
        if full[index : index + len(plain)] == plain:
            return list(full[:index])
    return []

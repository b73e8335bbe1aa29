"""The shapes of rows that trainers take, and how rows become them.

A method names a layout; everything that depends on it is here: which formats of data fit, which sequences of tokens a
row makes, which columns are stored, what a batch looks like, and what of it the preview shows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from forge_huggingface.batches import answers
from forge_huggingface.batches.images import ImageCollator
from forge_huggingface.batches.tokens import TokenCollator
from forge_huggingface.methods import METHODS
from forge_huggingface.rows import (
    BadRow,
    Completion,
    Conversation,
    LongRow,
    Pair,
    Plain,
    Prompt,
    Rated,
    Record,
    Rendered,
    Row,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forge.api import Job, Loaded
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
    )
    train_on: ClassVar[str | None] = None
    """What is in the loss, where the layout leaves the job no choice."""
    columns: ClassVar[tuple[str, str]] = ("tokens", "images")
    """The columns of the store, as :func:`.store.features` names them: without images, and with."""
    templated: ClassVar[bool] = True
    """Whether messages become text by a chat template."""

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
            yield rendered if isinstance(rendered, BadRow) else Record((rendered,), rendered.columns(images=self.sees))

    def collator(self) -> Callable[[Loaded], Any] | None:
        """Return what makes the batch collator once the model is there; None for the trainer's own."""
        if self.sees:
            return lambda _: ImageCollator(self.processor, self.pad)
        return lambda loaded: _tokens(self.pad, loaded)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        return [(None, list(row["input_ids"]), list(row["labels"]))]

    def companions(self, row: Mapping[str, Any]) -> list[str] | None:  # noqa: ARG002 - for those that have some
        """Return the names of the columns that go with a stored row to the user's functions; None where none can."""
        return None


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
        start = min(_start(chosen), _start(rejected), _common(chosen.input_ids, rejected.input_ids))
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
            start = _start(rendered)
            ids = rendered.input_ids
            columns = {"prompt_ids": ids[:start], "completion_ids": ids[start:], "label": row.good}
            yield Record((_from(rendered, start),), columns)

    def collator(self) -> Callable[[Loaded], Any]:
        """Return what makes the batch collator once the model is there."""
        return lambda _: answers.RatedBatches(self.pad, self.limit)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        return [_joined("good" if row["label"] else "bad", row["prompt_ids"], row["completion_ids"])]


class Prompts(Layout):
    """``prompts``: what the model is asked, with the other columns for reward functions. The trainer renders them."""

    name = "prompts"
    formats = ("prompt", "question")
    columns = ("prompts", "prompts")
    train_on = "all"

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        room = self.limit - int(self.job.train.options.get("max_completion_length") or 0)
        for row in rows:
            if not isinstance(row, Prompt):
                continue
            prompt = row.prompt if isinstance(row.prompt, str) else list(row.prompt)
            ids = self.ids(renderer, prompt)
            if len(ids) > room:
                why = f"max_seq_length leaves {room} beside max_completion_length"
                yield LongRow(f"asks with {len(ids)} tokens", why, 'raise it, or set on_long_row = "drop"')
                continue
            columns = {
                "prompt": json.dumps(prompt, ensure_ascii=False),
                "columns": json.dumps(dict(row.columns), ensure_ascii=False, default=str),
            }
            yield Record((Rendered(ids, [-100] * len(ids), len(ids), ""),), columns)

    def ids(self, renderer: Renderer, prompt: str | Sequence[Mapping[str, Any]]) -> list[int]:
        """Return a prompt's tokens, as the trainer will make them."""
        if isinstance(prompt, str):
            return list(renderer.tokenizer(prompt)["input_ids"])
        extra = self.job.train.options.get("chat_template_kwargs")
        return renderer.prompt([dict(message) for message in prompt], extra=extra)

    def collator(self) -> Callable[[Loaded], Any] | None:
        """Return None: the trainer makes batches of prompts itself."""
        return None

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        prompt = row["prompt"]
        if isinstance(prompt, str):
            ids = list(tokenizer(prompt)["input_ids"])
        else:
            extra = self.job.train.options.get("chat_template_kwargs") or {}
            text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **extra)
            ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
        return [(None, ids, [-100] * len(ids))]

    def companions(self, row: Mapping[str, Any]) -> list[str]:
        """Return the names of the columns that go with a stored prompt to the reward functions."""
        return [name for name in row if name != "prompt"]


class Seq2Seq(Layout):
    """``seq2seq``: a text for the encoder, and one for the decoder."""

    name = "seq2seq"
    formats = ("prompt-completion", "instruction", "input-output", "messages", "sharegpt")
    columns = ("tokens", "tokens")
    train_on = "completion"
    whose = "an encoder-decoder model"
    templated = False

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        for row in rows:
            texts = texts_of(row)
            if isinstance(texts, BadRow):
                yield texts
                continue
            limit = self.limit
            source = renderer.tokenizer(texts[0], verbose=False)["input_ids"]
            target = renderer.tokenizer(text_target=texts[1], verbose=False)["input_ids"]
            length = max(len(source), len(target))
            if length > limit and renderer.on_long_row != "truncate":
                yield LongRow(
                    f"has {length} tokens",
                    f"max_seq_length is {limit}",
                    'raise it, shorten the row, or set on_long_row = "truncate" or "drop"',
                )
                continue
            # The end token stays where a text is cut, as the tokenizer's own truncation leaves it.
            read = source if len(source) <= limit else [*source[: limit - 1], source[-1]]
            said = target[:limit]
            eos = "cut" if len(target) > limit else "there" if said[-1] in renderer.stops else "missing"
            parts = (Rendered(read, [-100] * len(read), len(source), ""), Rendered(said, said, len(target), eos))
            yield Record(parts, {"input_ids": read, "labels": said})

    def collator(self) -> Callable[[Loaded], Any]:
        """Return what makes the batch collator once the model is there."""
        return lambda loaded: answers.Seq2SeqBatches(self.pad, loaded.model)

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        source, target = list(row["input_ids"]), list(row["labels"])
        return [("source", source, [-100] * len(source)), ("target", target, target)]


LAYOUTS: Mapping[str, type[Layout]] = {
    layout.name: layout for layout in (Layout, Pairs, Ranked, RatedRows, Prompts, Seq2Seq)
}
"""Every layout by the word that methods ask for."""


def _tokens(pad: int, loaded: Loaded) -> TokenCollator:
    config = getattr(loaded.model, "config", None)
    flash = "flash" in str(getattr(config, "_attn_implementation", ""))
    return TokenCollator(pad, boundaries=flash, lengths="unsloth-patched" in loaded.traits)


def _start(row: Rendered) -> int:
    """Return where the answer begins."""
    return next(index for index, label in enumerate(row.labels) if label != -100)


def _from(row: Rendered, start: int) -> Rendered:
    """Return the row with everything from a place on in the loss, as preference trainers have it."""
    return replace(row, labels=[-100] * start + row.input_ids[start:])


def _common(first: list[int], second: list[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


def _joined(name: str, prompt: Sequence[int], answer: Sequence[int]) -> Part:
    return name, [*prompt, *answer], [-100] * len(prompt) + list(answer)


def source_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what an encoder reads of messages."""
    return "\n\n".join(text_of(message["content"]) for message in messages)


def texts_of(row: Row) -> tuple[str, str] | BadRow:
    """Return the two texts of a row for an encoder and a decoder."""
    if isinstance(row, Completion):
        return row.prompt, row.completion
    if isinstance(row, Conversation):
        *asked, answer = row.messages
        if row.tools or any(message.get("tool_calls") for message in row.messages):
            return BadRow("has tools", "an encoder-decoder model calls none")
        if answer["role"] == "assistant" and [message["role"] for message in asked] in (["user"], ["system", "user"]):
            return source_of(asked), text_of(answer["content"])
        return BadRow("is a conversation", "an encoder-decoder model takes one text and answers with one")
    return BadRow("has no answer")

"""Every layout by the word that methods ask for, with those for what a model is asked and for pairs of texts."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any, ClassVar

from forge.api import first_line
from forge_huggingface.batches import answers
from forge_huggingface.data.conversion.cells import parsed_list
from forge_huggingface.data.labelled import LabelledRows
from forge_huggingface.data.layout import Layout, Part
from forge_huggingface.data.preferences import Pairs, Ranked, RatedRows, answer_of
from forge_huggingface.methods import by_rows
from forge_huggingface.rows import (
    BadRow,
    Completion,
    Conversation,
    LongRow,
    Message,
    Prompt,
    Record,
    Rendered,
    Row,
    put_back,
    source_of,
    text_of,
)
from forge_huggingface.vision.images import listed
from forge_huggingface.vision.prompts import filled, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from forge.api import Loaded
    from forge_huggingface.acting.load import Acting
    from forge_huggingface.rendering.render import Renderer
    from forge_huggingface.vision.images import Picture


class Prompts(Layout):
    """``prompts``: what the model is asked, with the other columns for reward functions. The trainer renders them."""

    name = "prompts"
    formats: ClassVar[tuple[str, ...]] = ("prompt", "question")
    columns = ("prompts", "image-prompts")
    train_on = "all"

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        room = self.limit - int(self.job.train.options.get("max_completion_length") or 0)
        if self.acting is not None:
            _ = self.calling  # a template that writes no calls is refused as such
        for row in rows:
            if not isinstance(row, Prompt):
                continue
            if self.acting is not None and isinstance(row.prompt, str):
                why = "calls are written by a chat template, which is put around messages"
                do = 'write it as messages: [{"role": "user", "content": "…"}]'
                yield BadRow("has a plain text for a prompt", why, do)
                continue
            if not (self.sees or isinstance(row.prompt, str)) and any(map(_shows, row.prompt)):
                do = "write the prompts without images, or take a vision model"
                yield BadRow("has images", "this model takes text only", do)
                continue
            pictures: list[tuple[Picture, Any]] = []
            try:
                if self.sees:
                    prompt, pictures = self._shown(renderer, row)
                else:
                    tools = self.tools(row.columns.get("environment"))
                    prompt = row.prompt if isinstance(row.prompt, str) else renderer.asked(row.prompt, tools)
                ids = self._ids(prompt, pictures, row.columns.get("environment"))
            except BadRow as bad:
                yield bad
                continue
            if not ids:
                yield BadRow("is empty once it is rendered", "the model would be asked nothing")
                continue
            if len(ids) > room:
                why = f"max_seq_length leaves {room} beside max_completion_length"
                yield LongRow(f"asks with {len(ids)} tokens", why, 'raise it, or set on_long_row = "drop"')
                continue
            columns: dict[str, Any] = {
                "prompt": json.dumps(prompt, ensure_ascii=False),
                "columns": json.dumps(dict(row.columns), ensure_ascii=False, default=str),
            }
            if self.sees:
                columns["pictures"] = [picture.to_json() for picture, _ in pictures]
            unseen = [name for name in ("images", "image") if row.columns.get(name) and not self.sees]
            what = f"the column {', '.join(unseen)} is for rewards only: this model takes text only"
            notes = (what,) if unseen else ()
            yield Record((Rendered(ids, [-100] * len(ids), len(ids), "", notes=notes),), columns)

    def _shown(self, renderer: Any, row: Prompt) -> tuple[str | list[Message], list[tuple[Picture, Any]]]:
        """Return a prompt for a model that sees, and its pictures."""
        images = listed(parsed_list(row.images))
        if not isinstance(row.prompt, str):
            found: tuple[list[Message], list[tuple[Picture, Any]]] = renderer.shown(row.prompt, images, row.folder)
            return found
        if images:
            why = "images have their places in messages, around which a chat template is put"
            do = 'write it as messages: [{"role": "user", "content": "…"}]'
            raise BadRow("has images and a plain text for a prompt", why, do)
        return row.prompt, []

    def _ids(self, prompt: Any, pictures: Sequence[tuple[Picture, Any]], environment: Any) -> list[int]:
        if not pictures:
            return self.ids(prompt, environment)
        try:
            return self.ids(filled(prompt, iter([image for _, image in pictures])))
        except (ValueError, IndexError, RuntimeError) as error:  # of images that a processor cannot take
            raise BadRow("has images that the processor refuses", first_line(error)) from error

    @functools.cached_property
    def acting(self) -> Acting | None:
        """What the model may call."""
        from forge_huggingface.acting.load import load  # imports the user's files

        return load(self.job)

    @functools.cached_property
    def calling(self) -> str | None:
        """The template by which the trainer writes calls; None for the model's own."""
        from forge_huggingface.acting.template import calling  # imports trl

        return calling(self.processor, self.job.data.variables)

    def tools(self, environment: Any) -> list[dict[str, Any]]:
        """Return what the model may call in an environment, as the chat template gets it."""
        if self.acting is None:
            return []
        return self.acting.schemas(environment if self.acting.several else None)

    def ids(self, prompt: str | Sequence[Mapping[str, Any]], environment: Any = None) -> list[int]:
        """Return a prompt's tokens, as the trainer will make them.

        Args:
            prompt: The prompt.
            environment: What the row says of it, where there are several.
        """
        tokenizer = getattr(self.processor, "tokenizer", self.processor)
        if isinstance(prompt, str):
            return list(tokenizer(prompt)["input_ids"])
        asked: dict[str, Any] = {"tokenize": False, "add_generation_prompt": True}
        if self.sees:
            asked |= {"tokenize": True, "return_dict": True, **self.job.data.variables}
            return list(self.processor.apply_chat_template([list(prompt)], **asked)["input_ids"][0])
        if self.acting is not None:
            asked |= {"tools": self.tools(environment), "chat_template": self.calling}
        text = tokenizer.apply_chat_template(list(prompt), **asked, **self.job.data.variables)
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def collator(self) -> Callable[[Loaded], Any] | None:
        """Return None: the trainer makes batches of prompts itself."""
        return None

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        ids = self.ids(opened(row["prompt"]), put_back(row).get("environment"))
        return [(None, ids, [-100] * len(ids))]

    def companions(self, row: Mapping[str, Any]) -> list[str] | None:
        """Return the names of the columns that go with a stored prompt to the reward functions."""
        return [name for name in row if name not in {"prompt", "origin"}]


class Answered(Prompts):
    """``answered``: prompts with an answer each, to learn on either: on the model's own answers, and on the rows'."""

    name = "answered"
    formats = ("prompt-completion", "instruction", "input-output", "messages", "sharegpt")
    train_on = "completion"

    @property
    def whose(self) -> str:
        """Return who takes these rows, for messages: with these keys the rows are to have answers."""
        return f"{super().whose} with lmbda = {self.job.train.options['lmbda']:g}"

    def render(self, renderer: Renderer, rows: Sequence[Row]) -> Iterator[Record | BadRow]:
        """Turn rows into records; what cannot be used comes back as :class:`BadRow`."""
        answered = [row for row in rows if isinstance(row, Conversation | Completion)]
        for row, rendered in zip(answered, renderer.render(answered), strict=True):
            if isinstance(rendered, BadRow):
                yield rendered
                continue
            whole = answer_of(rendered)
            asked: str | list[Mapping[str, Any]] = ""
            if self.job.train.options["lmbda"]:  # else nobody answers it
                (prompt,) = super().render(renderer, [_prompt(row)])
                if isinstance(prompt, BadRow):
                    yield prompt
                    continue
                asked = json.loads(prompt.columns["prompt"])
                if isinstance(row, Conversation) and (row.tools or row.extra):
                    what = "tools" if row.tools else "chat_template_kwargs"
                    why = f"{self.whose} has the model answer too, and its prompts are rendered without"
                    yield BadRow(f"has {what} of its own", why, "write lmbda = 0.0, or remove them")
                    continue
            start = whole.labels.count(-100)
            ids = {PROMPT_IDS: whole.input_ids[:start], ANSWER_IDS: whole.input_ids[start:]}
            yield Record((whole,), {"prompt": json.dumps(asked, ensure_ascii=False), "columns": json.dumps(ids)})

    def parts(self, row: Mapping[str, Any]) -> list[Part]:
        """Return the sequences of a stored row, for the preview."""
        prompt, answer = list(row[PROMPT_IDS]), list(row[ANSWER_IDS])
        return [(None, prompt + answer, [-100] * len(prompt) + answer)]

    def companions(self, row: Mapping[str, Any]) -> list[str] | None:  # noqa: ARG002 - no function is given any
        """Return None: all columns are used."""
        return None


PROMPT_IDS, ANSWER_IDS = "prompt_ids", "answer_ids"
"""What :class:`Answered` calls the tokens of a row's prompt and of its answer."""


def _prompt(row: Conversation | Completion) -> Prompt:
    return Prompt(row.prompt if isinstance(row, Completion) else row.messages[: row.start], {})


def _shows(message: Mapping[str, Any]) -> bool:
    """Whether a message has something else than text."""
    content = message["content"]
    return isinstance(content, list) and any(part.get("type") not in {None, "text"} for part in content)


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
        tokenizer = renderer.tokenizer
        around = [set(tokenizer("")["input_ids"]), set(tokenizer(text_target="")["input_ids"])]
        for row in rows:
            texts = texts_of(row)
            if isinstance(texts, BadRow):
                yield texts
                continue
            limit = self.limit
            source = tokenizer(texts[0], verbose=False)["input_ids"]
            target = tokenizer(text_target=texts[1], verbose=False)["input_ids"]
            if around[0].issuperset(source) or around[1].issuperset(target):
                yield BadRow("is empty once it is rendered", "the tokenizer makes no tokens of a text")
                continue
            length = max(len(source), len(target))
            if length > limit and not renderer.labels.cuts:
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
    layout.name: layout for layout in (Layout, Pairs, Ranked, RatedRows, LabelledRows, Prompts, Answered, Seq2Seq)
}
"""Every layout by the word that methods ask for, and by that which a run's summary has."""


def layout_of(word: str, options: Mapping[str, Any]) -> type[Layout]:
    """Return the layout of a method's word under the keys of ``[train]``: prompts with answers where these teach."""
    return Answered if word == Prompts.name and by_rows(options) else LAYOUTS[word]


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

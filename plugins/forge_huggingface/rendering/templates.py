"""Choose the chat template of a run.

The template decides what the model sees in training and, saved beside the weights, at inference. So it is chosen once,
here, and written into the tokenizer: evaluation, chat and export then use the same one.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forge.api import DataError, ModelError
from forge_huggingface.facts.folder import is_of_machine, words
from forge_huggingface.rendering import clock
from forge_huggingface.rendering.reasoning import reasoning_of
from forge_huggingface.rendering.traits import Traits
from forge_huggingface.rows import CALL_TEXT, BadRow, Message, UnwrittenRow, parts_of
from forge_huggingface.tools import tools_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.api import Job
    from forge_huggingface.rendering.effort import Effort


_FOLDER = Path(__file__).parent / "chat_templates"
_PROBE = "PARTQZX"
_HALF = re.compile("[\ud800-\udfff]")
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template.

    Attributes:
        name: How to call it.
        text: Its Jinja source.
        origin: ``"model"``, ``"forge"`` or ``"file"``.
        parts: Whether it takes a message's content as a list of parts, as templates of vision models do.
        traits: What it does, as :func:`.study.study` found by trying it.
        tool_traits: The same of ``tool_use``.
        keep_reasoning: Whether the reasoning of earlier answers is written where it would leave it out.
        tool_use: The source of the template for conversations with tools, where the model has one by that name.
        variables: Further variables, those of ``[data] chat_template_kwargs``; a row's own win.
        tools: Tools of conversations that have none.
        date: What it takes for now; None for the clock's.
        effort: Counts what is rendered for a row, and stops where it is too much.
    """

    name: str
    text: str
    origin: Literal["model", "forge", "file"]
    parts: bool = False
    traits: Traits = field(default_factory=Traits)
    tool_traits: Traits = field(default_factory=Traits)
    keep_reasoning: bool = False
    tool_use: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Any] | None = None
    date: str | None = None
    effort: Effort | None = None

    def used(self, tools: Sequence[Any] | None) -> Template:
        """Return the template that conversations with these tools, or with none of their own, are rendered by."""
        if self.tool_use is None or not (tools or self.tools):
            return self
        return replace(self, name=f"tool_use {self.name}", text=self.tool_use, traits=self.tool_traits, tool_use=None)

    @property
    def sources(self) -> str:
        """All of its Jinja source."""
        return self.text + (self.tool_use or "")

    @property
    def marks_answers(self) -> bool:
        """Whether it marks the assistant's part with ``{% generation %}``."""
        return _GENERATION.search(self.text) is not None

    def render(
        self,
        tokenizer: Any,
        messages: Sequence[Message],
        *,
        tools: Sequence[Any] | None = None,
        prompt: bool = False,
        extra: Mapping[str, Any] | None = None,
    ) -> tuple[str, list[tuple[int, int]]]:
        """Render messages to text.

        Args:
            tokenizer: For its special tokens.
            messages: The messages.
            tools: Tool descriptions.
            prompt: Whether to end with the head of an answer.
            extra: Further variables.

        Returns:
            The text, and the spans of characters that the template marks as answers.

        Raises:
            UnwrittenRow: The template refuses the messages.
        """
        tools = tools or self.tools
        if (other := self.used(tools)) is not self:
            return other.render(tokenizer, messages, tools=tools, prompt=prompt, extra=extra)
        from transformers.utils.chat_template_utils import render_jinja_template

        if self.effort is not None:
            self.effort.spend(len(messages))
        marks = self.marks_answers and not prompt
        messages, kept = self._fitted(messages)
        if self.parts:
            messages = [{**message, "content": parts_of(message["content"])} for message in messages]
        try:
            clock.stop(self.text, self.date)
            texts, spans = render_jinja_template(
                conversations=[list(messages)],
                tools=list(tools) if tools else None,
                chat_template=self.text,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=prompt,
                **(dict(tokenizer.special_tokens_map) | dict(self.variables) | dict(extra or {})),
            )
        except MemoryError:
            raise
        except Exception as error:
            # A template is a program of strangers: it stops with its own words, or trips over what it did not expect.
            raise UnwrittenRow(f"is refused by the chat template {self.name}", words(error)) from error
        text, found = texts[0], [(start, end) for start, end in spans[0]] if marks else []
        if not text.isascii() and _HALF.search(text):
            raise UnwrittenRow(f"becomes half a character in the chat template {self.name}", "it is cut within one")
        for marker, written in kept.items():
            text, found = _put(text, found, marker, written)
        if not prompt and self.traits.unasked and text.endswith(self.traits.unasked):
            text = text[: -len(self.traits.unasked)]
        return text, found

    def fitted(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages as the template wants them, for whoever renders them without forge."""
        return list(self._fitted(messages)[0])

    def _fitted(self, messages: Sequence[Message]) -> tuple[Sequence[Message], dict[str, str]]:
        """Return messages as the template wants them, and what is to be written in place of what in its text."""
        kept: dict[str, str] = {}
        if not self.keep_reasoning and not any(
            "tool_calls" in each or "reasoning_content" in each for each in messages
        ):
            return messages, kept
        last = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=-1)
        fitted = []
        for index, message in enumerate(messages):
            if message.get("tool_calls"):
                message = self._calling(message)
            if self.keep_reasoning and index < last and message["role"] == "assistant":
                message, written = self._thinking(message, f"KEPT{index}QZX")
                kept |= written
            if "reasoning_content" in message and (key := self.traits.reasoning_key):
                message = {key: message["reasoning_content"], **message}
            fitted.append(message)
        return fitted, kept

    def _calling(self, message: Message) -> Message:
        message = dict(message)
        text = message.pop(CALL_TEXT, None)
        if text is not None and not self.traits.calls:
            del message["tool_calls"]
            return {**message, "content": "\n".join(filter(None, (message["content"], text)))}
        if not self.traits.arguments_as_text and self.traits.silence == "":
            return message
        calls = message["tool_calls"]
        if self.traits.arguments_as_text:
            calls = [
                {**call, "function": {**call["function"], "arguments": _as_text(call["function"].get("arguments"))}}
                for call in calls
            ]
        return {**message, "tool_calls": calls, "content": message.get("content") or self.traits.silence}

    def _thinking(self, message: Message, marker: str) -> tuple[Message, dict[str, str]]:
        """Put a marker in place of an earlier answer with its reasoning, for a template that would drop the latter."""
        thought, said = reasoning_of(message)
        if not thought or self.traits.reasoning is None:
            return message, {}
        head, middle = self.traits.reasoning
        rest = {key: value for key, value in message.items() if key != "reasoning_content"}
        written = f"{head}{thought}{middle}{said}"
        # Between a text and its calls templates put a line break, and none where there is no text.
        return {**rest, "content": marker}, {marker if said else f"{marker}\n": written, marker: written}


def _put(text: str, spans: list[tuple[int, int]], marker: str, written: str) -> tuple[str, list[tuple[int, int]]]:
    """Put a text in a marker's place, and move spans of characters with what they hold."""
    at = text.find(marker)
    if at < 0:
        return text, spans
    more, end = len(written) - len(marker), at + len(marker)
    moved = [(start + more if start >= end else start, stop + more if stop >= end else stop) for start, stop in spans]
    return text[:at] + written + text[end:], moved


def _as_text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def shipped() -> list[str]:
    """Return the names of the templates that forge ships."""
    return sorted(path.stem for path in _FOLDER.glob("*.jinja"))


def text_of_shipped(name: str) -> str:
    """Return the Jinja source of a template that forge ships."""
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def choose(job: Job, tokenizer: Any, folder: Path, *, bos: bool) -> Template | None:
    """Return the template of the run: the job's, else the model's own, else None. It has what ``[data]`` gives to it.

    Args:
        job: The job.
        tokenizer: The tokenizer, for the model's own template.
        folder: The model's folder, for errors.
        bos: Whether the tokenizer puts a BOS token before plain text. The templates that forge ships then write it.

    Raises:
        DataError: There is no such template, or it is not valid Jinja.
        ModelError: The model's own is not.
    """
    name = job.data.chat_template
    template: Template | None
    if name is None:
        template = own(tokenizer.chat_template, "of the model")
    elif name in shipped():
        text = text_of_shipped(name)
        template = Template(name, "{{- bos_token -}}\n" + text if bos else text, "forge")
    elif name.endswith((".jinja", ".jinja2", ".j2")):
        path = job.path(name)
        if not path.is_file():
            raise DataError(f"the chat template {name} was not found", f"there is no {path.resolve()}")
        template = Template(name, _text_of(path, name), "file")
    else:
        raise DataError(
            f"there is no chat template {name!r}",
            f"forge ships {', '.join(shipped())}",
            "name one of them, or a .jinja file",
        )
    if template is None:
        return None
    _check(template, tokenizer, folder)
    return of_job(template, job)


def _text_of(path: Path, name: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        if is_of_machine(error):
            raise
        do = "save it as UTF-8" if isinstance(error, ValueError) else None
        raise DataError(f"the chat template {name} cannot be read", words(error), do) from error


def own(template: Any, name: str) -> Template | None:
    """Return a tokenizer's own template, which may be several by name, as transformers loads them."""
    named = template if isinstance(template, dict) else {"default": template} if template else {}
    text = named.get("default") or next(iter(named.values()), None)
    return Template(name, text, "model", tool_use=named.get("tool_use")) if text else None


def of_job(template: Template, job: Job) -> Template:
    """Return a template with the variables, the tools and the date that a job gives to it."""
    data = job.data
    keeps, tools = data.keep_reasoning, tools_of(job)
    return replace(template, variables=data.variables, tools=tools, date=data.date, keep_reasoning=keeps)


def with_parts(template: Template, tokenizer: Any) -> Template:
    """Return the template as one for messages made of parts, if it can write those."""
    seeing = replace(template, parts=True)
    try:
        text, _ = seeing.render(tokenizer, [{"role": "user", "content": _PROBE}])
    except BadRow:
        return template
    # A template for plain strings fails, or writes the list as Python does.
    return seeing if _PROBE in text and "'type'" not in text else template


def missing(format: str) -> DataError:  # noqa: A002
    """Return the error for rows that need a template where the model has none."""
    return DataError(
        f"rows of the format {format} need a chat template",
        "the model has none",
        f"set [data] chat_template to one of {', '.join(shipped())}, or to a .jinja file",
    )


def _check(template: Template, tokenizer: Any, folder: Path) -> None:
    """Refuse a template that is no Jinja, or that fails whatever it is given."""
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    what, why = f"the chat template {template.name} is not valid Jinja", None
    try:
        for text in filter(None, (template.text, template.tool_use)):
            render_jinja_template(conversations=[], chat_template=text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        why = f"{error.message}{f' in line {line}' if line else ''}"
    except RecursionError:
        why = "it is nested too deeply"
    if why is None and (why := _fault(template, tokenizer)) is not None:
        what = f"the chat template {template.name} cannot be used"
    if why is None:
        return
    if template.origin != "model":
        raise DataError(what, why, f"mend it, or set [data] chat_template to one of {', '.join(shipped())}")
    names = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    path = next((folder / name for name in names if (folder / name).is_file()), folder)
    do = f"mend it, or set [data] chat_template to one of {', '.join(shipped())}, or to a .jinja file"
    raise ModelError(what, f"{path}: {why}", do)


def _fault(template: Template, tokenizer: Any) -> str | None:
    """Return what a template trips over in the shortest of conversations, if that is no fault of the conversation."""
    for content in (_PROBE, [{"type": "text", "text": _PROBE}]):
        try:
            template.render(tokenizer, [{"role": "user", "content": content}], prompt=True)
        except MemoryError as error:
            return words(error)
        except UnwrittenRow as bad:
            if isinstance(bad.__cause__, ArithmeticError | RecursionError):
                return words(bad.__cause__)
    return None

"""Choose the chat template of a run.

The template decides what the model sees in training and, saved beside the weights, at inference. So it is chosen once,
here, and written into the tokenizer: evaluation, chat and export then use the same one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forge.api import DataError
from forge_huggingface.rendering import clock
from forge_huggingface.rows import BadRow, Message, parts_of
from forge_huggingface.tools import tools_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.api import Job


_FOLDER = Path(__file__).parent / "chat_templates"
_PROBE = "PARTQZX"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
_CONTROL = re.compile(r"<\|\w+\|>|<\w+_of_turn>")


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template.

    Attributes:
        name: How to call it.
        text: Its Jinja source.
        origin: ``"model"``, ``"forge"`` or ``"file"``.
        parts: Whether it takes a message's content as a list of parts, as templates of vision models do.
        tool_use: The source of the template for conversations with tools, where the model has one by that name.
        variables: Further variables, those of ``[data] chat_template_kwargs``; a row's own win.
        tools: Tools of conversations that have none.
        date: What it takes for now; None for the clock's.
    """

    name: str
    text: str
    origin: Literal["model", "forge", "file"]
    parts: bool = False
    tool_use: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Any] | None = None
    date: str | None = None

    def used(self, tools: Sequence[Any] | None) -> Template:
        """Return the template that conversations with these tools, or with none of their own, are rendered by."""
        if self.tool_use is None or not (tools or self.tools):
            return self
        return replace(self, name=f"tool_use {self.name}", text=self.tool_use, tool_use=None)

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
            BadRow: The template refuses the messages.
        """
        tools = tools or self.tools
        if (other := self.used(tools)) is not self:
            return other.render(tokenizer, messages, tools=tools, prompt=prompt, extra=extra)
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        marks = self.marks_answers and not prompt
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
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            # A template is a program of strangers: it stops with its own words, or trips over what it did not expect.
            what, why = f"is refused by the chat template {self.name}", str(error) or type(error).__name__
            raise BadRow(what, why, self._advice(tokenizer, messages, tools)) from error
        return texts[0], [(start, end) for start, end in spans[0]] if marks else []

    def _advice(self, tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None) -> str:
        """Return what to do about a row that is refused: one of forge's templates, if it writes this very row."""
        other = next(
            (name for name in _fitting(tokenizer, self.name) if _renders(name, tokenizer, messages, tools)), ""
        )
        return (f'set chat_template = "{other}", which writes it, or ' if other else "") + 'set on_bad_row = "drop"'


def shipped() -> list[str]:
    """Return the names of the templates that forge ships."""
    return sorted(path.stem for path in _FOLDER.glob("*.jinja"))


@cache
def _shipped_text(name: str) -> str:
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")


def _fitting(tokenizer: Any, without: str) -> list[str]:
    """Return the templates of forge whose control tokens a tokenizer knows, those that have some first."""
    fitting: dict[str, int] = {}
    for name in shipped():
        tokens = set(_CONTROL.findall(_shipped_text(name)))
        ids = {token: tokenizer.convert_tokens_to_ids(token) for token in tokens}
        known = all(
            index is not None and tokenizer.convert_ids_to_tokens(index) == token for token, index in ids.items()
        )
        if known and name != without:
            fitting[name] = len(tokens)
    return sorted(fitting, key=lambda name: (not fitting[name], name))


def _renders(name: str, tokenizer: Any, messages: Sequence[Message], tools: Sequence[Any] | None) -> bool:
    from jinja2.exceptions import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        render_jinja_template(
            conversations=[list(messages)],
            tools=list(tools) if tools else None,
            chat_template=_shipped_text(name),
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError):
        return False
    return True


def choose(job: Job, tokenizer: Any, *, bos: bool) -> Template | None:
    """Return the template of the run: the job's, else the model's own, else None. It has what ``[data]`` gives to it.

    Args:
        job: The job.
        tokenizer: The tokenizer, for the model's own template.
        bos: Whether the tokenizer puts a BOS token before plain text. The templates that forge ships then write it.

    Raises:
        DataError: There is no such template, or it is not valid Jinja.
    """
    name = job.data.chat_template
    template: Template | None
    if name is None:
        template = own(tokenizer.chat_template, "of the model")
    elif name in shipped():
        text = _shipped_text(name)
        template = Template(name, "{{- bos_token -}}\n" + text if bos else text, "forge")
    elif name.endswith((".jinja", ".jinja2", ".j2")):
        path = job.path(name)
        if not path.is_file():
            raise DataError(f"the chat template {name} was not found", f"there is no {path.resolve()}")
        template = Template(name, path.read_text(encoding="utf-8"), "file")
    else:
        raise DataError(
            f"there is no chat template {name!r}",
            f"forge ships {', '.join(shipped())}",
            "name one of them, or a .jinja file",
        )
    if template is None:
        return None
    _check(template)
    return of_job(template, job)


def own(template: Any, name: str) -> Template | None:
    """Return a tokenizer's own template, which may be several by name, as transformers loads them."""
    named = template if isinstance(template, dict) else {"default": template} if template else {}
    text = named.get("default") or next(iter(named.values()), None)
    return Template(name, text, "model", tool_use=named.get("tool_use")) if text else None


def of_job(template: Template, job: Job) -> Template:
    """Return a template with the variables, the tools and the date that a job gives to it."""
    return replace(template, variables=job.data.variables, tools=tools_of(job), date=job.data.date)


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


def _check(template: Template) -> None:
    from jinja2.exceptions import TemplateSyntaxError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        for text in filter(None, (template.text, template.tool_use)):
            render_jinja_template(conversations=[], chat_template=text)
    except TemplateSyntaxError as error:
        raise DataError(
            f"the chat template {template.name} is not valid Jinja", f"{error.message} in line {error.lineno}"
        ) from error

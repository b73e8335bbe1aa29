"""Choose the chat template of a run.

The template decides what the model sees in training and, saved beside the weights, at inference. So it is chosen once,
here, and written into the tokenizer: evaluation, chat and export then use the same one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forge.api import DataError
from forge_huggingface.rows import BadRow, Message, parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.api import Job


_FOLDER = Path(__file__).parent / "chat_templates"
_PROBE = "PARTQZX"
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template.

    Attributes:
        name: How to call it.
        text: Its Jinja source.
        origin: ``"model"``, ``"forge"`` or ``"file"``.
        parts: Whether it takes a message's content as a list of parts, as templates of vision models do.
    """

    name: str
    text: str
    origin: Literal["model", "forge", "file"]
    parts: bool = False

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
        from jinja2.exceptions import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        marks = self.marks_answers and not prompt
        if self.parts:
            messages = [{**message, "content": parts_of(message["content"])} for message in messages]
        try:
            texts, spans = render_jinja_template(
                conversations=[list(messages)],
                tools=list(tools) if tools else None,
                chat_template=self.text,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=prompt,
                **(dict(tokenizer.special_tokens_map) | dict(extra or {})),
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            # A template is a program of strangers: it stops with its own words, or trips over what it did not expect.
            raise BadRow(f"is refused by the chat template {self.name}", str(error) or type(error).__name__) from error
        return texts[0], [(start, end) for start, end in spans[0]] if marks else []


def shipped() -> list[str]:
    """Return the names of the templates that forge ships."""
    return sorted(path.stem for path in _FOLDER.glob("*.jinja"))


def choose(job: Job, tokenizer: Any, *, bos: bool) -> Template | None:
    """Return the template of the run: the job's, else the model's own, else None.

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
        text = tokenizer.chat_template
        if isinstance(text, dict):  # named templates; rows with tools use the same one, so that a run has just one
            text = text.get("default") or next(iter(text.values()), None)
        template = Template("of the model", text, "model") if text else None
    elif name in shipped():
        text = (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
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
    if template is not None:
        _check(template)
    return template


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
        render_jinja_template(conversations=[], chat_template=template.text)
    except TemplateSyntaxError as error:
        raise DataError(
            f"the chat template {template.name} is not valid Jinja", f"{error.message} in line {error.lineno}"
        ) from error

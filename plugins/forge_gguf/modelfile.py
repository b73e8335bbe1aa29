"""What goes beside the files: Ollama's ``Modelfile``, and the commands of the programs that run them.

Ollama renders conversations with a template in Go's language. It is made from what the tokenizer's own template does:
what that writes before and after each kind of message is found by rendering, put together, and compared on six
conversations. A table of models' names would give the base's template to a model that was trained with another.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge_gguf.file.architectures import rope
from forge_gguf.file.vocabulary import template_of
from forge_gguf.trial.texts import rendered
from forge_huggingface.generation.sampling import own_values, read_config
from forge_huggingface.hub.card import model_card
from forge_huggingface.rendering import clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.api import Job, Plan, Trained
    from forge_gguf.source import Source

CONTEXT = 4096
"""The conversation in tokens that a chat is given room for, if rows were shorter and the model takes it."""

BASE = "./BASE.gguf"
"""What stands for the base's own GGUF file, which forge does not have."""

_OLLAMA = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "presence_penalty")},
    "repetition_penalty": "repeat_penalty",
    "max_new_tokens": "num_predict",
}

_MARKS = {"system": "SYSq1", "user": "USERq2", "assistant": "ANSWERq3"}


@dataclass(frozen=True, slots=True)
class Wrapping:
    """A template that writes something before and after each message, by its role, and nothing else.

    Attributes:
        around: By role, what stands before and after the content.
        opening: What stands in front of a conversation without a system message.
        prompt: What stands behind it, before the answer.
        strip: Whether white space around contents is dropped.
    """

    around: Mapping[str, tuple[str, str]]
    opening: str
    prompt: str
    strip: bool

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Render a conversation for an answer, as :meth:`go` makes Ollama do it."""
        text = "" if messages[0]["role"] == "system" else self.opening
        for message in messages:
            before, after = self.around[message["role"]]
            content = message["content"].strip() if self.strip else message["content"]
            text += before + content + after
        return text + self.prompt

    def go(self) -> str:
        """Return it in the language of Go's ``text/template``, with the variables that Ollama gives."""
        content = "{{ .Content }}"
        branches: list[str] = []
        for role, (before, after) in self.around.items():
            word = "if" if not branches else "else if"
            branches.append(f'{{{{ {word} eq .Role "{role}" }}}}{_plain(before)}{content}{_plain(after)}')
        opening = f"{{{{ if not .System }}}}{_plain(self.opening)}{{{{ end }}}}" if self.opening else ""
        body = "".join(branches) + "{{ end }}"
        return f"{opening}{{{{ range .Messages }}}}{body}{{{{ end }}}}{_plain(self.prompt)}"


def _plain(text: str) -> str:
    """Write text so that Go's templates leave it alone."""
    return text.replace("{{", '{{ "{{" }}')


def wrapping(tokenizer: Any, variables: Mapping[str, Any]) -> Wrapping | None:
    """Return what a tokenizer's template does, if it is no more than a :class:`Wrapping`.

    A token that begins every text is left out: llama.cpp puts it there itself. A template that writes the day's date
    does more: a wrapping would say the same day for ever.
    """
    pairs = rendered(tokenizer, variables)
    if not pairs or clock.asks(template_of(tokenizer) or ""):
        return None
    bos = tokenizer.bos_token if _adds_bos(tokenizer) else None
    for strip in (False, True):
        for found in _measure(tokenizer, variables, strip, bos):
            if all(found.render(messages) == _without(text, bos) for messages, text in pairs):
                return found
    return None


def _adds_bos(tokenizer: Any) -> bool:
    ids = tokenizer("a")["input_ids"]
    return bool(ids) and ids[0] == tokenizer.bos_token_id


def _without(text: str, bos: str | None) -> str:
    return text.removeprefix(bos) if bos else text


def _measure(tokenizer: Any, variables: Mapping[str, Any], strip: bool, bos: str | None) -> Iterator[Wrapping]:
    """Find the parts: of renderings with marks in the places of contents, what stands between the marks.

    Where an answer's end stops and the next question begins cannot be seen, so what is likely is yielded first.
    """
    import jinja2

    def shown(*roles: str, prompt: bool = False) -> str | None:
        messages = [{"role": role, "content": _MARKS[role]} for role in roles]
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **variables)
        except jinja2.TemplateError:
            return None
        return _without(str(text), bos)

    user, asked = shown("user"), shown("user", prompt=True)
    answered, again = shown("user", "assistant"), shown("user", "assistant", "user")
    if user is None or asked is None or answered is None or again is None or not asked.startswith(user):
        return
    mark = _MARKS["user"]
    head, _, after_user = user.partition(mark)
    before_answer, _, behind = again.removeprefix(head + mark + after_user).partition(_MARKS["assistant"])
    between, after_last = behind.partition(mark)[0], answered.partition(_MARKS["assistant"])[2]
    told = shown("system", "user")
    for before_user in dict.fromkeys([between.removeprefix(after_last), _common_end(head, between)]):
        if not head.endswith(before_user) or not between.endswith(before_user):
            continue
        around = {
            "user": (before_user, after_user),
            "assistant": (before_answer, between.removesuffix(before_user)),
        }
        if told is not None and _MARKS["system"] in told:
            before, _, behind = told.partition(_MARKS["system"])
            after = behind.partition(mark)[0]
            if not after.endswith(before_user):
                continue
            around = {"system": (before, after.removesuffix(before_user)), **around}
        yield Wrapping(around, head.removesuffix(before_user), asked.removeprefix(user), strip)


def _common_end(one: str, other: str) -> str:
    """Return the longest text with which both end."""
    count = 0
    while count < min(len(one), len(other)) and one[-1 - count] == other[-1 - count]:
        count += 1
    return one[len(one) - count :]


def modelfile(
    source: Source, file: str, length: int, values: Mapping[str, Any] | None = None, *, adapter: bool = False
) -> str:
    """Return a ``Modelfile`` for ``ollama create``.

    Args:
        source: The trained model.
        file: The GGUF file, beside it.
        length: The longest row in tokens that was trained on; below 1 for the model's own.
        values: How it is meant to answer, by transformers' names; the base's own settings if None.
        adapter: Whether the file holds an adapter alone.
    """
    lines = [f"# Made by forge: ollama create {tag(source.name)} -f Modelfile"]
    if adapter:
        lines += [
            "# Name the base model's own GGUF file here, or the base as Ollama's library calls it.",
            f"FROM {BASE}",
        ]
    lines.append(f"{'ADAPTER' if adapter else 'FROM'} ./{file}")
    converses = bool(source.tokenizer.chat_template) and not source.plain
    found = wrapping(source.tokenizer, source.variables) if converses else None
    if found is not None:
        lines.append(f"TEMPLATE {_quoted(found.go())}")
    elif converses:
        lines += [
            "# The chat template does more than Ollama's language was found to say. Ollama renders the one in the file",
            "# itself since the versions of 2026; an older one cannot chat with this model.",
        ]
    else:
        lines += ["# It was trained without a chat template: it goes on with a text.", 'TEMPLATE "{{ .Prompt }}"']
    for stop in source.vocabulary.stops:
        lines.append(f"PARAMETER stop {_quoted(source.vocabulary.tokens[stop])}")
    lines.append(f"PARAMETER num_ctx {context(source, length)}")
    values = own_values(read_config(source.base)) if values is None else values
    lines += [f"PARAMETER {name} {value}" for name, value in parameters(values).items()]
    return "\n".join(lines) + "\n"


def tag(name: str) -> str:
    """Return a run's name as one that Ollama takes for a model: at most 80 Latin letters, digits, dots and dashes."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", plain).strip("-._")[:80] or "model"


def context(source: Source, length: int) -> int:
    """Return how long a conversation Ollama is told to make room for, in tokens."""
    longest = int(source.config["max_position_embeddings"])
    positions = rope(source.config)
    if positions["rope_type"] == "longrope":
        # llama.cpp takes the factors for long texts as soon as there is room for them, transformers once they are long.
        longest = positions.get("original_max_position_embeddings") or longest
    return min(max(length, CONTEXT), longest) if length > 0 else longest


def parameters(values: Mapping[str, Any]) -> dict[str, float]:
    """Return how to answer by Ollama's names.

    A penalty goes by the whole conversation, as transformers counts it; Ollama's own default is the last 64 tokens.
    """
    found = {_OLLAMA[key]: value for key, value in values.items() if key in _OLLAMA and value is not None}
    return found | ({"repeat_last_n": -1} if {"repeat_penalty", "presence_penalty"} & set(found) else {})


def _quoted(text: str) -> str:
    """Quote a value of a Modelfile: three quotation marks, between which everything stands for itself."""
    return f'"""{text}"""' if "\n" in text or '"' in text else f'"{text}"'


def card(
    job: Job,
    plan: Plan,
    trained: Trained,
    source: Source,
    files: Sequence[str],
    evaluation: Mapping[str, Any] | None,
    *,
    adapter: bool,
) -> str:
    """Return the model card, with the commands of the programs that run the files.

    Args:
        job: The job.
        plan: The plan.
        trained: What training left.
        source: The trained model.
        files: Names of the GGUF files, the recommended one first.
        evaluation: The content of ``evaluation.json``, if there is one.
        adapter: Whether the files hold an adapter alone.
    """
    told = usage(source.name, files, adapter=adapter, plain=source.plain)
    return model_card(job, plan, trained, "gguf", evaluation, usage=told)


def usage(name: str, files: Sequence[str], *, adapter: bool, plain: bool = False, ollama: bool = True) -> list[str]:
    """Return the commands, as lines of Markdown; Ollama's if there is a ``Modelfile``.

    Args:
        name: What the files are called after.
        files: Their names, the recommended one first.
        adapter: Whether they hold an adapter alone.
        plain: Whether the model was trained on plain text, and goes on with a text instead of answering.
        ollama: Whether there is a ``Modelfile``.
    """
    first = files[0]
    begin = '-no-cnv -p "The beginning of a text"'
    if adapter:
        return [
            "An adapter for the base model's own GGUF file. It was tried on the base in 16 bit. Name that file in",
            "`Modelfile` for Ollama.",
            "",
            "```sh",
            f"llama-completion -m BASE.gguf --lora {first} {begin}"
            if plain
            else f"llama-cli -m BASE.gguf --lora {first}",
            f"ollama create {tag(name)} -f Modelfile && ollama run {tag(name)}",
            "```",
        ]
    return [
        "```sh",
        *(["# Ollama", f"ollama create {tag(name)} -f Modelfile && ollama run {tag(name)}"] if ollama else []),
        "# LM Studio",
        f"lms import {first}",
        *(
            ["# llama.cpp: it was trained on plain text, and goes on with one", f"llama-completion -m {first} {begin}"]
            if plain
            else [
                "# llama.cpp: in the terminal, and as a server that answers as OpenAI's does",
                f"llama-cli -m {first} --jinja",
                f"llama-server -m {first} --jinja",
            ]
        ),
        "```",
        "",
        "| file | type |",
        "| --- | --- |",
        *(f"| `{file}` | {file.removesuffix('.gguf').rpartition('-')[2]} |" for file in files),
    ]

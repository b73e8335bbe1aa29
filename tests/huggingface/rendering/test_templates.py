"""Chat templates: what forge's own write beside the models', what a job gives to one, and what a refusal says."""

from __future__ import annotations

import datetime as dates
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import DataError
from forge.job.job import Job
from forge_huggingface.rendering import clock
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.templates import Template, choose, own
from forge_huggingface.rows import BadRow, Conversation, Rendered
from support.tiny import CHATML, make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM = {"role": "system", "content": "Be short."}
TURNS = [
    {"role": "user", "content": " Name a colour. "},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": "And in 東京?"},
    {"role": "assistant", "content": "blue"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather <here>.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
CALLED = [
    {"role": "user", "content": "Is it wet?"},
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "assistant", "content": "No."},
]
TWICE = [
    {"role": "user", "content": "Is it wet?"},
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL, CALL]},
    {"role": "tool", "content": "sunny"},
    {"role": "tool", "content": "rain"},
    {"role": "assistant", "content": "Both."},
]
QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
CLOCK = "{{ strftime_now('%H:%M:%S.%f %d %b %Y') }}|" + CHATML


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tokenizer(tmp_path_factory.mktemp("t")))


class Named:
    """Stands for a tokenizer of another family: only its special tokens are read."""

    def __init__(self, bos: str, eos: str) -> None:
        self.special_tokens_map = {"bos_token": bos, "eos_token": eos}


def theirs(name: str) -> str:
    """Return the source of a model's own template, as TRL has it."""
    found = find_spec("trl")
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "chat_templates" / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"this TRL has no template {name}")
    return path.read_text(encoding="utf-8")


def job(**data: Any) -> Job:
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "x", **data}})


def both(ours: str, other: str, eos: str, messages: list[dict[str, Any]], tools: Any, prompt: bool) -> tuple[str, str]:
    """Return what forge's template and the model's write; the latter's last line break is not part of any turn."""
    family: Any = Named("<bos>", eos)
    bos = "{{ bos_token }}" in other or "{{- bos_token }}" in other
    mine = choose(job(chat_template=ours), family, Path(), bos=bos)
    assert mine is not None
    text = mine.render(family, messages, tools=tools, prompt=prompt)[0]
    real = Template("theirs", other, "file").render(family, messages, tools=tools, prompt=prompt)[0]
    return text, real if prompt else real.removesuffix("\n")


@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["plain", "system"])
@pytest.mark.parametrize("prompt", [False, True], ids=["whole", "prompt"])
def test_plain_conversations_are_written_as_by_the_models_own_templates(system: list[Any], prompt: bool) -> None:
    turns = [*system, *(TURNS[:3] if prompt else TURNS)]
    mine, real = both("chatml", theirs("qwen2_5"), "<|im_end|>", turns, None, prompt)
    assert mine == real.replace(f"<|im_start|>system\n{QWEN}<|im_end|>\n", "")
    mine, real = both("llama3", theirs("llama3"), "<|eot_id|>", turns, None, prompt)
    assert mine == real.removeprefix("<bos>")  # written where the first message stands, which no text of forge tells
    mine, real = both("gemma", theirs("gemma3"), "<end_of_turn>", turns, None, prompt)
    assert mine == real


@pytest.mark.parametrize("turns", [TURNS, CALLED, TWICE], ids=["plain", "call", "calls"])
@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["plain", "system"])
def test_chatml_writes_tools_calls_and_results_as_qwen_does(system: list[Any], turns: list[Any]) -> None:
    mine, real = both("chatml", theirs("qwen2_5"), "<|im_end|>", [*system, *turns], TOOLS, prompt=False)
    assert mine == real.replace(f"{QWEN}\n\n", "")
    mine, real = both("chatml", theirs("qwen2_5"), "<|im_end|>", [*system, *turns[:1]], TOOLS, prompt=True)
    assert mine == real.replace(f"{QWEN}\n\n", "")


@pytest.mark.parametrize("turns", [TURNS, CALLED], ids=["plain", "call"])
@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["plain", "system"])
def test_llama3_writes_tools_calls_and_results_as_llama_31_does(system: list[Any], turns: list[Any]) -> None:
    mine, real = both("llama3", theirs("llama3_1"), "<|eot_id|>", [*system, *turns], TOOLS, prompt=False)
    assert mine == real.replace("Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n", "")


def test_llama3_refuses_what_its_form_cannot_hold(tokenizer: Any) -> None:
    template = choose(job(chat_template="llama3"), tokenizer, Path(), bos=False)
    assert template is not None
    with pytest.raises(BadRow, match="no place for a text beside a tool call"):
        template.render(tokenizer, TWICE)
    without = [TWICE[0], {"role": "assistant", "tool_calls": [CALL, CALL]}]
    with pytest.raises(BadRow, match="no place for several tool calls"):
        template.render(tokenizer, without)
    with pytest.raises(BadRow, match="before the first question, and there is none"):
        template.render(tokenizer, [SYSTEM], tools=TOOLS)


def test_gemma_and_alpaca_write_tools_in_words(tokenizer: Any) -> None:
    gemma = choose(job(chat_template="gemma"), tokenizer, Path(), bos=False)
    alpaca = choose(job(chat_template="alpaca"), tokenizer, Path(), bos=False)
    assert gemma is not None
    assert alpaca is not None
    text = gemma.render(tokenizer, [SYSTEM, *TWICE], tools=TOOLS)[0]
    assert text.startswith("<start_of_turn>user\nYou have access to functions.")
    assert json.dumps(TOOLS, ensure_ascii=False, indent=2) + "\n\nBe short.\n\nIs it wet?<end_of_turn>\n" in text
    call = '{"name": "weather", "parameters": {"city": "Köln"}}'
    assert f"<start_of_turn>model\nI look.\n{call}\n{call}</s>\n" in text
    assert "<start_of_turn>user\n```tool_output\nsunny\n```\n```tool_output\nrain\n```<end_of_turn>\n" in text
    with pytest.raises(BadRow, match="before a question, and none follows"):
        gemma.render(tokenizer, [SYSTEM])
    assert alpaca.render(tokenizer, [SYSTEM, *CALLED], tools=TOOLS)[0] == (
        "Be short.\n\n### Tools:\n"
        'To use a tool, answer with a line Call: {"name": …, "arguments": {…}}\n'
        + json.dumps(TOOLS[0], ensure_ascii=False)
        + "\n\n### Instruction:\nIs it wet?\n\n### Response:\n"
        'Call: {"name": "weather", "arguments": {"city": "Köln"}}</s>\n\n'
        "### Tool result:\nsunny\n\n### Response:\nNo.</s>"
    )


@pytest.mark.parametrize("name", ["alpaca", "chatml", "gemma"])
def test_calls_are_learned_with_their_end_and_arguments_may_be_text(tokenizer: Any, name: str) -> None:
    made = Renderer(tokenizer, choose(job(chat_template=name), tokenizer, Path(), bos=False))
    written = [TWICE[0], {**TWICE[1], "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}]}, *TWICE[2:]]
    (row,) = made.render([Conversation(tuple(written), len(written) - 1, turns=True, tools=tuple(TOOLS))])
    assert isinstance(row, Rendered)
    learned = tokenizer.decode([token for token in row.labels if token != -100])
    assert learned.count("</s>") == 2
    assert '{"a": 1}' in learned
    assert "I look." in learned
    assert "sunny" not in learned


# What a job gives to its template.


def test_the_jobs_variables_are_the_templates_and_a_rows_own_win(tokenizer: Any) -> None:
    source = "{{ mood }}-{{ tone }}-{{ bos_token }}-{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizer_of: Any = Named("<bos>", "</s>")
    tokenizer_of.chat_template = source
    template = choose(job(chat_template_kwargs={"mood": "calm", "tone": "low"}), tokenizer_of, Path(), bos=False)
    assert template is not None
    said = [{"role": "user", "content": "x"}]
    assert template.render(tokenizer, said)[0].startswith("calm-low-")
    assert template.render(tokenizer, said, extra={"tone": "high"})[0].startswith("calm-high-")


def test_the_jobs_tools_are_for_conversations_without_any(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    given = job(chat_template="chatml", tools="tools.json").model_copy(update={"folder": tmp_path})
    template = choose(given, tokenizer, Path(), bos=False)
    assert template is not None
    other = [{"type": "function", "function": {"name": "other"}}]
    assert '"weather"' in template.render(tokenizer, TURNS)[0]
    text = template.render(tokenizer, TURNS, tools=other)[0]
    assert '"other"' in text
    assert '"weather"' not in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "was not found"),
        ("[", "is not JSON"),
        ("{}", "is not a list"),
        ("[]", "is empty"),
        ('[{"type": "function"}]', "has an entry without a name"),
        ('["weather"]', "has an entry that is not an object but a str"),
    ],
)
def test_tools_that_are_none_are_told_with_what_to_do(tokenizer: Any, tmp_path: Path, text: str, said: str) -> None:
    if text is not None:
        (tmp_path / "tools.json").write_text(text, encoding="utf-8")
    given = job(chat_template="chatml", tools="tools.json").model_copy(update={"folder": tmp_path})
    with pytest.raises(DataError, match=said) as caught:
        choose(given, tokenizer, Path(), bos=False)
    assert caught.value.do


# Templates by name.


def test_conversations_with_tools_are_rendered_by_the_template_tool_use(tokenizer: Any) -> None:
    tools = "{% if tools %}{{ tools | tojson }}{% endif %}"
    marked = tools + "{% for m in messages %}{% generation %}{{ m.content }}</s>{% endgeneration %}{% endfor %}"
    template = own({"default": CHATML, "tool_use": marked, "rag": "x"}, "of the model")
    assert template is not None
    said = [{"role": "assistant", "content": "hi"}]
    assert template.render(tokenizer, said) == ("<|im_start|>assistant\nhi<|im_end|>\n", [])
    assert template.render(tokenizer, said, tools=TOOLS)[0].endswith("]hi</s>")
    made = Renderer(tokenizer, template)
    rows = [Conversation(tuple(TURNS), 3, turns=True, tools=tools) for tools in (None, tuple(TOOLS))]
    plain, with_tools = made.render(rows)
    assert isinstance(plain, Rendered)
    assert isinstance(with_tools, Rendered)
    assert tokenizer.decode(plain.input_ids).startswith("<|im_start|>user\n Name")
    assert tokenizer.decode(with_tools.input_ids).endswith("] Name a colour. </s>red</s>And in 東京?</s>blue</s>")
    refusing = own({"default": CHATML, "tool_use": "{{ raise_exception('no') }}"}, "of the model")
    assert refusing is not None
    with pytest.raises(BadRow, match="the chat template tool_use of the model: no"):
        refusing.render(tokenizer, said, tools=TOOLS)


# The clock.


@pytest.fixture
def stopped() -> Iterator[None]:
    """Have the template's clock go on after a test."""
    yield
    clock.stop(CLOCK, None)


@pytest.mark.usefixtures("stopped")
def test_the_date_is_the_jobs_for_whoever_renders_the_template_in_this_process(tokenizer: Any) -> None:
    template = Template("t", CLOCK, "file", date="2024-02-29T23:59:58")
    said = [{"role": "user", "content": "x"}]
    assert template.render(tokenizer, said)[0].startswith("23:59:58.000000 29 Feb 2024|")
    # TRL's trainers, the exports' checks: they call the tokenizer.
    assert tokenizer.apply_chat_template(said, chat_template=CLOCK, tokenize=False).startswith("23:59:58.000000")
    with clock.going(CLOCK):
        assert f" {dates.date.today().year}|" in tokenizer.apply_chat_template(
            said, chat_template=CLOCK, tokenize=False
        )
    assert tokenizer.apply_chat_template(said, chat_template=CLOCK, tokenize=False).startswith("23:59:58.000000")
    assert not Template("t", CLOCK, "file").render(tokenizer, said)[0].startswith("23:59:58.000000")


def test_the_moment_of_now_is_in_whole_seconds() -> None:
    moment = dates.datetime.fromisoformat(clock.now())
    assert moment.microsecond == 0
    assert moment.tzinfo is None


# Refusals.


GEMMA_REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def test_a_refusal_names_a_template_that_writes_the_row_in_tokens_that_the_model_knows(tokenizer: Any) -> None:
    made = Renderer(tokenizer, Template("template.jinja", GEMMA_REFUSES, "file"))
    (bad,) = made.render([Conversation((SYSTEM, *TURNS), 4, turns=True)])
    assert isinstance(bad, BadRow)
    assert str(bad) == "is refused by the chat template template.jinja: System role not supported"
    assert bad.do == 'set chat_template = "chatml", which writes it, or set on_bad_row = "drop"'

    made = Renderer(tokenizer, Template("t", "{{ raise_exception('no') }}", "file"))
    odd = {"role": "user", "content": "x", "reasoning_content": "no template of forge writes a question's"}
    (bad,) = made.render([Conversation((odd, {"role": "assistant", "content": "y"}), 1, turns=True)])
    assert isinstance(bad, BadRow)
    assert bad.do == 'set chat_template to a .jinja file that writes it, or set on_bad_row = "drop"'

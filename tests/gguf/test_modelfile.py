"""Six conversations: what transformers, llama.cpp and the emitted Modelfile make of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import forge_huggingface
from forge.api import Job
from forge_gguf import modelfile
from forge_gguf.file import vocabulary
from forge_gguf.file.writer import write_vocabulary
from forge_gguf.llama.runtime import Generator
from forge_gguf.trial import verify
from forge_gguf.trial.texts import CONVERSATIONS, rendered
from forge_huggingface.generation.sampling import recommended
from forge_huggingface.rendering import clock
from support.doubles.gotemplate import render
from support.tiny import CHATML, make_tokenizer

OWN = Path(forge_huggingface.__file__).parent / "rendering" / "chat_templates"
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}"
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n'"
    " + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
COUNTS = "{% for message in messages %}{{ loop.index ~ ': ' ~ message['content'] ~ '\n' }}{% endfor %}>"
TEMPLATES = {
    "chatml": CHATML,
    "chatml with a default system message": DEFAULT_SYSTEM + CHATML,
    "llama 3": LLAMA3,
    "no system message": NO_SYSTEM,
    **{path.stem: path.read_text(encoding="utf-8") for path in sorted(OWN.glob("*.jinja"))},
}
IN_THE_FILE_ONLY = ("gemma",)
"""A system message goes into the first question here, which is more than writing something around each message."""


def tokenizer_of(folder: Path, template: str, **named: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tokenizer(folder, template=template, **named))


def source_of(tokenizer: Any, folder: Path) -> Any:
    """What a Modelfile needs of a source."""
    words = vocabulary.vocabulary(tokenizer, 400)
    config = {"max_position_embeddings": 512, "hidden_size": 32, "num_attention_heads": 4}
    told = {"tokenizer": tokenizer, "vocabulary": words, "variables": {}, "plain": False}
    return SimpleNamespace(name="tiny", config=config, base=folder, **told)


@pytest.mark.parametrize("name", TEMPLATES)
def test_six_conversations_are_rendered_alike_by_all_three(name: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", TEMPLATES[name], add_bos=name == "llama 3")
    source = source_of(tokenizer, tmp_path)
    write_vocabulary(tmp_path / "v.gguf", source.vocabulary.with_pre("gpt-2"))
    with Generator(tmp_path / "v.gguf", context=64) as generator:
        gate = verify.check_template(generator, tokenizer, {})
    assert gate.state == "pass", gate
    text = modelfile.modelfile(source, "tiny-q8_0.gguf", 128)
    assert ("TEMPLATE " in text) == (name not in IN_THE_FILE_ONLY)
    if name in IN_THE_FILE_ONLY:
        return
    template = (
        text.split('TEMPLATE """')[1].split('"""')[0] if '"""' in text else text.split('TEMPLATE "')[1].split('"\n')[0]
    )
    pairs = rendered(tokenizer, {})
    assert len(pairs) == (4 if name == "no system message" else 6)
    for messages, wanted in pairs:
        # llama.cpp puts the token that begins a text in front of the ids, so no template may write it.
        bos = tokenizer.bos_token if name == "llama 3" else ""
        assert render(template, list(messages)) == wanted.removeprefix(bos), messages


def test_a_template_that_counts_is_left_to_the_file(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", COUNTS)
    text = modelfile.modelfile(source_of(tokenizer, tmp_path), "tiny-q8_0.gguf", 128)
    assert "TEMPLATE" not in text
    assert "# The chat template does more" in text


def test_a_template_that_writes_the_date_is_left_to_the_file_and_compared_at_the_same_moment(tmp_path: Path) -> None:
    dated = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}" + CHATML
    tokenizer = tokenizer_of(tmp_path / "tokenizer", dated)
    clock.stop(dated, "2024-02-29T01:02:03")  # the run's; llama.cpp has a clock of its own
    try:
        assert rendered(tokenizer, {})[0][1].startswith("Today: 29 Feb 2024\n")
        source = source_of(tokenizer, tmp_path)
        assert "TEMPLATE" not in modelfile.modelfile(source, "tiny-q8_0.gguf", 128)
        write_vocabulary(tmp_path / "v.gguf", source.vocabulary.with_pre("gpt-2"))
        with Generator(tmp_path / "v.gguf", context=64) as generator:
            gate = verify.check_template(generator, tokenizer, {})
        assert gate.state == "pass", gate
        assert rendered(tokenizer, {})[0][1].startswith("Today: 29 Feb 2024\n")
    finally:
        clock.stop(dated, None)


def test_variables_of_the_job_are_the_templates_on_both_sides(tmp_path: Path) -> None:
    told = CHATML + "{% if add_generation_prompt and quiet %}<quiet>{% endif %}"
    tokenizer = tokenizer_of(tmp_path / "tokenizer", told)
    source = source_of(tokenizer, tmp_path)
    source.variables = {"quiet": True}
    write_vocabulary(tmp_path / "v.gguf", source.vocabulary.with_pre("gpt-2"))
    with Generator(tmp_path / "v.gguf", context=64) as generator:
        assert generator.render(CONVERSATIONS[0], source.variables).endswith("<quiet>")
        assert verify.check_template(generator, tokenizer, source.variables).state == "pass"
        assert not generator.render(CONVERSATIONS[0], {}).endswith("<quiet>")
    assert "<quiet>" in modelfile.modelfile(source, "tiny-q8_0.gguf", 128)


def test_templates_by_name_stand_in_the_file_as_llama_cpp_looks_for_them(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", CHATML)
    tokenizer.chat_template = {"default": CHATML, "tool_use": COUNTS, "my-own": "x"}
    keys = vocabulary.vocabulary(tokenizer, 400).keys()
    assert keys["tokenizer.chat_template"] == CHATML
    assert keys["tokenizer.chat_templates"] == ("tool_use", "my_own")
    assert (keys["tokenizer.chat_template.tool_use"], keys["tokenizer.chat_template.my_own"]) == (COUNTS, "x")
    alone = vocabulary.vocabulary(tokenizer_of(tmp_path / "one", CHATML), 400).keys()
    assert not [key for key in alone if key.startswith("tokenizer.chat_template") and key != "tokenizer.chat_template"]


def test_stops_and_length_come_from_the_tokenizer_and_the_job(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", CHATML)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "top_k": 20}')
    lines = modelfile.modelfile(source_of(tokenizer, tmp_path), "tiny-q8_0.gguf", 128).splitlines()
    assert "FROM ./tiny-q8_0.gguf" in lines
    assert 'PARAMETER stop "</s>"' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "PARAMETER num_ctx 512" in lines
    assert "PARAMETER temperature 0.6" in lines


def test_the_jobs_generation_goes_over_the_models_own(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", CHATML)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "top_k": 20}')
    asked = {
        "temperature": 0.3,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.5,
        "max_new_tokens": 200,
        "min_p": 0.1,
    }
    tables = {"model": {"id": "m"}, "data": {"path": "rows.jsonl"}, "generation": asked}
    values = recommended(Job.model_validate(tables), tmp_path, "llama", CHATML).values
    lines = modelfile.modelfile(source_of(tokenizer, tmp_path), "tiny-q8_0.gguf", 128, values).splitlines()
    told = dict(line.split()[1:] for line in lines if line.startswith("PARAMETER") and "stop" not in line)
    assert told == {
        "num_ctx": "512",
        "temperature": "0.3",
        "top_k": "20",
        "min_p": "0.1",
        "repeat_penalty": "1.2",
        "presence_penalty": "0.5",
        "repeat_last_n": "-1",
        "num_predict": "200",
    }


def test_greedy_answers_are_greedy_in_ollama(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", CHATML)
    (tmp_path / "generation_config.json").write_text('{"do_sample": false, "top_p": 0.9}')
    lines = modelfile.modelfile(source_of(tokenizer, tmp_path), "tiny-q8_0.gguf", 128).splitlines()
    assert "PARAMETER temperature 0.0" in lines
    assert not [line for line in lines if "top_p" in line]


def test_a_model_without_a_chat_template_goes_on_with_the_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", CHATML)
    tokenizer.chat_template = None
    lines = modelfile.modelfile(source_of(tokenizer, tmp_path), "tiny-q8_0.gguf", 128).splitlines()
    assert 'TEMPLATE "{{ .Prompt }}"' in lines, "Ollama would take one of its own"


def test_an_adapter_is_named_behind_its_base(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", CHATML)
    lines = modelfile.modelfile(source_of(tokenizer, tmp_path), "tiny-lora-f16.gguf", 128, adapter=True).splitlines()
    assert [line for line in lines if line.startswith(("FROM", "ADAPTER"))] == [
        "FROM ./BASE.gguf",
        "ADAPTER ./tiny-lora-f16.gguf",
    ]
    assert any(line.startswith("TEMPLATE") for line in lines), "the base's own may be another than that of the rows"


@pytest.mark.parametrize(
    ("name", "wanted"), [("Grüße 1", "Gruße-1"), ("☃", "model"), ("a" * 99, "a" * 80), ("-x.", "x")]
)
def test_ollama_takes_the_names_of_runs(name: str, wanted: str) -> None:
    assert modelfile.tag(name) == wanted.replace("ß", "")


def test_the_conversations_differ_in_what_templates_differ_in() -> None:
    roles = [tuple(each["role"] for each in conversation) for conversation in CONVERSATIONS]
    assert len(CONVERSATIONS) == 6
    assert sum("system" in each for each in roles) == 2
    assert max(map(len, roles)) == 5

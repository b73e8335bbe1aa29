"""Six conversations: what transformers, llama.cpp and the emitted Modelfile make of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import forge_huggingface
from forge_gguf import modelfile
from forge_gguf.file import vocabulary
from forge_gguf.file.writer import write_vocabulary
from forge_gguf.llama.runtime import Generator
from forge_gguf.trial import verify
from forge_gguf.trial.texts import CONVERSATIONS, rendered
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
    told = {"tokenizer": tokenizer, "vocabulary": words, "variables": {}}
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


def test_stops_and_length_come_from_the_tokenizer_and_the_job(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(tmp_path / "tokenizer", CHATML)
    (tmp_path / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "top_k": 20}')
    lines = modelfile.modelfile(source_of(tokenizer, tmp_path), "tiny-q8_0.gguf", 128).splitlines()
    assert "FROM ./tiny-q8_0.gguf" in lines
    assert 'PARAMETER stop "</s>"' in lines
    assert 'PARAMETER stop "<|im_end|>"' in lines
    assert "PARAMETER num_ctx 512" in lines
    assert "PARAMETER temperature 0.6" in lines


def test_the_conversations_differ_in_what_templates_differ_in() -> None:
    roles = [tuple(each["role"] for each in conversation) for conversation in CONVERSATIONS]
    assert len(CONVERSATIONS) == 6
    assert sum("system" in each for each in roles) == 2
    assert max(map(len, roles)) == 5

"""Tokenizers that llama.cpp reads in another way: what the run holds decides, and the rest is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Job
from forge_gguf.file import pretokenizer
from forge_gguf.file.vocabulary import vocabulary
from forge_gguf.file.writer import write_vocabulary
from forge_gguf.llama.runtime import Generator
from forge_gguf.trial.texts import CONVERSATIONS, corpus, ids_of, own_texts, text_of
from forge_gguf.trial.verify import Gate, check_tokens
from forge_huggingface.rendering import tokenizers
from support.tiny import CHATML
from support.tiny_gguf import make_pieces

if TYPE_CHECKING:
    from pathlib import Path

ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
INST = "{% for m in messages %}{{ '<s>[INST] ' + m['content'] + ' [/INST]' if m['role'] != 'assistant' else ' ' + m['content'] + '</s>' }}{% endfor %}"  # noqa: E501
PHI3 = ZEPHYR.replace("</s>", "<|end|>")
MARKS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")


def tried(folder: Path, *rows: str, **named: Any) -> tuple[Gate, Any]:
    """Return what the gate finds of a tokenizer's file, for rows of a run, and the vocabulary that was taken."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_pieces(folder / "tokenizer", **named))
    ids = [tokenizer(row, add_special_tokens=False)["input_ids"] for row in rows]
    texts, own = corpus(tokenizer), own_texts(tokenizer, ids, {})
    words = pretokenizer.fitted(tokenizer, vocabulary(tokenizer, 420), texts, own)
    write_vocabulary(folder / "v.gguf", words)
    with Generator(folder / "v.gguf", context=32) as generator:
        return check_tokens(generator, tokenizer, texts, (), own), words


def test_a_difference_on_strings_that_no_row_has_is_told_with_these(tmp_path: Path) -> None:
    gate, words = tried(tmp_path, "<|user|>\nred</s>\n<|assistant|>\nblue</s>\n", prefix="always", template=ZEPHYR)
    assert gate.state == "warn"
    assert gate.message.startswith("llama.cpp reads ")
    assert "strings in another way that none of 2 rows tried shows: ' a', '  a'" in gate.message
    assert words.adds["space_prefix"] is True


def test_a_difference_on_the_runs_rows_fails_the_file(tmp_path: Path) -> None:
    gate, _ = tried(tmp_path, "red</s>\nblue", prefix="first", template=None)
    assert gate.state == "fail"
    assert gate.message.startswith("1 of 1 rows of this run give other ids, 'red</s>\\nblue' first: it is split in")
    assert gate.values["own_different"] == 1


def test_where_every_row_begins_with_a_mark_no_space_is_put_in_front(tmp_path: Path) -> None:
    gate, words = tried(tmp_path, "<s>[INST] red [/INST] blue</s>", prefix="first", template=INST)
    assert gate.state == "warn"
    assert gate.values["own_different"] == 0
    assert words.adds["space_prefix"] is False


@pytest.mark.parametrize("endoftext", [True, False])
def test_marks_that_strip_are_told_by_the_only_key_that_tells_them(endoftext: bool, tmp_path: Path) -> None:
    marks = (*MARKS, "<|endoftext|>") if endoftext else MARKS
    gate, words = tried(tmp_path, "<|user|>\nred<|end|>\n<|assistant|>\nblue<|end|>\n", template=PHI3, stripping=marks)
    assert words.keys()["general.name"] == "Phi-3, trained with forge"
    assert gate.values["own_different"] == 0, gate.message
    assert "<|user|>" not in gate.message
    assert words.tokens.count("<|endoftext|>") == 1, "llama.cpp cannot load a file of that name without it"


@pytest.mark.parametrize("written", [True, False])
def test_a_conversation_begins_in_llama_cpp_as_the_runs_rows_do(written: bool, tmp_path: Path) -> None:
    """llama.cpp puts the tokenizer's first token in front of it, whether the chat template writes it or not."""
    from transformers import AutoTokenizer

    template = "<s>" + CHATML if written else CHATML
    tokenizer = AutoTokenizer.from_pretrained(make_pieces(tmp_path / "tokenizer", template=template))
    assert tokenizer("red")["input_ids"][0] == tokenizer.bos_token_id
    asked = list(CONVERSATIONS[0])
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    words = vocabulary(tokenizer, 420).begun([ids])
    assert words.bare is not written
    write_vocabulary(tmp_path / "v.gguf", words)
    with Generator(tmp_path / "v.gguf", context=64) as generator:
        assert generator.tokens(generator.render(asked, {}), special=True) == ids
        assert check_tokens(generator, tokenizer, corpus(tokenizer), (), [], bare=words.bare).state == "pass"


def test_without_rows_every_string_decides(tmp_path: Path) -> None:
    gate, _ = tried(tmp_path, prefix="always", template=None)
    assert gate.state == "fail"


def test_a_row_is_the_text_that_it_was_made_of(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    for prefix in ("always", "first", None):
        tokenizer = AutoTokenizer.from_pretrained(make_pieces(tmp_path / str(prefix), prefix=prefix))
        for text in ("red</s>\nblue", "<s>red <|im_end|> blue", "<s><s>red</s></s>"):
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            assert tokenizer(text_of(tokenizer, ids), add_special_tokens=False)["input_ids"] == ids
    assert text_of(tokenizer, [*tokenizer("é")["input_ids"][:-1]]) is None, "half a letter"


def test_rows_of_every_method_have_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_pieces(tmp_path))
    assert ids_of({"input_ids": [1, 2]}, tokenizer, {}) == [1, 2]
    assert ids_of({"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}, tokenizer, {}) == [1, 2]
    assert ids_of({"prompt_ids": [1], "completion_ids": [2], "label": True}, tokenizer, {}) == [1, 2]
    assert ids_of({"prompt": "red"}, tokenizer, {}) == tokenizer("red")["input_ids"]
    asked = [{"role": "user", "content": "red"}]
    wanted = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids_of({"prompt": asked}, tokenizer, {}) == wanted


@pytest.mark.parametrize("legacy", [True, False])
def test_llamas_tokenizer_reads_the_same_once_it_was_saved(legacy: bool, tmp_path: Path) -> None:
    """transformers 5 saves it without ``legacy``, and reads what it saved without a space behind marks."""
    make_pieces(tmp_path / "own", template=CHATML)
    path = tmp_path / "own" / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"tokenizer_class": "LlamaTokenizer", "legacy": legacy}), encoding="utf-8")
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "rows.jsonl"}})
    first = tokenizers.load(job, tmp_path / "own")
    assert first.legacy is legacy
    first.save_pretrained(tmp_path / "saved")
    again = tokenizers.load(job, tmp_path / "saved")
    text = "<s>red</s>\nblue"
    assert again(text)["input_ids"] == first(text)["input_ids"]

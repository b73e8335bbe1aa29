"""How a model is meant to answer: who wins, where it is written, and what is sent to transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Sampling
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.job.job import load_job
from forge.job.read import parse
from forge_huggingface.generation.sampling import complete_config, families, family, generation_config, recommended
from support.evaluating import exported
from support.projects import Project, json_of

if TYPE_CHECKING:
    from forge.job.job import Job

GROUP = "{% if enable_thinking %}<think>{% endif %}"


def job(name: str = "org/name", **generation: Any) -> Job:
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in generation.items())
    text = f'[model]\nid = "{name}"\n[data]\npath = "d.jsonl"\n[generation]\n{lines}\n'
    return parse(text, "job.toml", Path(), PluginKeys(discover({}))).job


@pytest.mark.parametrize(
    ("model_type", "name", "template", "expected", "values"),
    [
        (
            "lfm2",
            "LiquidAI/LFM2.5-1.2B-Instruct",
            None,
            "LFM2.5",
            {"temperature": 0.1, "top_k": 50, "top_p": 0.1, "repetition_penalty": 1.05},
        ),
        (
            "lfm2",
            "LiquidAI/LFM2.5-1.2B-Thinking",
            None,
            "LFM2.5 thinking",
            {"temperature": 0.05, "top_k": 50, "repetition_penalty": 1.05},
        ),
        ("lfm2", "LiquidAI/LFM2-1.2B", None, "LFM2", {"temperature": 0.3, "min_p": 0.15, "repetition_penalty": 1.05}),
        (
            "qwen3_vl",
            "Qwen/Qwen3-VL-4B-Instruct",
            None,
            "Qwen3-VL",
            {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "presence_penalty": 1.5},
        ),
        (
            "qwen3_vl",
            "Qwen/Qwen3-VL-4B-Thinking",
            None,
            "Qwen3-VL thinking",
            {"temperature": 1.0, "top_p": 0.95, "top_k": 20, "presence_penalty": 0.0},
        ),
        (
            "qwen3",
            "Qwen/Qwen3-8B",
            GROUP,
            "Qwen3 thinking",
            {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.0},
        ),
        (
            "qwen3",
            "Qwen/Qwen3-4B-Instruct-2507",
            None,
            "Qwen3",
            {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "min_p": 0.0},
        ),
        ("gemma3_text", "google/gemma-3-1b-it", None, "Gemma 3", {"temperature": 1.0, "top_k": 64, "top_p": 0.95}),
        ("llama", "meta-llama/Llama-3.2-1B-Instruct", None, "Llama 3", {"temperature": 0.6, "top_p": 0.9}),
        ("llama", "HuggingFaceTB/SmolLM2-135M-Instruct", None, "SmolLM2", {"temperature": 0.2, "top_p": 0.9}),
        ("llama", "somebody/else", None, None, {}),
        ("gpt2", "org/name", None, None, {}),
    ],
)
def test_a_family_is_known_by_its_type_and_name(
    model_type: str, name: str, template: str | None, expected: str | None, values: dict[str, Any]
) -> None:
    found = family(model_type, name, template)
    assert (found.name if found else None) == expected
    assert (dict(found.sampling) if found else {}) == values


def test_every_family_names_its_source_and_holds_only_known_keys() -> None:
    for each in families():
        assert each.source.startswith("https://")
        Sampling(**each.sampling)


def test_the_job_wins_over_the_model_and_the_model_over_its_family(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.4, "top_k": 7}))
    found = recommended(job("meta-llama/Llama-3.1-8B", top_k=3), tmp_path, "llama", None)
    assert found.sampling() == Sampling(temperature=0.4, top_p=0.9, top_k=3)
    assert found.advice == (
        "[generation] of the job, then the model's generation_config.json, then what is recommended for Llama 3"
    )


def test_a_model_of_which_nothing_is_known_answers_greedily(tmp_path: Path) -> None:
    found = recommended(job(), tmp_path, "llama", None)
    assert found.sampling() == Sampling()
    assert found.advice == "greedy, since nothing is recommended"


def test_a_model_that_says_do_sample_false_is_greedy(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": False, "top_p": 0.3}))
    assert recommended(job("meta-llama/Llama-3.1-8B"), tmp_path, "llama", None).sampling().temperature == 0
    (tmp_path / "generation_config.json").write_text(json.dumps({"do_sample": True}))
    assert recommended(job(), tmp_path, "llama", None).sampling().temperature == 1


def test_nothing_of_the_models_own_file_slips_into_greedy_answers(tmp_path: Path) -> None:
    config = generation_config(Sampling(max_new_tokens=4), stops=[2, 5], pad=0, bos=1)
    assert (config.do_sample, config.repetition_penalty, config.eos_token_id) == (False, 1.0, [2, 5])
    config.save_pretrained(tmp_path)  # transformers refuses contradictions here


@pytest.mark.parametrize(
    ("own", "generation", "written"),
    [
        ({"eos_token_id": 2}, {}, {"eos_token_id": 2, "do_sample": True, "temperature": 0.6, "top_p": 0.9}),
        ({"do_sample": True, "temperature": 1.0}, {}, {"do_sample": True, "temperature": 1.0, "top_p": 0.9}),
        (
            {"do_sample": True, "temperature": 1.0, "top_p": 0.5},
            {"temperature": 0.0, "repetition_penalty": 1.1},
            {"do_sample": False, "repetition_penalty": 1.1},
        ),
        (
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
            {},
            {"do_sample": True, "temperature": 0.6, "top_p": 0.9},
        ),
    ],
)
def test_an_export_keeps_the_models_own_values_and_gets_what_it_lacks(
    tmp_path: Path, own: dict[str, Any], generation: dict[str, Any], written: dict[str, Any]
) -> None:
    from transformers import GenerationConfig

    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    found = recommended(job("meta-llama/Llama-3.1-8B", **generation), tmp_path, "llama", None)
    report = complete_config(tmp_path, found, ())
    assert json_of(tmp_path / "generation_config.json") == written
    assert set(report["added"]) <= {*found.family, *generation}
    GenerationConfig.from_pretrained(tmp_path).save_pretrained(tmp_path)


def test_an_export_stops_where_its_answers_end(tmp_path: Path) -> None:
    found = recommended(job("some/model"), tmp_path, "gpt2", None)
    report = complete_config(tmp_path, found, {4, 2})
    assert (report["added"], json_of(tmp_path / "generation_config.json")) == ({"eos_token_id": [2, 4]},) * 2
    own = {"eos_token_id": [9, 4, 2], "do_sample": False, "max_length": 20}
    (tmp_path / "generation_config.json").write_text(json.dumps(own))
    assert complete_config(tmp_path, found, {4, 2})["added"] == {}
    assert json_of(tmp_path / "generation_config.json") == own


def test_what_the_file_cannot_hold_is_reported(tmp_path: Path) -> None:
    report = complete_config(tmp_path, recommended(job("Qwen/Qwen3-VL-4B-Instruct"), tmp_path, "qwen3_vl", None), ())
    assert report["left_out"] == ["presence_penalty"]
    assert "presence_penalty" not in json_of(tmp_path / "generation_config.json")


def test_exports_say_how_to_answer(project: Project) -> None:
    from transformers import AutoModelForCausalLM

    project.write(generation={"temperature": 0.3, "top_k": 9}, export=[{"format": "merged"}, {"format": "adapter"}])
    done = project.perform()
    assert done.code == 0, done.printed
    assert [exported(done, index).code for index in range(2)] == [0, 0]
    exports = done.folder.path / "exports"
    for name in ("1-merged", "2-adapter"):
        config = json_of(exports / name / "generation_config.json")
        assert (config["do_sample"], config["temperature"], config["top_k"]) == (True, 0.3, 9)
        report = json_of(exports / name / "export.json")["report"]["generation_config"]
        assert report["added"] == {"temperature": 0.3, "top_k": 9, "eos_token_id": [2, 4]}
        assert report["from"] == "[generation] of the job"
        assert config["eos_token_id"] == [2, 4], "its answers end with <|im_end|>, and the base stops at </s> alone"
    model = AutoModelForCausalLM.from_pretrained(exports / "1-merged")
    assert model.generation_config.temperature == 0.3
    assert load_job(done.folder.plan().job).generation.top_k == 9

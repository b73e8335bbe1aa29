"""The guide's own bodies, word for word: what each becomes, and what is refused in the guide's words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge_serve.web.bodies import checked
from forge_serve.web.guide import KEYS, Training, job_of, without_comments

if TYPE_CHECKING:
    from support.serving import Served

CURL = """{
    "provider": "unsloth",
    "model_name": "meta-llama/Llama-3.2-3B",
    "max_seq_length": 2048,
    "task": "text-generation",
    "strategy": "sft",
    "dataset": "/path/to/dataset.jsonl",
    "num_train_epochs": 3
  }"""

BASIC = """{
  "provider": "unsloth",
  "model_name": "meta-llama/Llama-3.2-3B",
  "max_seq_length": 2048,
  "task": "text-generation",
  "strategy": "sft",
  "num_train_epochs": 3,
  "lora_r": 16,
  "lora_alpha": 32
}"""

OPTIMAL = """{
  "provider": "unsloth",
  "model_name": "meta-llama/Llama-3.2-3B",
  "max_seq_length": 2048,
  "strategy": "qlora",
  "use_4bit": true,
  "bf16": true,
  "gradient_checkpointing": true,
  "per_device_train_batch_size": 8,
  "gradient_accumulation_steps": 4,
  "lora_r": 64,
  "lora_alpha": 16,
  "lora_dropout": 0.1
}"""

PARTS = [
    """{
  "provider": "unsloth",
  "max_seq_length": 2048  // \u2705 Fixed value
}""",
    """{
  "provider": "unsloth",
  "max_seq_length": 1024,  // Reduce sequence length
  "per_device_train_batch_size": 2,
  "gradient_accumulation_steps": 8,
  "gradient_checkpointing": true,
  "use_4bit": true
}""",
    """{
  "provider": "unsloth",
  "max_seq_length": 2048,
  "per_device_train_batch_size": 16,
  "gradient_accumulation_steps": 1,
  "bf16": true,
  "optim": "adamw_8bit"
}""",
    """{
  "provider": "unsloth",
  "target_modules": [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj"
  ]
}""",
    """{
  "provider": "unsloth",
  "gradient_checkpointing": true  // Automatically optimized
}""",
    """{
  "max_seq_length": 2048
}""",
    """{
  "provider": "huggingface"
}""",
]

INVALID = """{
  "provider": "unsloth",
  "max_seq_length": -1  // \u274c NOT supported
}"""

ELSEWHERE = [
    """{
  "provider": "huggingface",
  "model_name": "meta-llama/Llama-3.2-3B",
  ...
}"""
]


def read(text: str, **more: Any) -> Training:
    """Return a body of the guide's, with what it leaves out."""
    return checked({**json.loads(without_comments(text)), **more}, Training)


def test_the_guides_call_becomes_a_job() -> None:
    tables, notes = job_of(read(CURL))
    assert tables == {
        "use": {"backend": "unsloth"},
        "model": {"id": "meta-llama/Llama-3.2-3B", "max_seq_length": 2048},
        "data": {"path": "/path/to/dataset.jsonl"},
        "train": {"method": "sft", "num_train_epochs": 3.0},
    }
    assert notes == ["the model is loaded unquantised, as use_4bit was not asked for"]


def test_each_example_of_the_guide_is_read_with_what_it_leaves_out() -> None:
    basic, _ = job_of(read(BASIC, dataset="rows.jsonl"))
    assert basic["adapter"] == {"r": 16, "lora_alpha": 32}
    optimal, notes = job_of(read(OPTIMAL, dataset="rows.jsonl"))
    assert optimal["model"]["load_in_4bit"] is True
    assert optimal["train"]["method"] == "sft"
    assert optimal["train"]["bf16"] is True
    assert optimal["adapter"] == {"r": 64, "lora_alpha": 16, "lora_dropout": 0.1}
    assert notes == []
    for text in PARTS:
        more = {"model_name": "org/name", "dataset": "rows.jsonl"}
        given = {**json.loads(without_comments(text)), **more}
        tables, _ = job_of(checked({"max_seq_length": 2048, **given}, Training))
        for name in given.keys() - {"provider", "strategy"}:
            table, _, key = KEYS[name].partition(".")
            assert tables[table][key] == given[name]


@pytest.mark.parametrize("text", [BASIC, OPTIMAL, *PARTS, INVALID])
def test_what_an_example_leaves_out_is_asked_for_by_name(served: Served, text: str) -> None:
    found = served.call("POST", "/api/start_training", text.encode())
    assert found.status == 422
    asked = {each["where"]: each["message"] for each in found.json["problems"]}
    given = json.loads(without_comments(text))
    assert asked == dict.fromkeys({"model_name", "dataset"} - given.keys(), "is missing")
    assert served.get("/api/v1/queue")["entries"] == []


@pytest.mark.parametrize("text", ELSEWHERE)
def test_an_example_that_is_cut_short_is_told_as_such(served: Served, text: str) -> None:
    found = served.call("POST", "/api/start_training", text.encode())
    assert found.status == 400
    assert "line 4" in found.json["detail"]


def test_a_length_that_is_left_open_is_refused_with_unsloth_in_the_guides_words(served: Served) -> None:
    body = {**json.loads(CURL), "max_seq_length": -1}
    found = served.post("/api/start_training", body, 422)
    (problem,) = found["problems"]
    assert problem["where"] == "max_seq_length"
    assert problem["message"] == "cannot be -1: auto-inference is not supported with unsloth"
    assert problem["hint"].startswith("Set a fixed value: 2048")
    del body["max_seq_length"]
    (problem,) = served.post("/api/start_training", body, 422)["problems"]
    assert "you must specify a fixed one" in problem["message"]
    tables, _ = job_of(read(CURL, provider="huggingface", max_seq_length=-1))
    assert tables["model"]["max_seq_length"] == -1
    assert served.get("/api/v1/queue")["entries"] == []


def test_rlhf_is_refused_with_the_reason(served: Served) -> None:
    (problem,) = served.post("/api/start_training", {**json.loads(CURL), "strategy": "rlhf"}, 422)["problems"]
    assert problem["where"] == "strategy"
    assert "no field for a reward" in problem["message"]


def test_the_guides_call_is_held_to_the_roots_and_speaks_of_its_own_fields(served: Served) -> None:
    found = served.post("/api/start_training", {**json.loads(CURL), "model_name": "/etc/model", "bf16": True}, 422)
    asked = {each["where"]: each["message"] for each in found["problems"]}
    assert asked["model_name"].startswith("leads to /etc/model, outside of the folders")
    code = served.post("/api/start_training", {**json.loads(CURL), "dataset": "./rows.py", "model_name": "model"}, 422)
    assert code["problems"][0]["where"] == "dataset"


def test_a_backend_that_is_not_there_is_told_as_forge_tells_it(served: Served) -> None:
    body = {**json.loads(CURL), "model_name": "model", "dataset": "rows.jsonl", "max_seq_length": 128}
    found = served.post("/api/start_training", body, 422)
    assert "unsloth" in found["detail"]
    assert found["error"]["type"] == "PlanError"


@pytest.mark.parametrize(
    ("more", "where", "hint"),
    [
        ({"model_nam": "x"}, "model_nam", "model_name"),
        ({"provider": "mlx"}, "provider", None),
        ({"num_train_epochs": "3"}, "num_train_epochs", None),
        ({"eval_split": 1.5}, "eval_split", None),
        ({"bnb_4bit_quant_type": "fp4"}, "bnb_4bit_quant_type", None),
    ],
)
def test_a_field_that_is_wrong_is_told(served: Served, more: dict[str, Any], where: str, hint: str | None) -> None:
    found = served.post("/api/start_training", {**json.loads(CURL), **more}, 422)
    (problem,) = (each for each in found["problems"] if each["where"] == where)
    assert hint is None or hint in problem["hint"]


def test_what_is_taken_and_not_used_is_noted() -> None:
    tables, notes = job_of(read(CURL, compute_specs="high", task="extractive-question-answering", use_4bit=False))
    assert len(notes) == 2
    assert tables["model"]["load_in_4bit"] is False


def test_evaluations_and_the_order_of_rows_are_asked_for_in_forges_keys() -> None:
    asked = read(CURL, eval_split=0.2, eval_steps=50, group_by_length=True, warmup_ratio=0.03, max_steps=-1)
    tables, _ = job_of(asked)
    assert tables["data"]["eval_size"] == 0.2
    assert tables["train"]["eval_strategy"] == "steps"
    assert tables["train"]["train_sampling_strategy"] == "group_by_length"
    assert tables["train"]["warmup_steps"] == 0.03
    assert "max_steps" not in tables["train"]


def test_every_field_is_a_key_of_a_job_or_is_explained() -> None:
    explained = {"task", "compute_specs", "bnb_4bit_quant_type", "use_nested_quant"}
    assert set(Training.model_fields) == set(KEYS) | explained


def test_nothing_trained_yet_is_idle(served: Served) -> None:
    assert served.get("/api/status")["status"] in {"idle", "completed"}

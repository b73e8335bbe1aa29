"""Tokens that a job adds: their rows alone are trained beside LoRA, and every way back to the model has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli
import torch
from safetensors.torch import load_file

from forge.errors import JobError
from support.projects import Finished, Project, json_of
from support.resuming import parted
from support.rows import pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Rows = Callable[[Sequence[Any]], None]

TOOLS = ["<tool>", "</tool>"]
NEW = [400, 401]
"""The ids that they get: the tiny model has 400 tokens."""


def called(count: int = 16) -> list[dict[str, Any]]:
    return [{"prompt": f"Add {n} and 1.", "completion": f"<tool>add({n}, 1)</tool> {n + 1}"} for n in range(count)]


def tie(project: Project) -> None:
    """Make the output layer of a project's model its embedding."""
    from transformers import AutoModelForCausalLM

    folder = project.folder / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(folder)


def plain(done: Finished, rows: Path) -> list[float]:
    """Return the losses of a plain script: tokens added, embeddings resized, rows trained as peft does it."""
    from datasets import load_dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text())
    tokenizer = AutoTokenizer.from_pretrained(lock["model"]["id"])
    model = AutoModelForCausalLM.from_pretrained(lock["model"]["id"], dtype=torch.float32)
    tokenizer.add_tokens(TOOLS)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    layers = [model.get_input_embeddings()]
    layers += [] if model.config.tie_word_embeddings else [model.get_output_embeddings()]
    for layer in layers:
        layer.weight.data[NEW] = layer.weight.data[:400].mean(dim=0, dtype=torch.float64).float()
    names = ["embed_tokens", "lm_head"][: len(layers)]
    known = SFTConfig.__dataclass_fields__.keys() - {"output_dir"}
    values = {key: value for key, value in lock["train"].items() if key in known}
    values |= {"max_length": lock["model"]["max_seq_length"], "report_to": "none", "use_cpu": True}
    if lock["adapter"]["type"] == "lora":
        modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        tokens = dict.fromkeys(names, NEW)
        lora = LoraConfig(
            r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM", trainable_token_indices=tokens
        )
        set_seed(42)
        model = get_peft_model(model, lora)
        model.get_output_embeddings().bias = None  # which TRL 1.16 asks peft's wrapper for
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(done.folder.path / "plain"), **values),
        train_dataset=load_dataset("json", data_files=str(rows), split="train"),
        processing_class=tokenizer,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "none"])
@pytest.mark.parametrize("tied", [False, True])
def test_losses_are_those_of_peft_and_trl_digit_for_digit(project: Project, rows: Rows, kind: str, tied: bool) -> None:
    rows(called())
    if tied:
        tie(project)
    table = {"type": "none", "r": None, "lora_alpha": None} if kind == "none" else {}
    project.write(model={"add_tokens": TOOLS}, adapter=table)
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.losses == plain(done, project.folder / "rows.jsonl")


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(torch.tensor([ids])).logits[0]
    return found


def with_rows(folder: Path, done: Finished) -> Any:
    """Return the base with its new rows and the trained adapter on it, as anybody would load it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adapter = done.folder.path / "adapter"
    base.resize_token_embeddings(len(AutoTokenizer.from_pretrained(adapter)))
    return PeftModel.from_pretrained(base, adapter)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_every_way_back_to_the_model_gives_the_same_logits(project: Project, rows: Rows, tied: bool) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    rows(called())
    if tied:
        tie(project)
    exports = [{"format": "adapter"}, {"format": "merged"}, {"format": "gguf", "types": ["f16"]}]
    evaluation = {"path": "rows.jsonl", "max_rows": 2, "max_new_tokens": 4}
    project.write(model={"add_tokens": TOOLS}, export=exports, eval=evaluation)
    project.forge("run", "job.toml")
    folder = project.newest().path
    ids = AutoTokenizer.from_pretrained(folder / "adapter")("Add 1: <tool>x</tool> 2")["input_ids"]
    assert set(NEW) < set(ids)
    trained = with_rows(project.folder / "model", Finished(0, project.newest(), ""))
    expected = logits(trained, ids)
    merged = AutoModelForCausalLM.from_pretrained(folder / "exports" / "2-merged", dtype=torch.float32)
    assert merged.config.vocab_size == 402
    assert torch.allclose(logits(merged, ids), expected, atol=1e-5)
    # The run's own base has the rows as they began; training has moved each of them.
    begun = load_file(folder / "base" / "model.safetensors")["model.embed_tokens.weight"]
    now = merged.get_input_embeddings().weight.detach()
    assert torch.equal(begun[:400], now[:400])
    assert not (begun[400:] == now[400:]).all(dim=1).any()
    head = merged.get_output_embeddings().weight.detach()
    assert torch.equal(head, now) is tied
    assert json_of(folder / "evaluation.json")["metrics"]
    assert (folder / "exports" / "3-gguf" / "verified.json").is_file()


@pytest.mark.slow
def test_a_run_with_new_tokens_goes_on_exactly(project: Project, rows: Rows) -> None:
    rows(called())
    project.write(model={"add_tokens": TOOLS})
    assert [*parted(project, only=frozenset({2}))] == [(2, [])]


@pytest.mark.slow
def test_what_goes_on_from_an_adapter_has_its_tokens(project: Project, rows: Rows) -> None:
    rows(called())
    special, named = [TOOLS[1], "<fill>"], {"eos_token": TOOLS[1], "pad_token": "<fill>"}
    project.write(model={"add_tokens": TOOLS[:1], "add_special_tokens": special, **named})
    first = project.perform()
    assert first.code == 0, first.printed
    rows(pairs())
    adapter = {"r": None, "lora_alpha": None, "from": str(first.folder.path)}
    project.write(adapter=adapter, train={"method": "dpo", "learning_rate": 0.0, "max_steps": 1, "save_steps": 1})
    second = project.perform()
    assert second.code == 0, second.printed
    model = tomli.loads((second.folder.path / "job.lock.toml").read_text())["model"]
    assert (model["add_tokens"], model["add_special_tokens"]) == (TOOLS[:1], special)
    assert {name: model.get(name) for name in named} == named
    before, after = (load_file(each.folder.path / "adapter" / "adapter_model.safetensors") for each in (first, second))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert second.of_kind("step")[0]["loss"] == pytest.approx(0.6931, abs=1e-4)
    project.write(adapter=adapter, model={"add_tokens": ["<other>"]}, train={"method": "dpo"})
    with pytest.raises(JobError, match="has rows of other tokens"):
        project.prepare()

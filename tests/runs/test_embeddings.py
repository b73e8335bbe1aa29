"""Embeddings beside LoRA: adapted themselves, or trained whole, tied to the output layer or not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli
import torch
from safetensors.torch import load_file

from forge.errors import JobError, PlanError
from support.projects import Finished, Project
from support.resuming import parted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Rows = Callable[[Sequence[Any]], None]

TARGETS = ["q_proj", "v_proj", "embed_tokens"]
EXPORTS = [{"format": "merged"}, {"format": "gguf", "types": ["f16"]}]


def tie(project: Project) -> None:
    """Make the output layer of a project's model its embedding."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(project.folder / "model")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(project.folder / "model")


def plain(done: Finished, rows: Path, **lora: Any) -> list[float]:
    """Return the losses of TRL's own trainer with this LoRA of peft."""
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer

    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text())
    known = SFTConfig.__dataclass_fields__.keys() - {"output_dir"}
    values = {key: value for key, value in lock["train"].items() if key in known}
    values |= {"max_length": lock["model"]["max_seq_length"], "report_to": "none", "use_cpu": True}
    model = AutoModelForCausalLM.from_pretrained(lock["model"]["id"], dtype=torch.float32)
    set_seed(42)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(done.folder.path / "plain"), **values),
        train_dataset=load_dataset("json", data_files=str(rows), split="train"),
        processing_class=AutoTokenizer.from_pretrained(lock["model"]["id"]),
        peft_config=LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **lora),
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.slow
def test_lora_on_an_embedding_is_pefts_and_every_export_has_it(project: Project, rows: Rows) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    rows([{"prompt": f"{number} and one is", "completion": f" {number + 1}."} for number in range(16)])
    project.write(adapter={"target_modules": TARGETS}, export=EXPORTS)
    project.forge("run", "job.toml")
    done = Finished(0, project.newest(), "")
    assert done.losses == plain(done, project.folder / "rows.jsonl", target_modules=TARGETS)
    folder = done.folder.path
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert all(".lora_" in name for name in saved)  # no copy of the frozen embedding
    assert sum("embedding" in name for name in saved) == 2
    trained = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(project.folder / "model"), folder / "adapter"
    )
    merged = AutoModelForCausalLM.from_pretrained(folder / "exports" / "1-merged")
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, trained.eval()(ids).logits, atol=1e-5)
    assert (folder / "exports" / "2-gguf" / "verified.json").is_file()
    project.write(adapter={"target_modules": TARGETS})
    assert [*parted(project, only=frozenset({2}))] == [(2, [])]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # of the plain script
@pytest.mark.parametrize("together", [True, False])
def test_a_tied_embedding_is_trained_whole_as_one_or_apart(project: Project, rows: Rows, together: bool) -> None:
    rows([{"prompt": f"{number} and one is", "completion": f" {number + 1}."} for number in range(16)])
    tie(project)
    lora = {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": together}
    project.write(adapter=lora, export=EXPORTS[: 1 + together])
    project.forge("run", "job.toml")
    done = Finished(0, project.newest(), "")
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert done.losses == plain(done, project.folder / "rows.jsonl", target_modules=targets, **lora)
    merged = load_file(done.folder.path / "exports" / "1-merged" / "model.safetensors")
    before = load_file(project.folder / "model" / "model.safetensors")
    head = merged.get("lm_head.weight", merged["model.embed_tokens.weight"])
    assert torch.equal(head, before["model.embed_tokens.weight"]) is not together
    assert torch.equal(head, merged["model.embed_tokens.weight"]) is together


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ({"target_modules": ["embed_tokens"], "use_dora": True}, "has neither lengths nor another beginning"),
        ({"target_modules": ["embed_tokens"], "init_lora_weights": "pissa"}, "another beginning"),
        ({"ensure_weight_tying": True}, "ensure_weight_tying does nothing"),
    ],
)
def test_what_embeddings_cannot_have_is_refused_when_planned(
    project: Project, adapter: dict[str, Any], words: str
) -> None:
    project.write(adapter=adapter)
    with pytest.raises((JobError, PlanError)) as caught:
        project.prepare()
    assert words in str(caught.value)


def test_a_tied_embedding_has_no_lora_and_no_gguf_apart(project: Project) -> None:
    tie(project)
    project.write(adapter={"target_modules": ["q_proj", "embed_tokens"]})
    with pytest.raises(PlanError, match="it is an embedding that is the output layer too"):
        project.prepare()
    project.write(adapter={"modules_to_save": ["lm_head"]}, export=[{"format": "gguf"}])
    with pytest.raises(PlanError, match="write \\[adapter\\] ensure_weight_tying = true"):
        project.prepare()

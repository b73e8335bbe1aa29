"""A model that two processes hold a half of each trains as in one process, and leaves the same weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from runs.test_methods_together import FULL, hold_alike, together
from safetensors.torch import load_file

from forge.disk.events import read_events
from support.projects import Project, merged
from support.rows import pairs
from support.tiny import make_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from forge.disk.folder import RunFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="several processes are looked for in /proc")

SHARDED = ("--set", "launch.processes=2", "--set", "launch.shard=full")
slow = pytest.mark.slow


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    """Return what was trained."""
    trained = folder.trained()
    assert trained is not None
    return {
        name: value
        for file in (folder.path / trained.weights).glob("*.safetensors")
        for name, value in load_file(file).items()
    }


CASES = {
    "lora": {},
    "full": {"adapter": FULL},
    "full-kernels": {"adapter": FULL, "train": {"kernels": ["swiglu", "norm", "rope", "mask"]}},
    "recomputed-kernels": {
        "adapter": FULL,
        "train": {"kernels": ["swiglu", "norm", "rope"], "gradient_checkpointing": True},
    },
    "packed": {"data": {"packing": True}},
    "held-out": {
        "data": {"eval_size": 5},
        "train": {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 2},
    },
    "best": {
        "data": {"eval_size": 5},
        "train": {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True},
    },
    "recomputed": {"adapter": FULL, "train": {"gradient_checkpointing": True}},
    "dpo": {"train": {"method": "dpo"}},
    "dpo-full": {"train": {"method": "dpo"}, "adapter": FULL},
    "dpo-precomputed": {"train": {"method": "dpo", "precompute_ref_log_probs": True}, "adapter": FULL},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name == "lora" else slow) for name in CASES])
def test_a_sharded_training_is_the_same_and_leaves_the_same_weights(
    project: Project, rows: Callable[[Sequence[Any]], None], name: str
) -> None:
    if "dpo" in name:
        rows(pairs(16))
    elif "eval_size" in CASES[name].get("data", {}):
        make_rows(project.folder / "rows.jsonl", 17)  # twelve are left to train on, which two processes share evenly
    project.write(**merged({"train": {"gradient_accumulation_steps": 2}}, CASES[name]))
    one = together(project)
    first = weights(project.newest())
    hold_alike(one, together(project, *SHARDED, FORGE_TESTS_SHARD="1"))
    second = weights(project.newest())
    assert {key: (value.dtype, value.shape) for key, value in first.items()} == {
        key: (value.dtype, value.shape) for key, value in second.items()
    }
    assert max(float((first[key] - second[key]).abs().max()) for key in first) < 1e-6


@slow
def test_a_tied_output_layer_is_written_once(project: Project) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    tied = AutoModelForCausalLM.from_pretrained(project.folder / "model")
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    tied.save_pretrained(project.folder / "model")
    project.write(adapter=FULL, train={"gradient_accumulation_steps": 2})
    together(project)
    first = weights(project.newest())
    together(project, *SHARDED, FORGE_TESTS_SHARD="1")
    second = weights(project.newest())
    assert first.keys() == second.keys()
    assert "lm_head.weight" not in second


@slow
@pytest.mark.gpu
@pytest.mark.parametrize("name", ["lora", "full", "full-kernels", "packed", "recomputed", "dpo-full"])
def test_weights_go_through_main_memory_to_the_gpus_that_hold_parts(
    project: Project, rows: Callable[[Sequence[Any]], None], name: str
) -> None:
    """That they have no room for all of them is pretended; DPO reads onto the GPUs all the same."""
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    if "dpo" in name:
        rows(pairs(16))
    project.write(**merged({"train": {"gradient_accumulation_steps": 2}}, CASES[name]))
    one = together(project, "--set", "launch.processes=1")
    two = together(project, *SHARDED, FORGE_TESTS_ROOM="0")
    assert [line["loss"] for line in two] == [pytest.approx(line["loss"], rel=5e-3) for line in one]
    device = next(each["device"] for each in read_events(project.newest().events) if each["kind"] == "loaded")
    assert device.startswith("cuda:0" if "dpo" in name else "main memory, for cuda:0")


@slow
def test_16_bit_arithmetic_rounds_neither_the_loss_nor_the_gradients(project: Project) -> None:
    project.write(adapter=FULL, train={"gradient_accumulation_steps": 2, "bf16": True})
    one, two = together(project), together(project, *SHARDED, FORGE_TESTS_SHARD="1")
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=3e-5)  # 16 bit alone would be off by 2e-3
    assert [line["loss"] for line in two] == [pytest.approx(line["loss"], rel=5e-3) for line in one]
    assert {str(value.dtype) for value in weights(project.newest()).values()} == {"torch.float32"}


@slow
def test_a_sharded_run_is_exported_as_any_other(project: Project) -> None:
    project.write(
        train={"gradient_accumulation_steps": 2},
        export=[{"format": "merged"}, {"format": "gguf", "types": ["f16"]}],
    )
    together(project, *SHARDED, FORGE_TESTS_SHARD="1")
    made = sorted(
        path.suffix for path in project.newest().path.glob("exports/*/*") if path.suffix in {".gguf", ".safetensors"}
    )
    assert made == [".gguf", ".safetensors"]

"""What the plugin trains is what transformers trains: the same rows, losses, gradients and files."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from forge.api import Job, Stage, Task
from forge_mlx.adapt import add_adapter
from forge_mlx.load import read_model
from support.mlx import BY_NAME, NEEDED, both, done, pairs
from support.projects import merged, step_now, wait_for, worker_pid
from support.resuming import parted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from forge.disk.folder import RunFolder
    from support.projects import Finished, Project

pytestmark = NEEDED

FAMILIES = ("llama", "qwen3", "gemma3_text", "mistral")
FULL: dict[str, Any] = {"type": "none", "r": None, "lora_alpha": None}


def digest(finished: Finished) -> Any:
    return finished.of_kind("data")[0]["digest"]


def apart(first: Sequence[float], second: Sequence[float]) -> list[float]:
    assert len(first) == len(second)
    return [abs(one - other) / abs(other) for one, other in zip(first, second, strict=True)]


@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES[1:])]
)
def test_fifty_steps_have_transformers_losses_and_leave_its_adapter(
    of_family: Callable[[str], Project], family: str
) -> None:
    project = of_family(family)
    train = {"max_steps": 50, "save_steps": 50, "learning_rate": 1e-3, "gradient_accumulation_steps": 2}
    mine, theirs = both(project, train=train, data={"eval_size": 4})
    assert digest(mine) == digest(theirs)
    far = apart(mine.losses, theirs.losses)
    assert far[0] < 1e-5
    assert sum(far) / 50 < 1e-4
    held_out = [[event["eval_loss"] for event in each.of_kind("eval")] for each in (mine, theirs)]
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-4)
    trained = [load_file(each.folder.path / "adapter" / "adapter_model.safetensors") for each in (mine, theirs)]
    assert trained[0].keys() == trained[1].keys()
    for name, value in trained[1].items():
        assert value.shape == trained[0][name].shape
        np.testing.assert_allclose(trained[0][name], value, atol=2e-3)
    settings = [
        json.loads((each.folder.path / "adapter" / "adapter_config.json").read_text()) for each in (mine, theirs)
    ]
    assert without_order(settings[0]) == without_order(settings[1])
    for one, other in ((mine, theirs), (theirs, mine)):
        assert far_apart(project.folder / "model", one.folder, other.folder) < 1e-4


def without_order(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: sorted(value) if isinstance(value, list) else value for name, value in settings.items()}


def far_apart(model: Path, trained: RunFolder, _: RunFolder) -> float:
    """Return how far logits lie apart that an adapter has in MLX and in transformers."""
    import mlx.core as mx
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from forge_mlx.adapt import take_adapter

    ids = torch.randint(3, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    theirs = PeftModel.from_pretrained(base, trained.path / "adapter")
    with torch.no_grad():
        expected = theirs(ids).logits.numpy()
    job = asked(model)
    mine = read_model(job, model)
    take_adapter(mine, trained.path / "adapter")
    return float(np.abs(np.array(mine(mx.array(ids.numpy()))) - expected).max())


def asked(model: Path, **tables: Any) -> Job:
    base = {"model": {"id": str(model), "dtype": "float32", "max_seq_length": 64}, "data": {"path": "rows.jsonl"}}
    return Job.model_validate({**merged(base, tables), "folder": model})


@pytest.mark.parametrize("adapter", [{}, {"use_dora": True}, {"use_rslora": True}], ids=["lora", "dora", "rslora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradients_of_an_adapter_are_pefts(families: Callable[[str], Path], family: str, adapter: Any) -> None:
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten
    from transformers import AutoModelForCausalLM

    from forge_huggingface.model.adapt import add_lora
    from forge_mlx.saving import peft_name
    from forge_mlx.training.objectives import Likelihood

    folder = families(family)
    job = asked(folder, adapter={"r": 4, "init_lora_weights": False, **adapter})
    rows = [
        {"input_ids": list(range(5, 5 + count)), "labels": [-100] * 4 + list(range(9, 5 + count))} for count in (9, 30)
    ]
    mine = read_model(job, folder)
    add_adapter(job, mine, folder)
    likelihood = Likelihood()
    batch = likelihood.prepare(mine, rows)
    (loss, _), gradients = nn.value_and_grad(mine, likelihood.sums)(mine, batch)
    mx.eval(loss, gradients)

    theirs, _ = add_lora(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), job)
    sums = []
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
        logits = theirs(ids).logits[0, :-1]
        sums.append(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    expected = torch.stack(sums).sum()
    expected.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    wanted = {
        name.replace(".default", "").replace("magnitude_vector.weight", "magnitude_vector"): each.grad
        for name, each in theirs.named_parameters()
        if each.requires_grad
    }
    found = {peft_name(name): value for name, value in tree_flatten(gradients)}
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        size = float(value.abs().max())
        np.testing.assert_allclose(np.array(found[name]), value.numpy(), atol=1e-4 * max(size, 1e-3), err_msg=name)


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": FULL, "train": {"lr_scheduler_type": "cosine", "warmup_steps": 4, "weight_decay": 0.1}},
        {"adapter": {"use_dora": True}, "train": {"max_grad_norm": 0.05, "gradient_checkpointing": True}},
        pytest.param(
            {"adapter": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}, "use_rslora": True}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"train": {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "polynomial", "weight_decay": 0.1}},
            marks=pytest.mark.slow,
        ),
        {
            "train": {
                "gradient_accumulation_steps": 3,
                "train_sampling_strategy": "group_by_length",
                "warmup_steps": 0.1,
            }
        },
        pytest.param(
            {"train": {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"data": {"path": "texts.jsonl"}, "train": {"max_steps": -1, "num_train_epochs": 1.5}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"data": {"packing": True}, "model": {"max_seq_length": 128}, "train": {"per_device_train_batch_size": 1}},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["full", "dora", "patterns", "sgd", "by-length", "min-lr", "texts", "packing"],
)
def test_keys_mean_what_they_do_in_transformers(llama: Project, changes: dict[str, Any]) -> None:
    texts = (json.dumps({"text": f"number {index} is a text. " * (1 + index % 3)}) for index in range(16))
    (llama.folder / "texts.jsonl").write_text("\n".join(texts), encoding="utf-8")
    train = {"max_steps": 12, "save_steps": 12, "learning_rate": 1e-3}
    mine, theirs = both(llama, **merged({"train": train, "data": {"eval_size": 4}}, changes))
    assert digest(mine) == digest(theirs)
    assert mine.losses == pytest.approx(theirs.losses, rel=1e-5)
    for name in ("learning_rate", "grad_norm", "epoch"):
        told = [[event[name] for event in each.of_kind("step")] for each in (mine, theirs)]
        assert told[0] == pytest.approx(told[1], rel=1e-3), name
    if "gradient_accumulation_steps" not in changes.get("train", {}):  # TRL takes the mean of the batches' shares
        right = [[event["mean_token_accuracy"] for event in each.of_kind("step")] for each in (mine, theirs)]
        assert right[0] == pytest.approx(right[1], abs=1e-6)
    assert [event["eval_loss"] for event in mine.of_kind("eval")] == pytest.approx(
        [event["eval_loss"] for event in theirs.of_kind("eval")], rel=1e-5
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": {"lora_dropout": 0.2}, "train": {"gradient_accumulation_steps": 3, "logging_steps": 3}},
        {"adapter": FULL, "data": {"eval_size": 4}, "train": {"eval_strategy": "epoch"}},
        {
            "data": {"eval_size": 4},
            "train": {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "learning_rate": 0.3},
        },
    ],
    ids=["dropout", "full", "best"],
)
def test_it_goes_on_from_each_checkpoint_to_the_same_bits(llama: Project, changes: dict[str, Any]) -> None:
    base = {"train": {"max_steps": 8, "save_steps": 2, "save_total_limit": 10}}
    llama.write(**merged(merged(base, changes), BY_NAME))
    assert dict(parted(llama)) == {2: [], 4: [], 6: [], 8: []}
    assert llama.newest().plan().step(Stage.TRAIN).plugin == "mlx"


def test_it_stops_early_and_keeps_the_best_as_transformers_does(llama: Project) -> None:
    train = {
        "max_steps": 20,
        "save_steps": 2,
        "eval_steps": 2,
        "eval_strategy": "steps",
        "load_best_model_at_end": True,
        "early_stopping_patience": 2,
        "early_stopping_threshold": 1.0,  # which no evaluation after the first one is better by
    }
    mine, theirs = both(llama, train=train, data={"eval_size": 4})
    found = [each.folder.trained() for each in (mine, theirs)]
    assert found[0].best_step == found[1].best_step
    assert len(mine.losses) == len(theirs.losses) == 6
    first = load_file(mine.folder.path / "adapter" / "adapter_model.safetensors")
    best = load_file(mine.folder.path / "checkpoints" / f"checkpoint-{len(mine.losses)}" / "best.safetensors")
    assert all(np.array_equal(first[f"base_model.model.{name}.weight"], value) for name, value in best.items())


@pytest.mark.parametrize(
    "adapter",
    [{"lora_alpha": 64, "lora_dropout": 0.5}, pytest.param(FULL, marks=pytest.mark.slow)],
    ids=["lora", "full"],
)
def test_dpo_is_transformers(llama: Project, adapter: dict[str, Any]) -> None:
    pairs(llama)
    train = {"method": "dpo", "max_steps": 12, "save_steps": 12, "learning_rate": 1e-3}
    changes = {"adapter": adapter, "train": {**train, "gradient_accumulation_steps": 2}}
    mine, theirs = both(llama, **merged(changes, {"data": {"path": "pairs.jsonl", "eval_size": 4}}))
    assert digest(mine) == digest(theirs)
    assert mine.losses == pytest.approx(theirs.losses, rel=1e-4)
    assert mine.losses[0] == pytest.approx(theirs.losses[0], rel=1e-5)
    for kind, prefix in (("step", ""), ("eval", "eval_")):
        for name in (
            "rewards/chosen",
            "rewards/rejected",
            "rewards/margins",
            "rewards/accuracies",
            "mean_token_accuracy",
        ):
            told = [[event[prefix + name] for event in each.of_kind(kind)] for each in (mine, theirs)]
            assert told[0] == pytest.approx(told[1], rel=1e-2, abs=2e-5), prefix + name


def test_dpo_goes_on_to_the_same_bits(llama: Project) -> None:
    pairs(llama)
    train = {"method": "dpo", "max_steps": 6, "save_steps": 3, "save_total_limit": 10}
    llama.write(**merged({"adapter": FULL, "train": train, "data": {"path": "pairs.jsonl"}}, BY_NAME))
    assert dict(parted(llama)) == {3: [], 6: []}


@pytest.mark.parametrize("bits", [4, pytest.param(8, marks=pytest.mark.slow)])
def test_a_base_of_few_bits_is_trained_on_and_says_what_it_is(llama: Project, bits: int) -> None:
    exact = done(llama, **BY_NAME)
    rounded = done(llama, **merged(BY_NAME, {"model": {f"load_in_{bits}bit": True}}))
    assert rounded.losses != exact.losses
    assert rounded.losses == pytest.approx(exact.losses, rel=0.05 if bits == 4 else 0.01)
    (loaded,) = rounded.of_kind("loaded")
    assert loaded["quantised"] == f"MLX's {bits} bit, in groups of 32 and 64"
    again = done(llama, **merged(BY_NAME, {"model": {f"load_in_{bits}bit": True}}))
    assert again.losses == rounded.losses


def test_checkpointing_every_second_layer_changes_no_loss(llama: Project) -> None:
    plain = done(llama, **BY_NAME)
    kwargs = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"every_n_layers": 2}}
    assert done(llama, **merged(BY_NAME, {"train": kwargs})).losses == pytest.approx(plain.losses, rel=1e-6)


def test_a_loss_that_is_no_number_ends_the_run(llama: Project) -> None:
    llama.write(**merged(BY_NAME, {"adapter": FULL, "train": {"learning_rate": 1e30, "max_grad_norm": 0.0}}))
    error = llama.perform().error
    assert error["what"] == "the training has failed"
    assert error["why"].startswith("the loss of step ")


def test_a_batch_that_does_not_fit_is_told_before_the_first_step(
    llama: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_mlx.training.objectives import Likelihood

    def short(*_: Any) -> Any:  # no test can fill the memory of the machine that it runs on
        raise RuntimeError("[metal::malloc] Attempting to allocate 68719476736 bytes")

    monkeypatch.setattr(Likelihood, "sums", short)
    llama.write(**merged(BY_NAME, {"train": {"per_device_train_batch_size": None, "batch_size": 8}}))
    error = llama.perform().error
    assert error["what"].endswith("tokens do not fit into memory")
    assert error["why"] == "[metal::malloc] Attempting to allocate 68719476736 bytes"
    assert error["relief"], "a smaller batch takes less"


def test_a_dry_run_tries_the_longest_batch_and_trains_nothing(llama: Project) -> None:
    llama.write(**BY_NAME)
    finished = llama.perform(task=Task.DRY_RUN)
    assert finished.code == 0, finished.printed
    (told,) = finished.of_kind("dry-run")
    assert told["longest"] == max(event["longest"] for event in finished.of_kind("data"))
    assert not finished.of_kind("step")
    assert not (finished.folder.path / "adapter").exists()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits(llama: Project) -> None:
    llama.write(**merged(BY_NAME, {"adapter": {"lora_dropout": 0.1}, "train": {"max_steps": 120, "save_steps": 5}}))
    llama.forge("run", "job.toml")
    whole = weights(llama.newest())
    for number in (signal.SIGKILL, signal.SIGINT):
        process = llama.begin()
        folder = llama.newest()
        wait_for(lambda folder=folder: step_now(folder) >= 12)
        os.kill(worker_pid(folder) if number is signal.SIGKILL else process.pid, number)
        output, _ = process.communicate(timeout=60)
        assert folder.trained() is None, output
        assert "going on from checkpoint-" in llama.forge("resume", str(folder.path))
        assert weights(folder) == whole, number


def weights(folder: RunFolder) -> bytes:
    return (folder.path / "adapter" / "adapter_model.safetensors").read_bytes()

"""Layers that are recomputed and batches of a step: whatever is taken, the same is trained, and it is on record."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest
import tomli
import torch
from transformers import AutoModelForCausalLM
from trl.models.utils import disable_gradient_checkpointing

from forge.api import Decision
from forge.api.plan import Training
from forge.disk.events import read_events
from forge_huggingface.training.checkpointing import heed_layers
from support.projects import Project, perform_in
from support.rows import ONLINE, pairs, prompts, ratings
from support.tiny import make_model
from support.tiny_seq2seq import make_bart, make_t5

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from support.sites import Site

    Rows = Callable[[Sequence[Any]], None]

EVERY_SECOND = {"every_n_layers": 2}
LAYERS: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": False},
    {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": EVERY_SECOND},
    {"gradient_checkpointing": True},
)
slow = pytest.mark.slow


def numbers(project: Project, *names: str, **train: Any) -> list[list[float]]:
    """Return what each step of a run logs."""
    project.write(adapter={"lora_dropout": 0.1}, train={"max_steps": 3, "save_steps": 3, **train})
    done = project.perform()
    assert done.code == 0, done.printed[-3000:]
    return [[event[name] for name in names] for event in done.of_kind("step")]


@pytest.mark.parametrize(
    ("method", "data", "more"),
    [
        ("sft", None, {}),
        ("dpo", pairs, {}),
        pytest.param("kto", ratings, {}, marks=slow),
        pytest.param("grpo", prompts, ONLINE, marks=slow),
    ],
)
def test_recomputing_changes_no_number(
    project: Project, rows: Rows, method: str, data: Callable[[], Any] | None, more: dict[str, Any]
) -> None:
    if data:
        rows(data())
    found = [numbers(project, "loss", "grad_norm", method=method, **more, **layers) for layers in LAYERS]
    assert found[1:] == found[:1] * 2


@pytest.mark.parametrize(
    ("method", "data", "more"),
    [
        ("sft", None, {}),
        ("dpo", pairs, {}),
        pytest.param("kto", ratings, {"loss_type": "apo_zero_unpaired"}, marks=slow),
        pytest.param("reward", pairs, {}, marks=slow),
        pytest.param("grpo", prompts, {"num_generations": 4, "max_completion_length": 8}, marks=slow),
        pytest.param("rloo", prompts, {"num_generations": 4, "max_completion_length": 8}, marks=slow),
        pytest.param("sdpo", prompts, {"num_generations": 4, "max_completion_length": 8}, marks=slow),
    ],
)
def test_the_gradient_of_a_step_does_not_depend_on_its_batches(
    project: Project, rows: Rows, method: str, data: Callable[[], Any] | None, more: dict[str, Any]
) -> None:
    if data:
        rows(data())
    if "num_generations" in more:
        more = {**ONLINE, **more, "gradient_accumulation_steps": None}
    found = []
    for size in (8, 4, 1):
        train = {"max_steps": 1, "save_steps": 1, "method": method, **more, "batch_size": 8}
        sdpo = {"sdpo": {"success_reward_threshold": 0.0}} if method == "sdpo" else {}
        project.write(train={**train, "per_device_train_batch_size": size}, plugins=sdpo)
        done = project.perform()
        assert done.code == 0, done.printed[-3000:]
        step = done.of_kind("step")[0]
        found.append([step["loss"], step["grad_norm"]])
    assert found[1:] == [pytest.approx(found[0], rel=1e-4, abs=1e-6)] * 2
    assert found[0][1] > 0


@pytest.mark.parametrize("more", [{}, pytest.param({"label_smoothing_factor": 0.1}, marks=slow)])
@pytest.mark.parametrize("make", [make_t5, make_bart])
@pytest.mark.filterwarnings("ignore:`label_smoothing_factor` is deprecated:FutureWarning")
def test_nor_does_that_of_an_encoder_decoder_model(
    tmp_path: Path, make: Callable[[Path], Path], more: dict[str, Any]
) -> None:
    project = Project(tmp_path / "project", make(tmp_path / "model"))
    config = project.folder / "model" / "config.json"
    quiet = dict.fromkeys(("dropout", "dropout_rate", "attention_dropout", "activation_dropout"), 0.0)
    config.write_text(json.dumps({**json.loads(config.read_text()), **quiet}))
    answers = [" ".join(["one", "two"] * length) for length in (1, 7, 2, 9, 1, 5, 3, 4)]
    text = "".join(json.dumps({"prompt": "Count.", "completion": each}) + "\n" for each in answers)
    (project.folder / "rows.jsonl").write_text(text)
    found = []
    for size in (8, 2):
        train = {"max_steps": 1, "save_steps": 1, "batch_size": 8, "per_device_train_batch_size": size, **more}
        project.write(model={"max_seq_length": 64}, train=train)
        done = project.perform()
        assert done.code == 0, done.printed[-3000:]
        step = done.of_kind("step")[0]
        found.append([step["loss"], step["grad_norm"]])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


def test_what_was_taken_is_on_record(project: Project) -> None:
    layers = {"gradient_checkpointing": None, "per_device_train_batch_size": None, "batch_size": 6}
    project.write(train={"max_steps": 2, **layers})
    done = project.perform()
    assert done.code == 0, done.printed[-3000:]
    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text())["train"]
    assert lock["gradient_checkpointing"] is False
    assert lock["batch_size"] == lock["per_device_train_batch_size"] * lock["gradient_accumulation_steps"] == 6
    plan = done.folder.plan()
    assert plan.decided("train.per_device_train_batch_size") == lock["per_device_train_batch_size"]
    told = [event["message"] for event in done.events if event["kind"] == "note"]
    corrected = any("now that the rows are known, [train] per_device_train_batch_size" in text for text in told)
    first = json.loads((done.folder.path / "plan.json").read_text())["decisions"]
    assert corrected is ([each["key"] for each in first].count("train.per_device_train_batch_size") > 1)
    card = (done.folder.path / "README.md").read_text()
    assert f"per_device_train_batch_size = {lock['per_device_train_batch_size']}" in card


def test_what_was_taken_after_out_of_memory_stays_when_the_rows_are_known(project: Project) -> None:
    project.write(train={"max_steps": 1, "save_steps": 1, "batch_size": 4, "per_device_train_batch_size": None})
    run, folder = project.prepare()
    assert isinstance(run.plan, Training)
    relief = [
        Decision("train.per_device_train_batch_size", 1, ""),
        Decision("train.gradient_accumulation_steps", 4, ""),
    ]
    run.plan = replace(run.plan, relieved=True, decisions=(*run.plan.decisions, *relief))
    done = perform_in(run, folder)
    assert done.code == 0, done.printed[-3000:]
    lock = tomli.loads((folder.path / "job.lock.toml").read_text())["train"]
    assert (lock["per_device_train_batch_size"], lock["gradient_accumulation_steps"]) == (1, 4)


def test_layers_stay_chosen_while_trainers_switch_checkpointing_off(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    heed_layers(model)
    for each in (model, copy.deepcopy(model)):
        each.gradient_checkpointing_enable({}, every_n_layers=2)
        with disable_gradient_checkpointing(each, dict(EVERY_SECOND)):
            assert not [layer for layer in each.model.layers if layer.gradient_checkpointing]
        assert [layer.gradient_checkpointing for layer in each.model.layers] == [True, False]
        assert "every_n_layers" not in each.model.layers[0]._gradient_checkpointing_func.keywords


class Room(torch.autograd.graph.saved_tensors_hooks):
    """A device with room for so many bytes of what a forward pass keeps for the backward pass, but for checkpoints'."""

    def __init__(self, room: int) -> None:
        self.room, self.used, self.most = room, 0, 0
        super().__init__(self.pack, self.unpack)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.used += tensor.numel() * tensor.element_size()
        self.most = max(self.used, self.most)
        if self.used > self.room:
            raise torch.OutOfMemoryError("no room in this test")
        return tensor

    def unpack(self, tensor: torch.Tensor) -> torch.Tensor:
        self.used = 0
        return tensor


def test_what_does_not_fit_in_the_probe_is_followed_by_what_does(project: Project) -> None:
    project.write(train={"gradient_checkpointing": None, "max_steps": 1, "save_steps": 1})
    with Room(10**12) as whole:
        assert project.perform().code == 0
    with Room(whole.most - 1):
        done = project.perform()
    error = done.of_kind("failed")[0]["error"]
    assert (error["type"], error["probing"]) == ("OutOfMemory", True)
    assert "in the probe of the longest batch" in error["what"]
    changes = {change["key"]: change["value"] for change in error["relief"]}
    assert changes == {"train.gradient_checkpointing": True, "train.gradient_checkpointing_kwargs": None}
    project.write(train={"gradient_checkpointing": True, "max_steps": 1, "save_steps": 1})
    with Room(whole.most - 1) as less:
        assert project.perform().code == 0
    assert less.most < whole.most / 2


SMALL = """
from forge.api import Extension, hookimpl


@hookimpl
def forge_offers():
    yield Extension(impl="small_gpu_limit")
"""

LIMIT = """
import os

from forge.api import hookimpl


@hookimpl
def forge_event(event):
    if event.kind == "stage" and event.stage == "train" and event.state == "started":
        import torch

        torch.cuda.set_per_process_memory_fraction(int(os.environ["GPU_BYTES"]) / torch.cuda.mem_get_info()[1])
"""
"""An observer that leaves the run no more of the GPU than a small one has."""


@pytest.mark.gpu
def test_out_of_memory_on_a_gpu_is_followed_by_one_step_down(tmp_path: Path, site: Site) -> None:
    site.install("small-gpu", {"small_gpu": SMALL, "small_gpu_limit": LIMIT}, "[forge_v1]\nsmall-gpu = small_gpu\n")
    project = Project(tmp_path / "project", make_model(tmp_path / "model", hidden=1024, layers=16))
    row = json.dumps({"prompt": "Count.", "completion": "one two three four five " * 50})
    (project.folder / "rows.jsonl").write_text(f"{row}\n" * 64)
    project.write(
        model={"max_seq_length": 512},
        train={"max_steps": 2, "per_device_train_batch_size": 16, "gradient_checkpointing": None},
        use={"with": ["small-gpu"], "backend": "huggingface"},
    )
    environ = {"PYTHONPATH": str(site.folder)}
    told = project.forge("run", "job.toml", "--dry-run", GPU_BYTES=str(100 * 2**30), **environ)
    assert "trying again" not in told
    assert project.newest().plan().decided("train.gradient_checkpointing") is False
    done = next(event for event in read_events(project.newest().events) if event["kind"] == "dry-run")
    memory = done["measured"]
    limit = memory["weights"] + memory["optimizer"] + int(0.6 * memory["moving"])
    told = " ".join(project.forge("run", "job.toml", GPU_BYTES=str(limit), **environ).split())
    assert "out of memory in the probe of the longest batch" in told
    assert "trying again with another plan, with [train] gradient_checkpointing = true" in told
    assert project.newest().plan().decided("train.gradient_checkpointing") is True
    assert project.newest().trained() is not None

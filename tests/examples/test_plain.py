"""The example backend in plain torch: what it trains, how it goes on, and what forge's own stages make of its runs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Stage, Task
from support.doubles.hub import Hub
from support.projects import Project, json_of, merged, step_now, wait_for, worker_pid
from support.resuming import parted

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the backend is for Linux")


@pytest.fixture
def plain(project: Project, examples: None, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project on a machine without a GPU where the example plugins are installed."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return project


def weights(folder: RunFolder, name: str = "adapter/adapter_model.safetensors") -> bytes:
    return (folder.path / name).read_bytes()


def losses(project: Project, **changes: Any) -> tuple[str, list[float], list[float]]:
    """Return who trained a job of the project, its losses, and those of held-out rows."""
    project.write(**changes)
    done = project.perform()
    assert done.code == 0, done.printed
    held_out = [event["eval_loss"] for event in done.of_kind("eval")]
    return done.folder.plan().step(Stage.TRAIN).plugin, done.losses, held_out


FULL: dict[str, Any] = {"type": "none", "r": None, "lora_alpha": None}


def slow(changes: dict[str, Any]) -> Any:
    return pytest.param(changes, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"gradient_accumulation_steps": 2}},
        slow({"adapter": FULL, "train": {"lr_scheduler_type": "cosine", "warmup_steps": 4, "weight_decay": 0.1}}),
        slow({"data": {"path": "texts.jsonl"}, "train": {"gradient_accumulation_steps": 3}}),
    ],
    ids=["lora", "full", "text"],
)
def test_its_losses_are_those_of_huggingface(plain: Project, changes: dict[str, Any]) -> None:
    texts = (json.dumps({"text": f"number {index} is a text. " * (1 + index % 3)}) for index in range(16))
    (plain.folder / "texts.jsonl").write_text("\n".join(texts), encoding="utf-8")
    changes = merged({"train": {"max_steps": 20, "learning_rate": 1e-3}, "data": {"eval_size": 4}}, changes)
    mine, first, seen = losses(plain, **changes)
    theirs, second, expected = losses(plain, **merged(changes, {"use": {"backend": "huggingface"}}))
    assert (mine, theirs) == ("plain", "huggingface")
    assert len(first) == 20
    assert first == pytest.approx(second, rel=1e-5)
    assert seen == pytest.approx(expected, rel=1e-5)


def test_it_wins_by_itself_where_there_is_no_gpu_and_loses_elsewhere_with_its_reason(plain: Project) -> None:
    told = {name: plain.forge("plan", "job.toml", FORGE_MACHINE=name) for name in MACHINES}
    for name, reason in MACHINES.items():
        for stage in ("load", "adapt", "train"):
            winner = "huggingface" if reason else "plain"
            assert re.search(rf"^{stage} +{winner} ", told[name], re.MULTILINE), told[name]
        assert told[name].count(f"plain: {reason}" if reason else PRAISE) == 3, told[name]
    preferred = plain.forge("plan", "job.toml", "--set", 'use.prefer=["plain"]', FORGE_MACHINE="linux-cuda")
    assert re.search(r"^load +huggingface ", preferred, re.MULTILINE), "a wish is no order"
    named = plain.forge("plan", "job.toml", "--set", "use.backend=plain", FORGE_MACHINE="macos", code=2)
    assert "platform is darwin; needs linux" in named
    without = plain.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu", FORGE_PLUGINS="-plain")
    assert re.search(r"^load +huggingface ", without, re.MULTILINE)


PRAISE = "made for linux: priority 100 against 0 of huggingface; FORGE_PLUGINS=-plain goes without it"
MACHINES = {
    "linux-cpu": "",
    "linux-cuda": "it trains on the processor, and here is another one: NVIDIA GeForce RTX 4090",
    "macos": "platform is darwin; needs linux",
    "windows-cpu": "platform is win32; needs linux",
}
"""Why it is not taken, by the machine."""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"train": {"optim": "adafactor"}}, "it has no key optim for [train]"),
        ({"data": {"packing": True}}, "packing: it pads"),
        ({"adapter": {"rank_pattern": {"q_proj": 2}}}, "rank_pattern: it adapts all layers alike"),
        ({"model": {"dtype": "bfloat16"}}, "dtype = bfloat16: it computes in float32"),
        ({"train": {"early_stopping_patience": 1}, "data": {"eval_size": 4}}, "early_stopping_patience: it trains to"),
    ],
)
def test_a_job_that_it_cannot_do_is_huggingfaces(plain: Project, changes: dict[str, Any], reason: str) -> None:
    plain.write(**changes)
    told = plain.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu")
    assert re.search(r"^train +huggingface ", told, re.MULTILINE), told
    assert f"plain: {reason}" in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eval_steps": 2}, "train.eval_steps: there are no held-out rows"),
        ({"num_train_epochs": 2.0}, "train.num_train_epochs: num_train_epochs has no effect beside max_steps"),
        ({"eval_steps": 2, "eval_strategy": "epoch"}, 'train.eval_steps: eval_steps has no effect under "epoch"'),
    ],
)
def test_a_mistake_of_the_job_is_one(plain: Project, changes: dict[str, Any], said: str) -> None:
    plain.write(train=changes)
    assert said in plain.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu", code=2)


def test_epochs_are_counted_where_no_steps_are(plain: Project) -> None:
    plain.write(train={"max_steps": None, "num_train_epochs": 1.5})
    done = plain.perform()
    assert done.code == 0, done.printed
    assert len(done.losses) == 12


@pytest.mark.parametrize(
    "changes",
    [
        {"adapter": {"lora_dropout": 0.2}, "train": {"gradient_accumulation_steps": 3, "logging_steps": 3}},
        slow({"adapter": FULL, "data": {"eval_size": 4}, "train": {"eval_strategy": "epoch"}}),
    ],
    ids=["lora", "full"],
)
def test_it_goes_on_from_each_checkpoint_to_the_same_bits(plain: Project, changes: dict[str, Any]) -> None:
    plain.write(**merged({"train": {"max_steps": 8, "save_steps": 2, "save_total_limit": 10}}, changes))
    assert dict(parted(plain)) == {2: [], 4: [], 6: [], 8: []}
    assert plain.newest().plan().step(Stage.TRAIN).plugin == "plain"


def test_it_takes_only_weights_that_are_all_there(plain: Project) -> None:
    from safetensors.torch import load_file, save_file

    file = plain.folder / "model" / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    done = plain.perform()
    assert done.error["what"] == "model lacks 1 weights"
    assert done.error["why"] == "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("name", "what", "do"),
    [
        ("k_porj", "fits no module of the model", "did you mean k_proj?"),
        ("lm_head", "is no linear layer inside the model", 'train it whole: modules_to_save = ["lm_head"]'),
        ("self_attn", "is no linear layer inside the model", 'train it whole: modules_to_save = ["self_attn"]'),
    ],
)
def test_a_name_that_no_adapter_fits_is_told(plain: Project, name: str, what: str, do: str) -> None:
    plain.write(adapter={"target_modules": ["q_proj", name]})
    done = plain.perform()
    assert (done.error["what"], done.error["do"]) == (f"[adapter] target_modules: {name} {what}", do)


def test_one_name_is_a_name_and_no_pattern(plain: Project) -> None:
    plain.write(adapter={"target_modules": "q_proj"})
    done = plain.perform()
    assert [event["targets"] for event in done.of_kind("adapted")] == [["q_proj"]]


def test_a_loss_that_is_no_number_ends_the_run(plain: Project) -> None:
    plain.write(adapter=FULL, train={"learning_rate": 1e30, "max_grad_norm": 0.0})
    done = plain.perform()
    assert done.error["what"] == "the training has failed"
    assert done.error["why"].startswith("the loss of step ")


def test_a_dry_run_tries_the_longest_batch_and_trains_nothing(plain: Project) -> None:
    done = plain.perform(task=Task.DRY_RUN)
    assert done.code == 0, done.printed
    (told,) = done.of_kind("dry-run")
    assert told["longest"] == max(event["longest"] for event in done.of_kind("data"))
    assert not done.of_kind("step")
    assert not (done.folder.path / "adapter").exists()


@pytest.mark.slow
def test_gradient_checkpointing_changes_no_loss(plain: Project) -> None:
    _, first, _ = losses(plain)
    _, second, _ = losses(plain, train={"gradient_checkpointing": True})
    assert second == pytest.approx(first, rel=1e-6)


@pytest.mark.slow
def test_a_model_of_the_hub_is_downloaded_and_pinned(plain: Project) -> None:
    with Hub() as hub:
        commit = hub.add_folder("org/tiny", plain.folder / "model")
        plain.write(model={"id": "org/tiny"}, export=[{"format": "merged"}])
        plain.forge("run", "job.toml", **hub.environment(plain.folder / "home"))
    plan = plain.newest().plan()
    assert plan.step(Stage.LOAD).plugin == "plain"
    assert plan.facts.revision == commit
    adapter = json_of(plain.newest().path / "adapter" / "adapter_config.json")
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("org/tiny", commit)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_to_the_same_bits_and_is_evaluated_and_exported(plain: Project) -> None:
    plain.write(
        adapter={"lora_dropout": 0.1},
        data={"eval_size": 4},
        train={"max_steps": 60, "save_steps": 4},
        eval={"metrics": ["exact-match"], "max_new_tokens": 8},
        export=[{"format": "adapter"}, {"format": "merged"}, {"format": "gguf", "types": ["f16"]}],
    )
    plain.forge("run", "job.toml")
    whole = plain.newest()
    assert whole.plan().step(Stage.TRAIN).plugin == "plain"
    assert sorted(path.name for path, _ in whole.exports()) == ["1-adapter", "2-merged", "3-gguf"]
    evaluation = whole.evaluation()
    assert evaluation is not None
    assert set(evaluation["models"]) == {"base", "tuned"}

    for number in (signal.SIGKILL, signal.SIGINT):
        process = plain.begin()
        folder = plain.newest()
        wait_for(lambda folder=folder: step_now(folder) >= 10)
        os.kill(worker_pid(folder) if number is signal.SIGKILL else process.pid, number)
        output, _ = process.communicate(timeout=60)
        assert folder.trained() is None, output
        told = plain.forge("resume", str(folder.path))
        assert "going on from checkpoint-" in told
        assert weights(folder) == weights(whole), number
        assert folder.evaluation()["metrics"] == evaluation["metrics"]  # type: ignore[index]
        for format_ in ("1-adapter", "2-merged"):
            for path in (whole.path / "exports" / format_).glob("*.safetensors"):
                assert path.read_bytes() == (folder.path / "exports" / format_ / path.name).read_bytes()
    assert "exact-match" in plain.forge("eval", str(whole.path))
    chat = subprocess.run(
        [sys.executable, "-P", "-m", "forge", "chat", str(whole.path), "--json", "--max-new-tokens", "4"],
        input="Write one sentence about the sea.",
        capture_output=True,
        text=True,
        cwd=plain.folder,
        check=True,
    )
    assert "tokens" in json.loads(chat.stdout)

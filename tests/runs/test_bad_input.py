"""What can be wrong with a job's files and its machine: one clear error, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forge.api import Offer, Stage, Warned
from forge.api.run import Run
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.checkpoints import MARK, checkpoints
from forge.errors import BackendImportError, ModelError
from forge.job.read import read
from forge.machine.probe import probe
from forge.parent.run import run
from support.projects import Project, perform_in, step_now, wait_for, worker_pid


def rows(project: Project, *lines: Any) -> None:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (project.folder / "rows.jsonl").write_text(text)


GOOD = {"messages": [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one, two"}]}
UNANSWERED = {"messages": [{"role": "user", "content": "Count."}]}


def refused(project: Project) -> str:
    """Return the error of a run that ends before a model is loaded."""
    done = project.perform()
    assert done.code == 2, done.printed
    assert not done.of_kind("loaded")
    error = done.error
    return f"{error['what']}: {error['why']}; {error['do']}"


def test_missing_rows(project: Project) -> None:
    project.write(data={"path": "row.jsonl"})
    said = refused(project)
    assert "row.jsonl" in said
    assert "rows.jsonl" in said, "the nearest name is told"


def test_empty_rows(project: Project) -> None:
    rows(project)
    assert "rows.jsonl" in refused(project)


def test_wrong_columns_are_listed(project: Project) -> None:
    rows(project, {"query": "a", "reply": "b"})
    said = refused(project)
    assert "query" in said
    assert "reply" in said


def test_a_row_without_an_answer_is_named(project: Project) -> None:
    rows(project, GOOD, UNANSWERED, GOOD)
    assert "rows.jsonl:2" in refused(project)


def test_bad_rows_are_dropped_and_counted_where_the_job_says_so(project: Project) -> None:
    rows(project, *[GOOD] * 9, UNANSWERED)
    project.write(data={"on_bad_row": "drop", "max_bad_rows": 0.2})
    done = project.perform()
    assert done.code == 0, done.printed
    told = done.of_kind("data")[0]
    assert (told["rows"], told["dropped"]) == (9, 1)


def test_rows_that_nobody_can_hold_are_dropped_like_others(project: Project) -> None:
    half = "\ud83d"
    odd: list[Any] = [
        GOOD | {half: 1},
        {"messages": [{**GOOD["messages"][0], half: 1}, GOOD["messages"][1]]},
        {"messages": [{"role": half, "content": "Count."}, GOOD["messages"][1]]},
        {"messages": [{"role": "user", "content": half}, GOOD["messages"][1]]},
        '{"messages": ' + "9" * 5000 + "}",
        *('{"messages": ' + "[" * depth + "]" * depth + "}" for depth in (200, 900, 100_000)),
        *('{"messages": ' + '{"a":' * depth + "1" + "}" * depth + "}" for depth in (200, 900, 100_000)),
    ]
    rows(project, *[GOOD] * 9, *odd)
    project.write(data={"on_bad_row": "drop", "max_bad_rows": 0.9}, train={"max_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    told = done.of_kind("data")[0]
    assert (told["rows"], told["dropped"]) == (9, len(odd))
    project.write()
    assert "rows.jsonl:10 has half a character in its keys" in refused(project)


def test_more_bad_rows_than_the_limit_are_refused(project: Project) -> None:
    rows(project, *[GOOD] * 5, *[UNANSWERED] * 5)
    project.write(data={"on_bad_row": "drop", "max_bad_rows": 0.2})
    assert "5 of 10 rows" in refused(project)


def test_rows_too_long_to_leave_an_answer_are_refused(project: Project) -> None:
    long = {"messages": [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "one"}]}
    rows(project, long)
    assert "rows.jsonl" in refused(project)


def test_a_model_without_a_template_is_refused_before_loading(project: Project) -> None:
    (project.folder / "model" / "chat_template.jinja").unlink()
    assert "chatml" in refused(project)


def test_a_folder_without_weights_is_refused_by_the_plan(project: Project) -> None:
    (project.folder / "model" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights|safetensors"):
        project.prepare()


def test_a_cut_weights_file_is_refused_by_the_plan(project: Project) -> None:
    file = project.folder / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        project.prepare()


def test_a_model_that_would_be_partly_random_is_refused(project: Project) -> None:
    from safetensors.torch import load_file, save_file

    file = project.folder / "model" / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, {"format": "pt"})
    done = project.perform()
    assert done.code == 2
    assert "lacks 1 weights" in done.error["what"]
    assert "up_proj" in done.error["why"]


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
def test_a_full_disk_keeps_the_last_whole_checkpoint(project: Project, tmp_path: Path) -> None:
    project.write(train={"max_steps": 6, "save_steps": 2})
    whole = project.perform()
    size = sum(path.stat().st_size for path in checkpoints(whole.folder.checkpoints)[-1].rglob("*"))
    small = tmp_path / "small"
    small.mkdir()
    limit = f"size={size + size // 2}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", limit, "tmpfs", str(small)], check=False).returncode:
        pytest.skip("this container cannot mount")
    try:
        handle, folder = project.prepare()
        folder.checkpoints.symlink_to(small)
        done = perform_in(handle, folder)
        assert done.code == 1, done.printed
        assert "disk is full" in done.error["why"]
        assert "checkpoint-2 is whole" in done.error["why"]
        assert [path.name for path in checkpoints(folder.checkpoints)] == ["checkpoint-2"]
        assert (folder.checkpoints / "checkpoint-2" / MARK).exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        again = perform_in(Run(folder=folder.path, plan=replace(handle.plan, resume=True)), folder)
        assert again.code == 0, again.printed
    finally:
        subprocess.run(["umount", str(small)], check=False)
    first = whole.folder.path / "adapter" / "adapter_model.safetensors"
    assert (folder.path / "adapter" / "adapter_model.safetensors").read_bytes() == first.read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX")
def test_a_worker_killed_by_the_system_is_explained(project: Project) -> None:
    project.write(train={"max_steps": 2000, "save_steps": 3})
    process = project.begin()
    folder = project.newest()
    wait_for(lambda: step_now(folder) >= 4)
    os.kill(worker_pid(folder), signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the worker, in train of plugin huggingface, was killed (SIGKILL)" in output
    assert "ran out of memory" in output
    assert f"forge resume {folder.path.relative_to(project.folder)}" in output
    assert "Traceback" not in output


def test_an_error_prints_one_message_and_the_log_has_the_traceback(project: Project) -> None:
    project.write(adapter={"exclude_modules": ["nothing_proj"]})
    output = project.forge("run", "job.toml", code=2)
    assert output.count("error:") == 1
    assert "Traceback" not in output
    assert "Traceback" in project.newest().log.read_text()


# A backend whose import fails, as Unsloth's does without a GPU. It stands in for a plugin of forge's own.


def with_backend(impl: str) -> Catalogue:
    """Return the installed plugins and one more of forge's own, which every plan prefers for loading."""
    offer = Offer(
        stage=Stage.LOAD,
        impl=impl,
        supports=frozenset({"text", "full"}),
        provides=frozenset({"hf-model"}),
        priority=50,
        backend="quick",
    )
    quick = Plugin(name="quick", distribution="forge-train", version="0", offers=(offer,))
    return Catalogue((*discover({}).plugins, quick))


def run_with(project: Project, catalogue: Catalogue) -> tuple[Any, list[Any]]:
    shown: list[Any] = []
    file = read(project.folder / "job.toml", PluginKeys(catalogue))
    return run(file, catalogue, probe(), project.runs, shown.append), shown


@pytest.mark.slow
def test_a_backend_that_fails_at_import_is_replaced_loudly(project: Project) -> None:
    project.write(train={"max_steps": 1})
    folder, shown = run_with(project, with_backend("no_such_module:load"))
    assert folder.trained() is not None
    assert [plan.name for plan in folder.plan_paths()] == ["plan.json", "plan.2.json"]
    verdict = next(v for v in folder.plan().verdicts if v.plugin == "quick")
    assert "failed in attempt 1" in verdict.reason
    assert any("no_such_module" in event.message for event in shown if isinstance(event, Warned))


def test_a_named_backend_that_fails_at_import_is_an_error(project: Project) -> None:
    project.write(use={"backend": "quick", "adapt": "huggingface"})
    with pytest.raises(BackendImportError, match="no_such_module"):
        run_with(project, with_backend("no_such_module:load"))


HOOKS = '''
from forge.api import OutOfMemory, hookimpl
from forge_huggingface.training.train import train as real

RELIEF = [
    {"key": "train.per_device_train_batch_size", "value": 1, "reason": "the longest batch of 2 did not fit"},
    {"key": "train.gradient_accumulation_steps", "value": 2, "reason": "to keep the effective batch"},
]


def train(job, run, loaded, data):
    """Stand in for a GPU with room for one row."""
    if job.train.options["per_device_train_batch_size"] > 1:
        raise OutOfMemory("out of memory in the probe", "2 rows", "a smaller batch", probing=True, relief=RELIEF)
    return real(job, run, loaded, data)


@hookimpl
def forge_event(event):
    if event.kind == "stage":
        raise RuntimeError("an observer's own mistake")
'''

PLUGIN = """
from forge.api import Extension, Offer, Stage, hookimpl


@hookimpl
def forge_offers():
    yield Extension(impl="small_gpu_hooks")
    yield Offer(
        stage=Stage.TRAIN,
        impl="small_gpu_hooks:train",
        serves=frozenset({"sft"}),
        options="forge_huggingface.arguments.options:train_options",
    )
"""


@pytest.fixture
def small_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's plugin, installed: a trainer that plays a small GPU (we have none), and an observer that raises."""
    site = tmp_path / "site"
    info = site / "forge_small_gpu-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "small_gpu.py").write_text(PLUGIN)
    (site / "small_gpu_hooks.py").write_text(HOOKS)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: forge-small-gpu\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[forge_v1]\nsmall-gpu = small_gpu\n")
    monkeypatch.setenv("PYTHONPATH", str(site))


@pytest.mark.parametrize(
    "sizes",
    [
        {"per_device_train_batch_size": "auto", "batch_size": 2},  # named, and left to forge
        pytest.param({"per_device_train_batch_size": None}, marks=pytest.mark.slow),
    ],
)
def test_out_of_memory_in_the_probe_is_tried_again_with_less(
    project: Project, small_gpu: None, sizes: dict[str, Any]
) -> None:
    project.write(train={"max_steps": 1, **sizes}, use={"with": ["small-gpu"], "train": "small-gpu"})
    output = " ".join(project.forge("run", "job.toml", "--set", "model.max_seq_length=96").split())
    assert "trying again with another plan, with [train] per_device_train_batch_size = 1 and" in output
    folder = project.newest()
    decided = {decision.key: decision.value for decision in folder.plan().decisions}
    assert decided["train.per_device_train_batch_size"] == 1
    assert decided["train.gradient_accumulation_steps"] == 2
    assert folder.trained() is not None
    assert "an observer's own mistake" in folder.log.read_text(), "its error is in the log, and stopped nothing"


@pytest.mark.slow
def test_out_of_memory_with_a_batch_that_the_job_names_is_an_error(project: Project, small_gpu: None) -> None:
    project.write(use={"with": ["small-gpu"], "train": "small-gpu"})
    output = project.forge("run", "job.toml", code=1)
    assert "out of memory in the probe" in output
    assert len(project.newest().plan_paths()) == 1


@pytest.mark.slow
def test_an_installed_extension_does_nothing_unless_the_job_names_it(project: Project, small_gpu: None) -> None:
    project.write(train={"max_steps": 1})
    project.forge("run", "job.toml")
    assert "observer" not in project.newest().log.read_text()

"""Going on from an adapter: supervised first, then on preferences, as plain TRL does it with the same adapter."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import torch
from safetensors.torch import load_file, save_file

from forge.disk.folder import RunFolder
from forge.errors import JobError, PlanError, RunError
from forge.job.read import change_of
from forge.parent.resume import refuse_changes
from support.projects import Finished, Project, cut_after, json_of
from support.resuming import parted, resumed
from support.rows import METHODS, ONLINE, pairs, prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Rows = Callable[[Sequence[Any]], None]

REFERENCED = ("dpo", "kto", "grpo", "rloo")
FRESH: dict[str, Any] = {"r": None, "lora_alpha": None}
"""A job that goes on from an adapter writes none of its keys."""


def sft(project: Project, **adapter: Any) -> Path:
    """Train an adapter supervised, and return its run's folder."""
    project.write(adapter=adapter)
    done = project.perform()
    assert done.code == 0, done.printed
    return done.folder.path


def weights(done: Finished) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(done.folder.path / "adapter" / "adapter_model.safetensors")
    return found


def plain_losses(done: Finished, start: Path, rows: Path, method: str) -> list[float]:
    """Return the losses of TRL's own trainer with the values of a run's lock, from the same adapter."""
    from datasets import load_dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    config, trainer = {"dpo": (DPOConfig, DPOTrainer), "kto": (KTOConfig, KTOTrainer)}[method]
    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text())
    known = config.__dataclass_fields__.keys() - {"output_dir"}
    values = {key: value for key, value in lock["train"].items() if key in known}
    values |= {"max_length": lock["model"]["max_seq_length"], "report_to": "none", "use_cpu": True}
    base = AutoModelForCausalLM.from_pretrained(lock["model"]["id"], dtype=torch.float32)
    made = trainer(
        model=PeftModel.from_pretrained(base, start / "adapter", is_trainable=True),
        args=config(output_dir=str(done.folder.path / "plain"), **values),
        train_dataset=load_dataset("json", data_files=str(rows), split="train"),
        processing_class=AutoTokenizer.from_pretrained(lock["model"]["id"]),
    )
    made.train()
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


def as_text(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose conversations are their last message's text."""
    return {key: value[-1]["content"] if isinstance(value, list) else value for key, value in row.items()}


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_what_follows_supervised_training_is_trls_digit_for_digit(project: Project, rows: Rows, method: str) -> None:
    start = sft(project)
    rows([as_text(row) for row in METHODS[method][0]()])  # of conversations TRL leaves out what ends an answer
    project.write(adapter={**FRESH, "from": str(start)}, train={"method": method})
    done = project.perform()
    assert done.code == 0, done.printed
    theirs = plain_losses(done, start, project.folder / "rows.jsonl", method)
    assert len(theirs) == 4
    assert done.losses == theirs


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in {"dpo", "grpo"} else pytest.mark.slow) for name in REFERENCED]
)
def test_the_reference_is_the_adapter_as_it_was_and_no_part_of_what_is_left(
    project: Project, rows: Rows, method: str
) -> None:
    start = sft(project)
    make, options = METHODS[method]
    rows(make())
    more = {"beta": 0.1, "temperature": 1.0} if method in ONLINE_METHODS else {}
    project.write(adapter={**FRESH, "from": str(start)}, train={"method": method, **options, **more})
    done = project.perform()
    assert done.code == 0, done.printed
    first = done.of_kind("step")[0]
    if method == "dpo":
        assert first["loss"] == pytest.approx(0.6931, abs=1e-4)  # log 2: the model is its own reference
    if method in ONLINE_METHODS:
        assert first["kl"] == pytest.approx(0, abs=1e-6)
    for folder in (done.folder.path / "adapter", done.folder.path / "checkpoints" / "checkpoint-4"):
        assert not [path.name for path in folder.iterdir() if path.is_dir()]
    assert not [name for name in weights(done) if ".ref." in name]
    assert not [event for event in done.of_kind("warning") if "adapter" in event["message"]]


ONLINE_METHODS = ("grpo", "rloo")


@pytest.mark.parametrize("method", ["dpo", pytest.param("grpo", marks=pytest.mark.slow)])
def test_a_run_that_goes_on_has_the_same_reference(project: Project, rows: Rows, method: str) -> None:
    start = sft(project)
    rows((pairs if method == "dpo" else prompts)(24))
    options = {**ONLINE, "beta": 0.1} if method == "grpo" else {}
    project.write(adapter={**FRESH, "from": str(start)}, train={"method": method, **options})
    assert [*parted(project, only=frozenset({2}))] == [(2, [])]


def test_more_epochs_begin_where_the_adapter_ended(project: Project) -> None:
    start = sft(project)
    project.write(adapter={**FRESH, "from": str(start)}, train={"learning_rate": 0.0, "max_steps": 1, "save_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    before = load_file(start / "adapter" / "adapter_model.safetensors")
    assert all(torch.equal(before[name], value) for name, value in weights(done).items())


@pytest.mark.slow
def test_the_lock_has_the_adapters_folder_digest_and_keys(project: Project) -> None:
    start = sft(project, r=2, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"])
    project.write(adapter={**FRESH, "from": str(start)})
    first = project.perform()
    assert first.code == 0, first.printed
    lock = first.folder.path / "job.lock.toml"
    table = tomli.loads(lock.read_text())["adapter"]
    assert (table["from"], len(table["digest"])) == (str(start / "adapter"), 64)
    assert (table["r"], table["lora_alpha"], table["use_rslora"]) == (2, 6, True)
    assert table["target_modules"] == ["q_proj", "v_proj"]
    (project.folder / "job.toml").write_text(lock.read_text())
    assert project.perform().losses == first.losses
    config = json_of(first.folder.path / "adapter" / "adapter_config.json")
    assert (config["r"], config["lora_alpha"], sorted(config["target_modules"])) == (2, 6, ["q_proj", "v_proj"])


def test_a_run_is_found_by_its_name_and_a_later_one_does_not_count(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGE_RUNS", str(project.runs))
    start = sft(project)
    shutil.move(project.folder / "runs" / "job", project.folder / "runs" / "first")
    start = project.folder / "runs" / "first" / start.name
    project.write(adapter={**FRESH, "from": "first"})
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.folder.plan().decided("adapter.from") == str(start / "adapter")
    whole = weights(done)
    shutil.copytree(start, start.with_name("later"))
    cut_after(done.folder, 2)
    again = resumed(done.folder)
    assert again.code == 0, again.printed
    assert all(torch.equal(whole[name], value) for name, value in weights(again).items())


@pytest.mark.slow
@pytest.mark.parametrize("format_", ["adapter", "merged"])
def test_an_export_is_of_the_trained_adapter(project: Project, rows: Rows, format_: str) -> None:
    start = sft(project)
    rows(pairs())
    project.write(adapter={**FRESH, "from": str(start)}, train={"method": "dpo"}, export=[{"format": format_}])
    project.forge("run", "job.toml")
    (export,) = project.runs.glob(f"*/*/exports/*{format_}*/*.safetensors")
    assert ".ref." not in str(load_file(export).keys())
    if format_ == "adapter":
        card = (export.parent / "README.md").read_text(encoding="utf-8")
        assert "r = 4" in card


def test_another_chat_template_or_base_than_the_adapters_is_told(project: Project) -> None:
    start = sft(project)
    changed(start, base_model_name_or_path="org/other")
    (start / "adapter" / "chat_template.jinja").write_text("{{ messages }}")
    project.write(adapter={**FRESH, "from": str(start)}, train={"max_steps": 1, "save_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    told = [event["message"] for event in done.of_kind("warning")]
    assert any("was made for org/other" in each for each in told)
    assert any("has another chat template" in each for each in told)


def changed(start: Path, **config: Any) -> None:
    path = start / "adapter" / "adapter_config.json"
    path.write_text(json.dumps({**json_of(path), **config}))


def wrong_shape(start: Path) -> None:
    path = start / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    save_file({name: torch.zeros(value.shape[0], value.shape[1] + 2) for name, value in tensors.items()}, path)
    (start / "trained.json").unlink()


REFUSED: list[tuple[str, Any, dict[str, Any], str]] = [
    ("rank", None, {"r": 8}, r"adapter.r: the adapter .* has 4, and goes on as it is"),
    ("targets", None, {"target_modules": ["q_proj"]}, "adapter.target_modules: .* goes on as it is"),
    ("start", None, {"init_lora_weights": "gaussian"}, "it is for a new adapter"),
    ("kind", lambda start: changed(start, peft_type="IA3"), {}, "of peft's type IA3"),
    ("classifier", lambda start: changed(start, task_type="SEQ_CLS"), {}, "gives numbers"),
    ("digest", None, {"digest": "0" * 64}, "adapter.digest: .* is another one"),
    ("none", lambda start: (start / "adapter" / "adapter_model.safetensors").unlink(), {}, "no weights of an adapter"),
    ("unfinished", lambda start: (start / "trained.json").unlink(), {}, "has left no adapter yet"),
    ("shape", wrong_shape, {"from": "adapter"}, "the model has"),
]


@pytest.mark.parametrize(("spoil", "adapter", "why"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_what_does_not_fit_is_told_before_anything_is_loaded(
    project: Project, spoil: Any, adapter: dict[str, Any], why: str
) -> None:
    start = sft(project)
    if spoil:
        spoil(start)
    place = str(start / adapter.pop("from")) if "from" in adapter else str(start)
    project.write(adapter={**FRESH, **adapter, "from": place})
    with pytest.raises((JobError, PlanError), match=why):
        project.prepare()


def test_another_base_is_refused_by_its_digest(project: Project) -> None:
    start = sft(project)
    config = project.folder / "model" / "config.json"
    config.write_text(json.dumps({**json_of(config), "rms_norm_eps": 1e-5}))
    project.write(adapter={**FRESH, "from": str(start)})
    with pytest.raises(PlanError, match="was another model"):
        project.prepare()


def test_a_name_that_is_nothing_is_told_with_what_was_looked_for(project: Project) -> None:
    project.write(adapter={**FRESH, "from": "no-such-run"})
    with pytest.raises(JobError, match="no such run in"):
        project.prepare()
    project.write(adapter={**FRESH, "from": str(project.folder / "model")})
    with pytest.raises(JobError, match="holds a whole model and no adapter"):
        project.prepare()


def test_the_adapters_files_are_watched_on_a_resume(project: Project) -> None:
    start = sft(project)
    project.write(adapter={**FRESH, "from": str(start)})
    done = project.perform()
    assert done.code == 0, done.printed
    assert str(start / "adapter") + "/adapter_model.safetensors" in (done.folder.inputs() or {})


def test_a_finished_run_says_why_it_is_not_made_longer_and_what_trains_on(project: Project) -> None:
    start = RunFolder(sft(project))
    with pytest.raises(RunError, match=r"its learning rate with it \(linear\)") as told:
        refuse_changes(start, [change_of("train.max_steps=6")])
    said = str(told.value).split("forge run ")[1].split(" --set ")
    assert said[1:] == [f"adapter.from={start.path}", "train.max_steps=6"]
    project.write(adapter={"from": str(start.path)}, train={"max_steps": 1, "save_steps": 1})  # the rest may stay
    done = project.perform()
    assert done.code == 0, done.printed

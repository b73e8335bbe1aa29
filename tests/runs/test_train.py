"""A run in one process: what is trained, written and told."""

from __future__ import annotations

import json

import pytest
import tomli
import torch
from safetensors.torch import load_file

from forge.api import AdapterTable, ModelError
from forge.api.plan import Task
from forge.errors import PlanError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from forge_huggingface.methods import METHODS
from forge_huggingface.model.adapt import target_modules
from forge_huggingface.training.train import make_trainer
from support.projects import Project, json_of


def test_a_run_leaves_weights_tokenizer_card_and_a_record(project: Project) -> None:
    done = project.perform()
    assert done.code == 0, done.printed
    trained = done.folder.trained()
    assert trained is not None
    assert (trained.kind, trained.weights, trained.task) == ("adapter", "adapter", "text")
    names = {path.name for path in (done.folder.path / "adapter").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= names
    assert "lora" in (done.folder.path / "README.md").read_text()
    assert [event["step"] for event in done.of_kind("step")] == [1, 2, 3, 4]


def test_the_same_seed_trains_the_same_bits(project: Project) -> None:
    project.write(adapter={"lora_dropout": 0.1})
    first, second = project.perform(), project.perform()
    weights = [done.folder.path / "adapter" / "adapter_model.safetensors" for done in (first, second)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert first.losses == second.losses


def test_the_probe_changes_nothing_that_is_trained(project: Project) -> None:
    project.write(adapter={"lora_dropout": 0.1})
    with_probe = project.perform()
    project.write(adapter={"lora_dropout": 0.1}, train={"probe": False})
    without = project.perform()
    assert len(with_probe.of_kind("probe")) == 1
    assert not without.of_kind("probe")
    assert with_probe.losses == without.losses
    counted = [[event["num_tokens"] for event in done.of_kind("step")] for done in (with_probe, without)]
    assert counted[0] == counted[1]


def test_full_fine_tuning_trains_and_saves_every_weight(project: Project) -> None:
    project.write(adapter={"type": "none", "r": None, "lora_alpha": None}, train={"learning_rate": 1e-3})
    done = project.perform()
    assert done.code == 0, done.printed
    adapted = done.of_kind("adapted")[0]
    assert adapted["trainable"] == adapted["all"]
    trained = done.folder.trained()
    assert trained is not None
    assert trained.kind == "full"
    assert (done.folder.path / "model" / "model.safetensors").exists()


def test_training_learns_what_it_is_shown(project: Project) -> None:
    rows = [{"prompt": "Name a colour:", "completion": " green"}] * 8
    (project.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    every = {"type": "none", "r": None, "lora_alpha": None}
    project.write(
        adapter=every, train={"max_steps": 40, "learning_rate": 2e-2, "save_strategy": "no", "save_steps": None}
    )
    losses = project.perform().losses
    assert losses[-1] < losses[0] / 4


def test_the_lock_is_a_job_that_gives_the_same_run(project: Project) -> None:
    first = project.perform()
    lock = first.folder.path / "job.lock.toml"
    values = tomli.loads(lock.read_text())
    assert values["data"]["digest"] == json_of(first.folder.path / "data.json")["digest"]
    assert values["model"]["dtype"] == "float32"
    (project.folder / "job.toml").write_text(lock.read_text())
    assert project.perform().losses == first.losses


def test_rows_other_than_the_locks_are_refused(project: Project) -> None:
    project.write(data={"digest": "0" * 64})
    done = project.perform()
    assert done.code == 2
    assert "not those that the job names" in done.error["what"]


def test_evaluation_stops_early_and_keeps_the_best(project: Project) -> None:
    train = {
        "max_steps": 40,
        "learning_rate": 0.3,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 2,
        "load_best_model_at_end": True,
        "early_stopping_patience": 2,
        "lr_scheduler_type": "constant",
    }
    project.write(data={"eval_size": 4}, train=train)
    done = project.perform()
    assert done.code == 0, done.printed
    evaluations = done.of_kind("eval")
    trained = done.folder.trained()
    assert trained is not None
    best = min(evaluations, key=lambda event: event["eval_loss"])
    assert trained.best_step == best["step"]
    assert evaluations[-1]["step"] < 40
    assert (done.folder.checkpoints / f"checkpoint-{best['step']}").exists()


def test_accumulated_small_batches_train_like_one_large_batch(project: Project) -> None:
    project.write(train={"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 3})
    large = project.perform().losses
    project.write(train={"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 3})
    assert project.perform().losses == pytest.approx(large, rel=1e-5)


def test_packed_rows_train(project: Project) -> None:
    project.write(data={"packing": True}, train={"per_device_train_batch_size": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.of_kind("data")[0]["packed"] < done.of_kind("data")[0]["rows"]


def test_streamed_rows_train(project: Project) -> None:
    project.write(data={"streaming": True})
    done = project.perform()
    assert done.code == 0, done.printed
    assert len(done.losses) == 4


@pytest.mark.parametrize("adapter", [{"use_rslora": True}, {"use_dora": True}, {"target_modules": "all-linear"}])
def test_each_kind_of_lora_trains(project: Project, adapter: dict[str, object]) -> None:
    project.write(adapter=adapter, train={"max_steps": 2, "save_strategy": "no", "save_steps": None})
    done = project.perform()
    assert done.code == 0, done.printed
    config = json_of(done.folder.path / "adapter" / "adapter_config.json")
    for key, value in adapter.items():
        assert config[key] == value or value == "all-linear"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "v_prj",
            "fits no layer of the model; there are down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj",
        ),
        ("input_layernorm", 'is no layer that LoRA takes; train it whole: modules_to_save = ["input_layernorm"]'),
        ("mlp", "is a block of several modules; name layers in it: down_proj, gate_proj, up_proj"),
        ("act_fn", "fits no layer of the model"),
    ],
)
def test_a_target_that_lora_does_not_take_is_refused_when_planned(project: Project, name: str, said: str) -> None:
    project.write(adapter={"target_modules": ["q_proj", name]})
    with pytest.raises(PlanError) as caught:
        project.prepare()
    assert f"target_modules: {name} {said}" in str(caught.value)


def test_what_planning_does_not_know_by_name_is_refused_as_what_it_is() -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=16, **size))
    with pytest.raises(ModelError, match=r'output layer.*; train it whole: modules_to_save = \["lm_head"\]'):
        target_modules(model, AdapterTable(target_modules="lm_head"))


def test_what_lora_does_not_take_is_trained_whole_as_the_message_says(project: Project) -> None:
    project.write(adapter={"modules_to_save": ["embed_tokens", "lm_head", "input_layernorm"]}, train={"max_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed


def test_a_dry_run_measures_and_trains_nothing(project: Project) -> None:
    done = project.perform(task=Task.DRY_RUN)
    assert done.code == 0, done.printed
    found = done.of_kind("dry-run")[0]
    assert found["steps"] == 4
    assert found["memory"] > 0
    assert not done.of_kind("step")
    assert done.folder.trained() is None
    assert not (done.folder.path / "adapter").exists()


def test_four_bits_train_where_bitsandbytes_runs(project: Project) -> None:
    pytest.importorskip("bitsandbytes")
    project.write(model={"load_in_4bit": True}, train={"max_steps": 2})
    done = project.perform()
    assert done.code == 0, done.printed
    assert len(done.losses) == 2
    saved = load_file(done.folder.path / "adapter/adapter_model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.float32}  # TRL would have made it bfloat16
    assert done.of_kind("adapted")[0]["dtypes"] == ["float32"]


def test_a_cpu_computes_in_bfloat16_if_the_job_says_so(project: Project) -> None:
    project.write(train={"max_steps": 2, "bf16": True})
    done = project.perform()
    assert done.code == 0, done.printed
    assert len(done.losses) == 2


def test_every_trainer_argument_is_told_and_kept(project: Project) -> None:
    given = {"weight_decay": 0.01, "max_grad_norm": 0.5, "lr_scheduler_type": "cosine", "seed": 7, "optim": "adafactor"}
    project.write(train=given)
    run, _folder = project.prepare()
    job = settle(load_job(run.plan.job), run.plan.decisions)
    stages = Stages(run, job)
    data = stages.collate()
    trainer = make_trainer(METHODS["sft"], job, run, stages.adapt(stages.load(data)), data)
    kept = {name: getattr(trainer.args, name) for name in given}
    assert {name: getattr(value, "value", value) for name, value in kept.items()} == given


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rank_pattern", {"q_prj": 8}),
        ("alpha_pattern", {"nothing": 8}),
        ("exclude_modules", ["k_prj"]),
        ("layers_to_transform", [7]),
        ("modules_to_save", ["embed"]),
    ],
)
def test_a_name_that_peft_would_ignore_is_refused(project: Project, key: str, value: object) -> None:
    project.write(adapter={key: value})
    done = project.perform()
    assert done.code == 2, done.printed
    assert f"[adapter] {key}" in done.error["what"]


def test_a_tokenizer_that_training_changed_is_told_and_the_weights_are_on_record(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_huggingface.training import train as module

    save = module.save

    def meddle(model: object, processor: object, *rest: object) -> None:
        save(model, processor, *rest)
        processor.chat_template = "{{ messages }}"  # type: ignore[attr-defined]

    monkeypatch.setattr(module, "save", meddle)
    project.write(train={"max_steps": 1})
    done = project.perform()
    assert done.code == 1
    assert "training changed the tokenizer" in done.error["what"]
    assert done.folder.trained() is not None

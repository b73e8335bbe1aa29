"""Every method trains from a job file, shows its rows, and leaves weights that load."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from forge.disk.events import read_events
from support.projects import json_of
from support.rows import METHODS, ONLINE, pairs, prompts, ratings
from support.tiny_seq2seq import make_t5

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.projects import Project


@pytest.mark.parametrize("method", METHODS)
def test_a_job_names_the_method_and_gets_weights(
    project: Project, rows: Callable[[Sequence[Any]], None], method: str
) -> None:
    make, options = METHODS[method]
    rows(make())
    project.write(train={"method": method, **options})
    done = project.perform()
    assert done.code == 0, done.printed
    assert [event["step"] for event in done.of_kind("step")] == [1, 2, 3, 4]
    assert (done.folder.path / "adapter" / "adapter_model.safetensors").exists()
    assert not [path.name for path in (done.folder.path / "adapter").iterdir() if path.is_dir()]  # no second adapter
    assert len(done.of_kind("probe")) == 1


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_reference_that_is_asked_before_gives_the_same_losses(
    project: Project, rows: Callable[[Sequence[Any]], None], method: str
) -> None:
    rows(METHODS[method][0]())
    losses = []
    for keys in ({}, {"precompute_ref_log_probs": True, "precompute_ref_batch_size": 3}):
        project.write(data={"eval_size": 4}, train={"method": method, "max_steps": 2, **keys})
        done = project.perform()
        assert done.code == 0, done.printed
        assert len(done.of_kind("eval")) == 1
        losses.append(done.losses)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_the_card_of_a_reward_model_says_how_to_load_it(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    rows(pairs())
    project.write(train={"method": "reward", "max_steps": 1, "save_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    card = (done.folder.path / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text-classification" in card
    code, found = card.partition("```python")[2].partition("```")[0], {}
    exec(code.replace("path/to/this", str(done.folder.path / "adapter")), found)
    assert found["model"].config.num_labels == 1


def test_too_little_memory_for_the_reference_is_told_as_such(
    project: Project, rows: Callable[[Sequence[Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from trl import DPOTrainer

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    rows(pairs())
    project.write(train={"method": "dpo", "precompute_ref_log_probs": True, "precompute_ref_batch_size": 4})
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", full)
    done = project.perform()
    assert (done.error["type"], done.error["what"]) == (
        "OutOfMemory",
        "out of memory while the reference was asked, before the first step",
    )
    assert "[train] precompute_ref_batch_size = 2" in done.error["do"]


def test_a_weight_of_zero_leaves_one_kind_of_rating_out(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    rows(ratings())
    project.write(train={"method": "kto", "max_steps": 1, "save_steps": 1, "undesirable_weight": 0.0})
    done = project.perform()
    assert done.code == 0, done.printed
    assert not done.of_kind("warning")


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"train": {"loss_type": "dft"}}, "train.loss_type: TRL has it for models that only decode"),
        ({"data": {"packing": True}}, "data.packing: an encoder-decoder model cannot put several rows into one"),
        ({"data": {"train_on": "all"}}, "data.train_on: under an encoder-decoder model"),
        ({"data": {"chat_template": "chatml"}}, "data.chat_template: an encoder-decoder model reads the text as it is"),
    ],
)
def test_what_an_encoder_decoder_trainer_would_not_follow_is_a_mistake(
    project: Project, tables: dict[str, Any], words: str
) -> None:
    shutil.rmtree(project.folder / "model")
    make_t5(project.folder / "model")
    project.write(**tables)
    assert words in " ".join(project.forge("plan", "job.toml", code=2).split())


@pytest.mark.slow
def test_an_encoder_decoder_model_learns_from_one_text_to_another(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    shutil.rmtree(project.folder / "model")
    make_t5(project.folder / "model")
    rows([{"prompt": f"Count to {index}.", "completion": "one two three"} for index in range(12)])
    project.write(train={"method": "sft", "max_steps": 12, "save_steps": 6}, export=[{"format": "merged"}])
    project.forge("run", "job.toml")
    folder = project.newest()
    losses = [event["loss"] for event in read_events(folder.events) if event["kind"] == "step"]
    assert losses[-1] < losses[0] - 0.5
    trained = folder.trained()
    assert trained is not None
    assert (trained.task, json_of(folder.path / "data.json")["layout"]) == ("seq2seq", "seq2seq")
    report = json_of(folder.path / "exports" / "1-merged" / "export.json")["report"]
    assert report["error"] < 1e-4


@pytest.mark.slow
def test_a_reward_model_gives_the_better_answer_the_higher_number_and_merges(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    rows(pairs(24))
    project.write(
        data={"eval_size": 6},
        train={"method": "reward", "max_steps": 20, "save_steps": 20},
        export=[{"format": "merged"}],
    )
    project.forge("run", "job.toml")
    folder = project.newest()
    trained = folder.trained()
    assert trained is not None
    assert trained.task == "reward"
    assert trained.metrics["eval_accuracy"] == 1.0
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder.path / "exports" / "1-merged")
    assert model.config.num_labels == 1


def test_a_column_that_a_reward_needs_is_missed_before_the_model_is_loaded(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    rows([{"prompt": row["prompt"], "wnted": "the"} for row in prompts()])
    project.write(train={"method": "grpo", **ONLINE, "reward": [{"use": "./rewards.py:wanted"}]})
    done = project.perform()
    assert done.code == 2
    assert "wanted" in done.error["what"] + done.error["why"]
    assert "wnted" in str(done.error)
    assert not done.of_kind("loaded")


def test_answers_and_their_rewards_are_told_and_a_collapse_stops_the_run(
    project: Project, rows: Callable[[Sequence[Any]], None]
) -> None:
    rows(prompts())
    (project.folder / "rewards.py").write_text("def same(*, completions, **_):\n    return [1.0] * len(completions)\n")
    options = {**ONLINE, "reward": [{"use": "./rewards.py:same"}], "collapse_patience": 2, "max_steps": 12}
    project.write(train={"method": "grpo", **options})
    done = project.perform()
    assert done.code == 0, done.printed
    assert [event["step"] for event in done.of_kind("step")] == [1, 2]
    assert any("had the same reward" in warning["message"] for warning in done.of_kind("warning"))
    told = done.of_kind("answers")[0]["answers"]
    assert len(told) == 2
    assert told[0]["rewards"] == {"same": 1.0}
    assert "Write one sentence" in told[0]["prompt"]  # TRL 1.14 tells the rendered text


def test_columns_of_a_trainers_names_reach_the_rewards_and_a_last_step_without_a_reward_ends_well(
    project: Project,
) -> None:
    (project.folder / "odd.py").write_text(
        "STEP = []\n"
        "def odd(*, completions, completion, image, images):\n"
        "    STEP.append(1)\n"
        "    assert completion[0] == 'mine' and image[0] == 'i.png' and images[0] is None\n"
        "    return [None if len(STEP) > 1 else float(len(STEP) + index) for index, _ in enumerate(completions)]\n"
    )
    rows = [{"prompt": f"{n} + 1 is", "completion": "mine", "image": "i.png", "images": None} for n in range(4)]
    (project.folder / "odd.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {
        "method": "grpo",
        "num_generations": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": 4,
        "max_steps": 2,
        "reward": [{"use": "./odd.py:odd"}],
    }
    project.write(data={"path": "odd.jsonl"}, train=train, export=[{"format": "adapter"}])
    done = project.perform()
    assert done.code == 0, done.printed
    trained = done.folder.trained()
    assert trained is not None
    assert trained.metrics["reward"] == 1.5  # of the last step that had one
    assert (done.folder.path / trained.weights / "README.md").is_file()

"""A reward model judges answers: the run of a reward job, a folder, and what is none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import ForgeError
from support.projects import Project, json_of
from support.rows import ONLINE, pairs, prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rows = Callable[[Sequence[Any]], None]


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Project:
    """A project with a run of ``reward``, in ``runs/job``; its merged model is in ``whole``."""
    made = Project(tmp_path_factory.mktemp("judges") / "project", tiny_model)
    (made.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs()), encoding="utf-8")
    made.write(train={"method": "reward", "learning_rate": 0.05})
    done = made.perform()
    assert done.code == 0, done.printed
    whole(made.folder / "whole", done.folder.path / "adapter", tiny_model)
    return made


def whole(folder: Path, adapter: Path, base: Path) -> None:
    """Write the reward model as one without an adapter."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    PeftModel.from_pretrained(model, str(adapter)).merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(folder)


def trained_by(project: Project, model: str, **train: Any) -> Any:
    project.write(train={"method": "grpo", **ONLINE, "max_steps": 2, "reward": [{"model": model}], **train})
    return project.perform()


def test_a_run_of_reward_judges_as_its_merged_model_does(project: Project, rows: Rows, judges: Project) -> None:
    rows(prompts())
    found = []
    for model, name in (
        (str(judges.newest().path), judges.newest().path.name),
        (str(judges.folder / "whole"), "whole"),
    ):
        done = trained_by(project, model)
        assert done.code == 0, done.printed
        told = [event["message"] for event in done.of_kind("note") if "judges answers" in event["message"]]
        assert len(told) == 1
        assert told[0].endswith("parameters in float32 on cpu, frozen")
        found.append([step[f"rewards/{name}/mean"] for step in done.of_kind("step")])
        assert all(found[-1])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    lock = (done.folder.path / "job.lock.toml").read_text(encoding="utf-8")
    assert f'model = "{judges.folder / "whole"}"' in lock
    assert any("whole/model.safetensors" in name for name in json_of(done.folder.path / "inputs.json"))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"model": "model"}, "gives no number for a text: its config.json names LlamaForCausalLM"),
        ({"model": "./nowhere"}, "there is no reward model ./nowhere"),
        ({"model": "two"}, "gives 2 numbers for a text: a reward is one"),
        ({"model": "whole", "use": "length"}, "use names a reward already"),
        ({"model": "whole", "args": {"max": 3}}, "a reward model takes none"),
        ({}, "it names no reward; write use, or model"),
        ({"use": "length", "args": {"max": 3}, "revision": "main"}, "a function has no revision"),
    ],
)
def test_what_is_no_reward_model_is_a_mistake(
    project: Project, judges: Project, table: dict[str, Any], words: str
) -> None:
    for name in ("whole", "two"):
        shutil.copytree(judges.folder / "whole", project.folder / name)
    config = project.folder / "two" / "config.json"
    config.write_text(json.dumps({**json_of(config), "id2label": {"0": "a", "1": "b"}}), encoding="utf-8")
    project.write(train={"method": "grpo", **ONLINE, "reward": [table]})
    with pytest.raises(ForgeError) as error:
        project.prepare()
    assert words in " ".join(str(error.value).split())


def test_a_run_of_another_method_is_no_reward_model(project: Project, trained: Any) -> None:
    _, run = trained
    project.write(train={"method": "grpo", **ONLINE, "reward": [{"model": str(run.path)}]})
    with pytest.raises(ForgeError, match="has trained no reward model"):
        project.prepare()


def test_answers_that_it_cannot_read_whole_are_told(project: Project, rows: Rows, judges: Project) -> None:
    shutil.copytree(judges.folder / "whole", project.folder / "whole")
    config = project.folder / "whole" / "config.json"
    config.write_text(json.dumps({**json_of(config), "max_position_embeddings": 16}), encoding="utf-8")
    rows(prompts())
    done = trained_by(project, "whole")
    assert "the reward whole failed" in done.error["what"]
    assert "tokens to it, and it reads 16" in done.error["why"]


def test_its_weights_are_counted(project: Project, judges: Project) -> None:
    project.write(train={"method": "grpo", **ONLINE, "reward": [{"model": str(judges.folder / "whole")}]})
    run, _ = project.prepare()
    (part,) = [part for part in run.plan.estimate.parts if part.name == "reward model"]
    assert part.bytes == (judges.folder / "whole" / "model.safetensors").stat().st_size


def test_an_adapter_without_its_head_is_none(project: Project, judges: Project) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(judges.newest().path / "adapter", project.folder / "headless")
    file = project.folder / "headless" / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if ".score" not in name}, file)
    project.write(train={"method": "grpo", **ONLINE, "reward": [{"model": "headless"}]})
    with pytest.raises(ForgeError, match="its head would start at random"):
        project.prepare()


def test_an_adapter_with_rows_of_new_tokens_is_to_be_merged(project: Project, judges: Project) -> None:
    shutil.copytree(judges.newest().path / "adapter", project.folder / "widened")
    file = project.folder / "widened" / "adapter_config.json"
    config = {**json.loads(file.read_text()), "trainable_token_indices": {"embed_tokens": [400]}}
    file.write_text(json.dumps(config))
    project.write(train={"method": "grpo", **ONLINE, "reward": [{"model": "widened"}]})
    with pytest.raises(ForgeError, match="has rows of tokens that its base does not have"):
        project.prepare()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_training_by_a_reward_model_is_trls_to_the_digit(
    project: Project, rows: Rows, judges: Project, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    import trl
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    from forge_huggingface.training import train

    made: list[Any] = []
    ours = train.make_trainer
    monkeypatch.setattr(train, "make_trainer", lambda *given: made.append(ours(*given)) or made[-1])
    rows(prompts())
    full = {"type": "none", "r": None, "lora_alpha": None}
    use = {**ONLINE, "method": method, "max_steps": 4, "learning_rate": 1e-3}
    project.write(train={**use, "reward": [{"model": str(judges.folder / "whole"), "weight": 0.5}]}, adapter=full)
    done = project.perform()
    assert done.code == 0, done.printed

    args = made[0].args
    args.output_dir = str(project.folder / "plain")
    plain = getattr(trl, f"{method.upper()}Trainer")(
        model=AutoModelForCausalLM.from_pretrained(project.folder / "model"),
        args=args,
        reward_funcs=[AutoModelForSequenceClassification.from_pretrained(judges.folder / "whole", num_labels=1)],
        reward_processing_classes=[AutoTokenizer.from_pretrained(judges.folder / "whole")],
        train_dataset=Dataset.from_list(prompts()),
        processing_class=AutoTokenizer.from_pretrained(project.folder / "model"),
    )
    plain.train()
    names = ("loss", "grad_norm", "reward", "reward_std", "rewards/whole/mean", "completions/mean_length")
    theirs = [[line[name] for name in names] for line in plain.state.log_history if "loss" in line]
    assert [[step[name] for name in names] for step in done.of_kind("step")] == theirs

"""Classifiers: rows with labels, decoders and encoders, and what is done with a run of them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from forge_huggingface.heads.labels import REGRESSION, SEVERAL, SINGLE
from support.projects import Finished, Project, json_of
from support.rows import labelled, lists, numbers
from support.tiny_encoders import make_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Rows = Callable[[Sequence[Any]], None]

WHOLE: dict[str, Any] = {"type": "none", "r": None, "lora_alpha": None}
ROWS = {SINGLE: labelled, SEVERAL: lists, REGRESSION: numbers}
LINEAR = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "bert": ["query", "key", "value", "dense"],
    "distilbert": ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"],
    "modernbert": ["Wqkv", "Wo", "Wi"],
    "roberta": ["query", "key", "value", "dense"],
}


def take(project: Project, family: str) -> None:
    """Have the project's model be an encoder."""
    if family != "llama":
        shutil.rmtree(project.folder / "model")
        make_encoder(project.folder / "model", family)


def trained(project: Project, **changes: Any) -> Finished:
    """Train a classifier, with four rows held out."""
    changes["train"] = {"method": "classification", **changes.get("train", {})}
    changes["data"] = {"eval_size": 4, **changes.get("data", {})}
    # What is left open is decided by the model's positions.
    project.write(**{"model": {"max_seq_length": None}, **changes})
    done = project.perform()
    assert done.code == 0, done.printed
    return done


class Plain:
    """A script of transformers' own for the rows of a run."""

    def __init__(self, project: Project, done: Finished, problem: str, adapter: dict[str, Any] | None) -> None:
        from datasets import Dataset
        from transformers import (
            AutoModelForSequenceClassification,
            AutoTokenizer,
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
            set_seed,
        )

        folder = project.folder / "model"
        every = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
        names = sorted({name for row in every for name in self.names(row)}) if problem != REGRESSION else []
        tokenizer = AutoTokenizer.from_pretrained(folder)
        set_seed(42)
        known = {"id2label": dict(enumerate(names))} if names else {"num_labels": 1}
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, problem_type=problem, dtype=torch.float32, **known
        )
        model.config.pad_token_id = tokenizer.pad_token_id
        if adapter is not None:
            from peft import LoraConfig, get_peft_model

            model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, lora_alpha=8, **adapter))
        targets = {
            SINGLE: lambda row: names.index(row["label"]),
            SEVERAL: lambda row: [float(name in row["label"]) for name in names],
            REGRESSION: lambda row: row["label"],
        }

        def encoded(origins: Any) -> Any:
            rows = [every[int(origin.rpartition(":")[2]) - 1] for origin in origins.read_text().splitlines()]
            return Dataset.from_list([{**tokenizer(row["text"]), "labels": targets[problem](row)} for row in rows])

        data = done.folder.path / "data"
        arguments = TrainingArguments(
            str(project.folder / "plain"),
            max_steps=4,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            remove_unused_columns=False,
        )
        self.trainer = Trainer(
            model,
            arguments,
            train_dataset=encoded(data / "train.origins"),
            eval_dataset=encoded(data / "eval.origins"),
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        self.trainer.train()

    @staticmethod
    def names(row: dict[str, Any]) -> list[str]:
        return row["label"] if isinstance(row["label"], list) else [row["label"]]

    @property
    def losses(self) -> list[float]:
        return [line["loss"] for line in self.trainer.state.log_history if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("problem", ROWS)
@pytest.mark.parametrize("family", LINEAR)
@pytest.mark.parametrize("kind", ["lora", "none"])
def test_a_classifier_trains_as_a_plain_script_of_transformers(
    project: Project, rows: Rows, family: str, kind: str, problem: str
) -> None:
    take(project, family)
    rows(ROWS[problem](20))
    done = trained(project, **({"adapter": WHOLE} if kind == "none" else {}))
    head = {"distilbert": ["pre_classifier"], "modernbert": ["head"], "bert": ["pooler"]}.get(family)
    # "dense" of the blocks alone, as forge takes it, and not the pooler's or the head's
    inner = rf".*layers?\.\d+\..*\.({'|'.join(LINEAR[family])})"
    plain = Plain(
        project, done, problem, None if kind == "none" else {"target_modules": inner, "modules_to_save": head}
    )
    assert done.losses == plain.losses
    ours = done.of_kind("eval")[-1]
    theirs = plain.trainer.evaluate()
    assert ours["eval_loss"] == pytest.approx(theirs["eval_loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("problem", ROWS)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_the_rows_of_a_step_count_alike_however_they_are_batched(
    project: Project, rows: Rows, family: str, problem: str
) -> None:
    """The last step of the epoch has rows for one batch and a half."""
    take(project, family)
    rows(ROWS[problem](17))  # 13 to train on: three steps of four rows, and one of one
    found = []
    dry = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0) if family == "bert" else {}
    for batch in (4, 1):
        sizes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": 4 // batch}
        model = {"max_seq_length": None, **({"config": dry} if dry else {})}
        found.append(trained(project, adapter=WHOLE, model=model, train={"max_steps": 8, **sizes}))
    assert found[1].losses == pytest.approx(found[0].losses, rel=1e-5)
    for name in ("eval_loss", "eval_mse" if problem == REGRESSION else "eval_accuracy"):
        first, second = (each.of_kind("eval")[-1][name] for each in found)
        assert second == pytest.approx(first, rel=1e-4)


def evaluation(project: Project, **changes: Any) -> Any:
    """Train, evaluate and export in real processes, and return the run's folder with what was found."""
    changes["train"] = {
        "method": "classification",
        "max_steps": 40,
        "save_steps": 40,
        "per_device_train_batch_size": 8,
        **changes.get("train", {}),
    }
    changes = {"model": {"max_seq_length": None}, "export": [{"format": "merged"}], **changes}
    project.write(**{**changes, "data": {"eval_size": 8}, "eval": {}})
    project.forge("run", "job.toml")
    folder = project.newest().path
    return folder, json_of(folder / "evaluation.json")


def pipelined(folder: Any) -> Any:
    """Return transformers' pipeline on a merged export."""
    from transformers import pipeline

    return pipeline("text-classification", model=str(folder / "exports" / "1-merged"), device="cpu")


def held(folder: Any, project: Project) -> list[dict[str, Any]]:
    every = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    origins = (folder / "data" / "eval.origins").read_text().splitlines()
    return [every[int(origin.rpartition(":")[2]) - 1] for origin in origins]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kind"), [("llama", "lora"), ("bert", "lora"), ("modernbert", "none")])
def test_the_pipeline_on_an_export_tells_what_the_evaluation_and_the_chat_tell(
    project: Project, rows: Rows, family: str, kind: str
) -> None:
    take(project, family)
    rows(labelled(48))
    whole = {"adapter": WHOLE, "train": {"learning_rate": 5e-3}}
    folder, found = evaluation(project, **(whole if kind == "none" else {}))
    asked = held(folder, project)
    classify = pipelined(folder)
    said = [classify(row["text"], top_k=None) for row in asked]
    right = [each[0]["label"] == row["label"] for each, row in zip(said, asked, strict=True)]
    entries = found["metrics"]
    assert entries["accuracy"]["tuned"]["value"] == sum(right) / len(right)
    assert entries["accuracy"]["tuned"]["value"] > entries["accuracy"]["base"]["value"]
    loss = -sum(
        torch.log(torch.tensor(next(score["score"] for score in each if score["label"] == row["label"]))).item()
        for each, row in zip(said, asked, strict=True)
    )
    assert entries["loss"]["tuned"]["value"] == pytest.approx(loss / len(said), rel=1e-3)
    chat = [sys.executable, "-P", "-m", "forge", "chat", "--json", str(folder)]
    done = subprocess.run(chat, input=f"{asked[0]['text']}\n", capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)["answer"]
    best = ", ".join(f"{each['label']} {each['score']:.4f}" for each in said[0])
    assert answer == best


@pytest.mark.slow
@pytest.mark.parametrize("problem", [SEVERAL, REGRESSION])
def test_several_labels_and_numbers_are_evaluated_and_exported(project: Project, rows: Rows, problem: str) -> None:
    rows(ROWS[problem](48))
    folder, found = evaluation(project)
    asked, classify = held(folder, project), pipelined(folder)
    assert classify.model.config.problem_type == problem
    if problem == SEVERAL:
        told = [{each["label"] for each in classify(row["text"], top_k=None) if each["score"] > 0.5} for row in asked]
        right = [each == set(row["label"]) for each, row in zip(told, asked, strict=True)]
        assert found["metrics"]["accuracy"]["tuned"]["value"] == sum(right) / len(right)
        return
    errors = [(classify(row["text"])[0]["score"] - row["label"]) ** 2 for row in asked]
    assert found["metrics"]["mse"]["tuned"]["value"] == pytest.approx(sum(errors) / len(errors), rel=1e-3)
    assert found["metrics"]["mse"]["tuned"]["value"] < found["metrics"]["mse"]["base"]["value"]


@pytest.mark.slow
def test_the_cards_lines_load_an_adapter_with_its_labels(project: Project, rows: Rows) -> None:
    rows(labelled(48))
    folder, _ = evaluation(project)
    found: dict[str, Any] = {}
    code = (folder / "adapter" / "README.md").read_text(encoding="utf-8").partition("```python")[2].partition("```")[0]
    exec(code.replace("path/to/this", str(folder / "adapter")), found)
    text = held(folder, project)[0]["text"]
    ours, theirs = found["classify"](text, top_k=None), pipelined(folder)(text, top_k=None)
    assert [each["label"] for each in ours] == [each["label"] for each in theirs]
    assert [each["score"] for each in ours] == pytest.approx([each["score"] for each in theirs], rel=1e-4)


def test_a_classifier_is_trained_with_its_labels_in_the_config(project: Project, rows: Rows) -> None:
    rows([*labelled(20), {"text": "a colour: green", "label": "rare"}])
    done = trained(project, adapter=WHOLE, data={"eval_size": None, "eval_path": "rows.jsonl"})
    config = json_of(done.folder.path / "model" / "config.json")
    assert config["id2label"] == {"0": "cold", "1": "count", "2": "green", "3": "rare"}
    assert config["problem_type"] == SINGLE
    assert config["pad_token_id"] == 0
    assert {"eval_loss", "eval_accuracy", "eval_f1"} <= done.of_kind("eval")[-1].keys()
    said = [event["message"] for event in done.of_kind("warning")]
    assert "one training row only has the label rare" in said
    assert "4 labels: cold 7, count 7, green 6, rare 1" in [event["message"] for event in done.of_kind("note")]
    assert json_of(done.folder.path / "data.json")["summary"]["counts"]["rare"] == 1


def test_a_head_is_trained_whole_beside_an_adapter_of_an_encoder(project: Project, rows: Rows) -> None:
    take(project, "distilbert")
    rows(labelled(16))
    done = trained(project, train={"max_steps": 1})
    assert json_of(done.folder.path / "adapter" / "labels.json") == {
        "problem_type": SINGLE,
        "labels": ["cold", "count", "green"],
    }
    saved = json_of(done.folder.path / "adapter" / "adapter_config.json")["modules_to_save"]
    assert {"pre_classifier", "classifier"} <= set(saved)
    notes = [event["message"] for event in done.of_kind("note")]
    assert "trained whole beside the adapter, and saved with it: pre_classifier, classifier" in notes


@pytest.mark.slow
def test_training_goes_on_from_a_classifier_and_refuses_one_of_other_labels(project: Project, rows: Rows) -> None:
    rows(labelled(20))
    first = trained(project, train={"labels": ["green", "count", "cold"]}).folder.path
    fresh = {"r": None, "lora_alpha": None, "from": str(first)}
    again = trained(project, adapter=fresh)
    assert json_of(again.folder.path / "adapter" / "labels.json")["labels"] == ["green", "count", "cold"]
    rows([{**row, "label": row["label"].upper()} for row in labelled(20)])
    project.write(adapter=fresh, train={"method": "classification"})
    done = project.perform()
    assert done.error["what"].endswith("is a classification of other labels")
    assert done.error["why"] == "it tells green, count, cold, the rows have COLD, COUNT, GREEN"


@pytest.mark.slow
def test_a_trained_classifier_is_trained_further_in_its_own_order_or_gets_a_new_head(
    project: Project, rows: Rows
) -> None:
    rows(labelled(20))
    done = trained(project, adapter=WHOLE, train={"labels": ["green", "count", "cold"]})
    shutil.rmtree(project.folder / "model")
    shutil.copytree(done.folder.path / "model", project.folder / "model")
    again = trained(project, adapter=WHOLE)
    assert json_of(again.folder.path / "model" / "config.json")["id2label"]["0"] == "green"
    assert again.losses[0] < done.losses[0]
    rows([{**row, "label": f"{row['label']}{index % 2}"} for index, row in enumerate(labelled(20))])
    other = trained(project)
    assert any("the head of model is for other labels" in event["message"] for event in other.of_kind("note"))
    assert other.losses[0] == pytest.approx(torch.tensor(6.0).log().item(), abs=0.6)
    # And merged: the head of the base is not in the way.
    project.forge("export", str(other.folder.path), "--format", "merged")


@pytest.mark.slow
def test_the_best_of_a_regression_is_the_one_of_the_smallest_error(project: Project, rows: Rows) -> None:
    rows(numbers(24))
    keys = {"load_best_model_at_end": True, "metric_for_best_model": "mse", "save_steps": 1, "eval_steps": 1}
    done = trained(project, train={**keys, "eval_strategy": "steps", "learning_rate": 0.3})
    errors = {event["step"]: event["eval_mse"] for event in done.of_kind("eval")}
    assert json_of(done.folder.path / "trained.json")["best_step"] == min(errors, key=lambda step: errors[step])


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"metric_for_best_model": "f1"}, "there is no f1 of a regression"),
        ({"label_smoothing_factor": 0.1}, "smoothing"),
    ],
)
def test_what_the_rows_make_wrong_is_told_before_the_model_is_loaded(
    project: Project, rows: Rows, keys: dict[str, Any], words: str
) -> None:
    rows(numbers(12))
    project.write(data={"eval_size": 4}, train={"method": "classification", **keys})
    done = project.perform()
    assert words in json.dumps(done.error)
    assert not done.of_kind("loaded")


@pytest.mark.slow
def test_a_trained_model_without_its_head_is_not_asked(project: Project, rows: Rows) -> None:
    from safetensors.torch import load_file, save_file

    rows(labelled(20))
    folder = trained(project, adapter=WHOLE).folder.path
    file = folder / "model" / "model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if "score" not in name}, file, {"format": "pt"})
    said = project.forge("chat", str(folder), code=None)
    assert "lacks 1 weights" in said

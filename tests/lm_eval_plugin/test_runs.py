"""A run that asks the harness's tasks, and the harness called plainly on what the run exported."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from support.projects import Project, json_of

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm_eval is not installed (pip install lm_eval)"),
]

NAMES = ("colours", "colours_words", "colours_text")


def plain(model: Path, tasks: Path, *, chat: bool) -> dict[str, Any]:
    """Return what ``lm_eval`` says of a folder, called as its users call it."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(model), "dtype": "float32"},
        tasks=list(NAMES),
        batch_size=8,
        device="cpu",
        task_manager=TaskManager(include_path=str(tasks)),
        apply_chat_template=chat,
    )
    assert found is not None
    return {**found["results"], **found.get("groups", {})}


@pytest.mark.parametrize("chat", [False, True])
def test_the_numbers_are_those_of_the_harness_on_the_exported_model(
    project: Project, tasks: Path, *, chat: bool
) -> None:
    project.write(
        train={"learning_rate": 0.05},
        eval={"metrics": [f"lm-eval:{name}" for name in NAMES]},
        plugins={"lm-eval": {"include_path": str(tasks), "apply_chat_template": chat}},
        export=[{"format": "merged"}],
    )
    output = project.forge("run", "job.toml")
    folder = next(project.runs.glob("*/*/trained.json")).parent
    found = json_of(folder / "evaluation.json")
    models = {"base": project.folder / "model", "tuned": folder / "exports" / "1-merged"}
    for who, model in models.items():
        due = plain(model, tasks, chat=chat)
        assert math.isclose(
            found["metrics"]["lm-eval:colours acc"][who]["value"], due["colours"]["acc,none"], abs_tol=1e-9
        )
        said = found["metrics"]["lm-eval:colours_words exact_match"][who]["value"]
        assert said == due["colours_words"]["exact_match,none"]
        said = found["metrics"]["lm-eval:colours_text word_perplexity"][who]["value"]
        assert math.isclose(said, due["colours_text"]["word_perplexity,none"], rel_tol=1e-4)
    perplexity = found["metrics"]["lm-eval:colours_text word_perplexity"]
    assert perplexity["base"]["value"] != perplexity["tuned"]["value"], "training has moved the model"
    assert "lm-eval:colours acc" in output
    assert "lm-eval:colours acc" in (folder / "README.md").read_text(encoding="utf-8")
    assert ("in the chat template" in found["report"]["lm_eval"]) is chat


UNSAFE = "output_type: generate_until\nunsafe_code: true\ndoc_to_text: q\ndoc_to_target: a\n"
ALIEN = 'output_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\nmetric_list: [{metric: "org/metric"}]\n'
DATA = (
    "dataset_path: org/not-there\ndataset_name: main\noutput_type: generate_until\ndoc_to_text: q\ndoc_to_target: a\n"
)


def test_what_would_fail_after_training_is_told_before_the_model_is_loaded(project: Project, tasks: Path) -> None:
    head = (tasks / "colours_words.yaml").read_text(encoding="utf-8").partition("output_type")[0]
    for name, text in (
        ("unsafe", head + UNSAFE),
        ("alien", head + ALIEN),
        ("gone", f"task: gone\ntest_split: a\n{DATA}"),
    ):
        (tasks / f"{name}.yaml").write_text(text.replace("colours_words", name), encoding="utf-8")
    for name, said in (
        ("colours_word", "did you mean colours_words?"),
        ("unsafe", "runs programs that the model writes"),
        ("alien", "org/metric, which is Python code of the hub"),
        ("gone", 'datasets.load_dataset("org/not-there", "main")'),
    ):
        project.write(eval={"metrics": [f"lm-eval:{name}"]}, plugins={"lm-eval": {"include_path": str(tasks)}})
        output = " ".join(project.forge("run", "job.toml", code=2, HF_HUB_OFFLINE="1").split())
        assert said in output, output
        assert "step 1" not in output


def test_tasks_are_asked_later_beside_the_jobs_own_metrics(project: Project, tasks: Path) -> None:
    project.write(data={"eval_size": 4})
    folder = project.perform().folder
    options = ["--set", f"plugins.lm-eval.include_path={tasks}", "--set", "plugins.lm-eval.limit=4"]
    project.forge("eval", str(folder.path), "--metric", "lm-eval:colours_words", "--metric", "exact-match", *options)
    found = json_of(folder.path / "evaluations" / "1.json")
    assert found["metrics"]["lm-eval:colours_words exact_match"]["tuned"]["n"] == 4
    assert {"loss", "exact-match"} <= found["metrics"].keys()
    assert {"base", "tuned"} <= found["samples"][-1]["answers"].keys()
    assert "limit 4" in found["report"]["lm_eval"]

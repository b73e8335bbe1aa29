"""Prompts with images: what the model is shown, what it learns from, and what cannot be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from support.looking import rewrite
from support.rows import ONLINE, REWARDS
from support.tiny_vlm import ARCHS, make_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.looking import Projects, VisionProject
    from support.projects import Project

ASK = {**ONLINE, "max_steps": 2, "num_generations": 2}


def furnish(project: VisionProject, *, both: bool = False) -> list[dict[str, Any]]:
    """Give a project prompts with images, every other without where ``both``, and rewards; return the rows."""
    (project.folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    names = make_pictures(project.folder / "pictures", 6)
    asked = [{"role": "user", "content": "Which colour is this?"}]
    rows = [
        {"prompt": asked, "number": index, **({} if both and index % 2 else {"images": [f"pictures/{name}"]})}
        for index, name in enumerate(names)
    ]
    rewrite(project, rows)
    return rows


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_model_that_sees_learns_from_rewards(seeing: VisionProject, method: str) -> None:
    furnish(seeing)
    seeing.write(train={**ASK, "method": method}, data={"eval_size": 2}, model={"max_seq_length": 512})
    done = seeing.perform()
    assert done.code == 0, done.printed
    assert [step["reward"] > 0 for step in done.of_kind("step")] == [True, True]
    assert done.of_kind("eval")
    (probed,) = done.of_kind("probe")
    assert probed["tokens"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("both", [False, True])
def test_every_family_does_and_rows_may_lack_images(projects: Projects, arch: str, both: bool) -> None:
    project = projects(arch)
    furnish(project, both=both)
    project.write(train={**ASK, "method": "grpo", "num_completions_to_print": 4}, model={"max_seq_length": 512})
    done = project.perform()
    assert done.code == 0, done.printed
    assert [step["reward"] > 0 for step in done.of_kind("step")] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_training_on_images_is_trls_to_the_digit(
    seeing: VisionProject, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    import trl
    from datasets import Dataset, Image, List
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from forge_huggingface.training import train
    from support.rewarding import loaded_from

    made: list[Any] = []
    ours = train.make_trainer
    monkeypatch.setattr(train, "make_trainer", lambda *given: made.append(ours(*given)) or made[-1])
    rows = furnish(seeing)
    full = {"type": "none", "r": None, "lora_alpha": None}
    seeing.write(train={**ASK, "method": method, "learning_rate": 1e-3}, adapter=full, model={"max_seq_length": 512})
    done = seeing.perform()
    assert done.code == 0, done.printed

    args = made[0].args
    args.output_dir = str(seeing.folder / "plain")
    shown = [{**row, "images": [str(seeing.folder / name) for name in row["images"]]} for row in rows]
    plain = getattr(trl, f"{method.upper()}Trainer")(
        model=AutoModelForImageTextToText.from_pretrained(seeing.folder / "model", dtype="float32"),
        args=args,
        reward_funcs=[loaded_from(seeing.folder / "rewards.py").length],
        train_dataset=Dataset.from_list(shown).cast_column("images", List(Image())),
        processing_class=AutoProcessor.from_pretrained(seeing.folder / "model"),
    )
    plain.train()
    names = ("loss", "grad_norm", "reward", "reward_std", "rewards/length/mean", "completions/mean_length")
    theirs = [[line[name] for name in names] for line in plain.state.log_history if "loss" in line]
    assert [[step[name] for name in names] for step in done.of_kind("step")] == theirs


@pytest.mark.slow
def test_the_preview_shows_what_the_model_is_asked_and_evaluation_asks_with_images(seeing: VisionProject) -> None:
    furnish(seeing)
    metrics = "def told(*, completions, **_):\n    return [len(text) for text in completions]\n"
    (seeing.folder / "metrics.py").write_text(metrics, encoding="utf-8")
    seeing.write(
        train={**ASK, "method": "grpo", "max_steps": 1, "save_steps": 1},
        data={"eval_size": 2},
        model={"max_seq_length": 512},
        eval={"metrics": ["./metrics.py:told"], "max_new_tokens": 4},
    )
    shown = seeing.forge("data", "job.toml", "--rows", "1")
    assert "Which colour is this?" in shown
    seeing.forge("run", "job.toml")
    found = json.loads((seeing.newest().path / "evaluation.json").read_text(encoding="utf-8"))
    assert found["metrics"]["told"]["tuned"]["n"] == 2


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Which?", "images": ["pictures/{}"]}, "has images and a plain text for a prompt"),
        ({"prompt": [{"role": "user", "content": "Which?"}], "images": ["nowhere.png"]}, "image 1 (nowhere.png)"),
        ({"prompt": [{"role": "user", "content": "<image> Which?"}]}, "has 1 places for an image"),
    ],
)
def test_a_wrong_image_is_told_with_its_row(seeing: VisionProject, row: dict[str, Any], words: str) -> None:
    furnish(seeing)
    name = min((seeing.folder / "pictures").iterdir()).name
    rewrite(seeing, [json.loads(json.dumps(row).replace("{}", name))])
    seeing.write(train={**ASK, "method": "grpo"}, model={"max_seq_length": 512})
    done = seeing.perform()
    assert words in str(done.error)


def test_a_model_of_text_is_shown_none(project: Project, rows: Callable[[Sequence[Any]], None]) -> None:
    part = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Which?"}]
    rows([{"prompt": [{"role": "user", "content": part}]}])
    project.write(train={"method": "grpo", **ASK})
    done = project.perform()
    assert done.error["what"] == "rows.jsonl:1 has images"
    assert "this model takes text only" in done.error["why"]

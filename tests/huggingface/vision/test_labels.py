"""What a vision model is taught: its answers and their end, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.methods import METHODS
from forge_huggingface.training.train import make_trainer
from forge_huggingface.vision.processors import image_tokens
from support.looking import Collated, rewrite, row
from support.tiny_vlm import ARCHS

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.looking import VisionProject

    Projects = Callable[[str], VisionProject]


def user(*parts: str) -> dict[str, Any]:
    content = [{"type": "image"} if part == "<>" else {"type": "text", "text": part} for part in parts]
    return {"role": "user", "content": content}


def says(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


PICTURES = [f"pictures/{index}.png" for index in range(4)]
TURNS = {
    "images": PICTURES[:3],
    "messages": [
        user("<>", "Which colour is this?"),
        says("It is red."),
        user("Compare both: ", "<>", " and ", "<>"),
        says("The first is green."),
    ],
}


@pytest.mark.parametrize("arch", ARCHS)
def test_labels_are_the_answers_and_their_end_and_nothing_else(projects: Projects, arch: str) -> None:
    project = projects(arch)
    rewrite(project, [row(PICTURES[0]), TURNS, row(PICTURES[1], "It is blue.")])
    seen = Collated(project)
    found = [seen.learnt(each).replace("\n", "") for each in seen.data.train]
    end = seen.tokenizer.eos_token
    assert found == [f"It is red.{end}", f"It is red.{end}The first is green.{end}", f"It is blue.{end}"]
    banned = image_tokens(seen.data.processor, project.folder / "model") | {seen.tokenizer.pad_token_id}
    batch = seen.batch()
    kept = batch["labels"][batch["labels"] != -100]
    assert not banned & set(kept.tolist())
    assert (batch["labels"][batch["attention_mask"] == 0] == -100).all()
    for each, labels in zip(seen.data.train, batch["labels"], strict=True):
        assert labels[: len(each["labels"])].tolist() == each["labels"]
        for picture in each["pictures"]:
            inside = each["labels"][picture["start"] : picture["end"]]
            assert inside
            assert set(inside) == {-100}


@pytest.mark.parametrize("arch", ARCHS)
def test_the_trainer_gets_the_rows_that_were_previewed(projects: Projects, arch: str) -> None:
    project = projects(arch)
    rewrite(project, [row(PICTURES[0]), TURNS, {"messages": [user("A colour?"), says("red")]}, row(PICTURES[2])])
    seen = Collated(project)
    assert seen.data.preview
    shown = seen.data.preview(seen.data, 9)
    trainer = make_trainer(METHODS["sft"], seen.job, seen.run, seen.model(), seen.data)
    trained = []
    for batch in trainer.get_train_dataloader():
        trainer.model(**{name: value for name, value in batch.items() if name != "num_items_in_batch"})
        for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
            count = int(mask.sum())
            trained.append((ids[:count].tolist(), labels[:count].tolist()))
    assert sorted((each["input_ids"], each["labels"]) for each in shown) == sorted(trained)


@pytest.mark.slow
def test_the_preview_shows_an_image_by_its_size(project: VisionProject) -> None:
    output = project.forge("data", "job.toml", "--rows", "1")
    assert "<image 60\N{MULTIPLICATION SIGN}40>Which colour is this?" in output.replace("<|vision_start|>", "")
    assert output.count("<image>") == 0
    assert "«It is red." in output


def test_training_on_everything_still_leaves_images_out(project: VisionProject) -> None:
    project.write(data={"train_on": "all"})
    seen = Collated(project)
    first = next(iter(seen.data.train))
    learnt = seen.learnt(first)
    assert "Which colour is this?" in learnt
    assert "image" not in learnt


def test_completion_only_teaches_the_last_answer(project: VisionProject) -> None:
    rewrite(project, [TURNS])
    project.write(data={"train_on": "completion"})
    seen = Collated(project)
    assert seen.learnt(seen.data.train[0]).strip() == "The first is green.<|im_end|>"


def test_prompt_and_completion_rows_take_images_in_both_forms(project: VisionProject) -> None:
    chat = {"prompt": [user("<>", "Which colour?")], "completion": [says("red")], "image": PICTURES[0]}
    rewrite(project, [chat, {"prompt": [user("Which colour?")], "completion": [says("red")], "image": PICTURES[0]}])
    seen = Collated(project)
    assert [seen.learnt(each).strip() for each in seen.data.train] == ["red<|im_end|>"] * 2
    assert seen.data.train[0]["input_ids"] == seen.data.train[1]["input_ids"]
    rewrite(project, [{"prompt": "Which colour?", "completion": "red", "images": [PICTURES[0]]}])
    again = Collated(project)
    assert again.data.train[0]["input_ids"] == seen.data.train[0]["input_ids"]


def test_images_without_a_place_stand_before_the_first_question(project: VisionProject) -> None:
    plain = [{"role": "user", "content": "Which colour is this?"}, says("It is red.")]
    rewrite(project, [row(PICTURES[0]), {"image": PICTURES[0], "messages": plain}])
    data = Collated(project).data
    assert data.train[0]["input_ids"] == data.train[1]["input_ids"]


def test_marks_in_a_text_are_places_if_the_row_has_images(project: VisionProject) -> None:
    marked = [{"from": "human", "value": "<image>Which colour is this?"}, {"from": "gpt", "value": "It is red."}]
    rewrite(project, [row(PICTURES[0])])
    first = Collated(project).data.train[0]
    rewrite(project, [{"image": PICTURES[0], "conversations": marked}])
    assert Collated(project).data.train[0]["input_ids"] == first["input_ids"]


def test_a_model_that_sees_is_trained_on_text_alone_too(projects: Projects) -> None:
    for arch in ("idefics3", "gemma3"):
        project = projects(arch)
        rewrite(project, [{"messages": [user("A colour?"), says("green")]}] * 4)
        done = project.perform()
        assert done.code == 0, done.printed
        assert done.losses[-1] < done.losses[0]
        rewrite(project, [{"prompt": "red,", "completion": " green"}] * 4)
        assert project.perform().code == 0


def test_a_template_for_text_has_no_place_for_images(project: VisionProject) -> None:
    project.write(data={"chat_template": "chatml"})
    done = project.perform()
    assert done.code == 2
    assert "has no place for images" in done.error["what"]


def test_an_answer_may_not_hold_an_image(project: VisionProject) -> None:
    bad = {"images": [PICTURES[0]], "messages": [user("Draw."), {"role": "assistant", "content": [{"type": "image"}]}]}
    rewrite(project, [bad])
    assert "has an image in an answer" in project.perform().error["what"]

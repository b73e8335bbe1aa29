"""Decoders with a vector for each position: nothing goes beyond them, and answers do not depend on their neighbours."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Prompt, Sampling
from support.evaluating import Evaluation, generator_of
from support.projects import Finished, Project
from support.tiny import make_gpt2

if TYPE_CHECKING:
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Finished]:
    """A finished run of a GPT-2 with 64 positions, under the default max_seq_length."""
    folder = tmp_path_factory.mktemp("gpt2")
    project = Project(folder / "project", make_gpt2(folder / "model"))
    rows = [{"prompt": "please " * count, "completion": "one"} for count in (1, 5)]
    text = "".join(json.dumps(row) + "\n" for row in rows * 6)
    (project.folder / "rows.jsonl").write_text(text, encoding="utf-8")
    project.write(
        model={"max_seq_length": None},
        data={"eval_size": 2, "on_bad_row": "drop"},
        train={"max_steps": 2, "save_steps": 2},
        eval={"metrics": ["f1"]},
    )
    assert "model.max_seq_length = 64: the model has 64 positions" in project.forge("plan", "job.toml")
    finished = project.perform()
    assert finished.code == 0, finished.printed
    return project, finished


def test_an_answer_does_not_depend_on_the_other_rows_of_its_batch(done: tuple[Project, Finished]) -> None:
    generator: Any = generator_of(done[1].folder)
    generator.settings = replace(generator.settings, stops=frozenset({10**6}))
    prompts = [Prompt(text="Say " * count) for count in (15, 2, 1)]
    sampling = Sampling(max_new_tokens=45)
    together, alone = (dict(generator.complete(prompts, sampling, batch_size=size)) for size in (3, 1))
    assert {index: answers[0].text for index, answers in together.items()} == {
        index: answers[0].text for index, answers in alone.items()
    }
    assert together[0][0].tokens < together[2][0].tokens == 45


def test_a_prompt_without_room_for_an_answer_is_a_long_row(done: tuple[Project, Finished]) -> None:
    project, finished = done
    path = project.folder / "others.jsonl"
    rows = [{"prompt": "Say " * 90}, {"prompt": "Say one."}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    evaluation = Evaluation(project, finished.folder)
    found = evaluation.found('eval.path="others.jsonl"', "eval.metrics=[]")
    assert (found["rows"], found["report"]["bad"], found["report"]["positions"]) == (1, 1, 64)
    wrong = evaluation('eval.path="others.jsonl"', "eval.metrics=[]", 'data.on_bad_row="error"')
    assert "the model has 64 positions, for prompt and answer" in str(wrong.error)

"""Runs on plain text: no chat template is put around the rows, and none around what is asked afterwards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from forge.api import Sampling
from support.evaluating import generator_of, heard
from support.projects import Project
from support.tiny import make_model

if TYPE_CHECKING:
    from pathlib import Path

ROWS = [{"prompt": f"What is {number} + {number}?", "completion": f" It is {2 * number}."} for number in range(8)]


def test_a_run_on_plain_questions_says_so_and_continues_them(project: Project) -> None:
    (project.folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    project.write(data={"path": "plain.jsonl", "eval_size": None}, train={"max_steps": 2})
    done = project.perform()
    assert done.code == 0, done.printed
    said = [event["message"] for event in done.of_kind("warning")]
    assert "plain.jsonl: its rows are plain text with an answer, so no chat template is put around them" in said
    assert done.folder.data()["summary"]["template"] is None  # type: ignore[index]  # it has been written
    generator = generator_of(done.folder)
    assert "what is written is continued" in generator.advice
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}]
    prompt = generator._prompt(asked)  # type: ignore[attr-defined]
    assert prompt.text == "What is 2 + 2?"
    stream = generator.chat([{"role": "user", "content": "What is 2 + 2?"}], Sampling(max_new_tokens=4))
    assert heard(stream)[1].tokens <= 4


def test_a_model_without_a_chat_template_is_talked_to_as_it_was_trained(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", make_model(tmp_path / "base", template=None))
    (project.folder / "plain.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    project.write(data={"path": "plain.jsonl", "eval_size": None}, train={"max_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    generator = generator_of(done.folder)
    stream = generator.chat([{"role": "user", "content": "What is 2 + 2?"}], Sampling(max_new_tokens=4))
    assert heard(stream)[1].tokens <= 4


def test_a_run_on_conversations_is_asked_by_its_template(project: Project) -> None:
    done = project.perform()
    assert not [event for event in done.of_kind("warning") if "plain text" in event["message"]]
    generator = generator_of(done.folder)
    prompt = generator._prompt([{"role": "user", "content": "What is 2 + 2?"}])  # type: ignore[attr-defined]
    assert prompt.text != "What is 2 + 2?"

"""Rows, metrics and rewards that plugins bring by a word."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import DataError, Job
from forge.api.functions import know
from forge_huggingface.functions.find import find
from forge_huggingface.functions.reference import reference
from forge_huggingface.functions.rules import function_problems
from forge_huggingface.sources.sources import iterate, left_out
from support.projects import perform_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODULE = """
def rows(path, job):
    for number in range(int(path)):
        yield {"text": f"row {number} of {job.name}"}

def odd(path):
    yield {"text": "one"}
    yield path

def breaks(path):
    return open(path)

def close(*, completions, references):
    return [a == b for a, b in zip(completions, references)]
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "w_reads.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    know({f"w/{name}": f"w_reads:{name}" for name in ("rows", "odd", "breaks", "close")})

    def make(path: str) -> Job:
        return Job.model_validate({"name": "a", "model": {"id": "m"}, "data": {"path": path}, "folder": tmp_path})

    yield make
    know({})


def test_a_reader_gives_rows_with_their_places(job: Any) -> None:
    asked = job("w/rows:2")
    found = list(iterate(asked, asked.data.all_sources()[0]))
    assert found == [("w/rows:2:1", {"text": "row 0 of a"}), ("w/rows:2:2", {"text": "row 1 of a"})]
    assert left_out(asked, asked.data.all_sources()) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("w/odd:x", "w/odd:x cannot be read: plugin w: TypeError: row 2 is a str; a row is a dict by column"),
        ("w/breaks:nowhere.db", "w/breaks:nowhere.db cannot be read: plugin w: FileNotFoundError"),
    ],
)
def test_what_a_reader_gets_wrong_is_told_with_its_plugin(job: Any, path: str, said: str) -> None:
    asked = job(path)
    with pytest.raises(DataError) as caught:
        list(iterate(asked, asked.data.all_sources()[0]))
    assert str(caught.value).startswith(said)


def test_a_word_that_no_plugin_has_is_a_path(job: Any) -> None:
    asked = job("w/none:2")
    with pytest.raises(DataError, match="w/none:2"):
        list(iterate(asked, asked.data.all_sources()[0]))


def test_a_function_of_a_plugin_is_found_and_checked_by_its_word(job: Any) -> None:
    refers = reference("w/close")
    assert (refers.kind, refers.place, refers.function) == ("module", "w_reads", "close")
    assert list(function_problems(job("d"), refers, "eval.metrics.0")) == []
    assert find(job("d"), refers, "[eval] metrics")(completions=["a"], references=["a"]) == [True]
    assert reference("w/other").kind == "builtin"
    problems = [str(each.message) for each in function_problems(job("d"), reference("w/rows"), "eval.metrics.0")]
    assert problems == ["rows takes no completions"]


@pytest.mark.usefixtures("job")
def test_rows_of_a_reader_are_collated_as_those_of_a_file(project: Any) -> None:
    texts = [f"row {number} of job" for number in range(4)]
    (project.folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    project.write(train={"max_steps": 1, "save_steps": 1}, name="job")
    plain = project.perform()
    know({"w/rows": "w_reads:rows"})
    run, folder = project.prepare()
    changed = {**run.plan.job, "data": {**run.plan.job["data"], "path": "w/rows:4"}}
    done = perform_in(replace(run, plan=replace(run.plan, job=changed, functions={"w/rows": "w_reads:rows"})), folder)
    assert (plain.code, done.code) == (0, 0), done.printed
    assert plain.of_kind("data")[0]["digest"] == done.of_kind("data")[0]["digest"]

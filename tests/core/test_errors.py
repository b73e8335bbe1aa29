"""Errors: they arrive in another process as what they were."""

from __future__ import annotations

import json

import pytest

from forge import errors
from forge.errors import BackendImportError, ForgeError, JobError, OutOfMemory, Problem, from_json

RELIEF = [{"key": "train.per_device_train_batch_size", "value": 1, "reason": "it did not fit"}]


def kinds(kind: type[ForgeError] = ForgeError) -> list[type[ForgeError]]:
    """Return every error of forge's own."""
    return [
        kind,
        *(each for child in kind.__subclasses__() if child.__module__ == errors.__name__ for each in kinds(child)),
    ]


def sent(error: ForgeError) -> ForgeError:
    """Send an error from one process to another."""
    return from_json(json.loads(json.dumps(error.to_json())))


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_an_error_keeps_its_class_its_parts_and_its_exit_code(kind: type[ForgeError]) -> None:
    made = JobError("job.toml", [Problem("a.b", "wrong", "mend it", 3)]) if kind is JobError else kind("a", "b", "c")
    again = sent(made)
    assert type(again) is kind
    assert (str(again), again.exit_code, vars(again)) == (str(made), made.exit_code, vars(made))


def test_out_of_memory_keeps_what_the_parent_may_try() -> None:
    again = sent(OutOfMemory("too small", probing=True, relief=RELIEF))
    assert isinstance(again, OutOfMemory)
    assert (again.probing, again.relief) == (True, RELIEF)


def test_an_import_that_failed_keeps_whose_it_was() -> None:
    again = sent(BackendImportError("no unsloth", plugin="unsloth-text"))
    assert isinstance(again, BackendImportError)
    assert again.plugin == "unsloth-text"


def test_the_mistakes_of_a_job_keep_their_lines() -> None:
    again = sent(JobError("job.toml", [Problem("train.lr", "unknown key", line=7), Problem("x", "missing")]))
    assert isinstance(again, JobError)
    assert [(problem.where, problem.line) for problem in again.problems] == [("train.lr", 7), ("x", None)]


def test_an_error_of_a_plugin_becomes_the_nearest_one_that_is_known_here() -> None:
    class MetricError(errors.DataError):
        pass

    data = MetricError("a", "b", "c").to_json()
    data["kinds"] = ["OfAnotherPlugin", *data["kinds"][1:]]
    assert type(from_json(data)) is errors.DataError
    assert type(from_json({"type": "Unknown", "what": "of forge 0.1"})) is ForgeError

"""Metrics are checked as rewards are: by the same rules, in the same words."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.job.job import Job
from forge_huggingface.evaluation.rules import problems
from forge_huggingface.rewards.rules import reward_problems

SOURCE = """\
def close(completions, references): ...
class Judge: ...
"""


def told(folder: Path, use: str) -> tuple[list[str], list[str]]:
    """Return what is said of a function, as a metric and as a reward."""
    (folder / "mine.py").write_text(SOURCE)
    data = {"path": "d.jsonl", "eval_size": 2}
    job = Job.model_validate({"model": {"id": "m"}, "data": data, "eval": {"metrics": [use]}, "folder": folder})
    rewarded = job.model_copy(update={"train": job.train.model_copy(update={"reward": [{"use": use}]})})
    said = (problems(job), reward_problems(rewarded))
    metric, reward = ([f"{each.message}; {each.do}" for each in found] for found in said)
    return metric, reward


@pytest.mark.parametrize(
    ("use", "said"),
    [
        ("./mine.py:close", None),
        ("./mine.py:Judge", "Judge is a class; name a function, or an instance that can be called"),
        ("./mine.py", 'names no function of ./mine.py; write "./mine.py:close"'),
        ("./mine.py:clos", "./mine.py has no function clos; did you mean close?"),
        ("./others.py:close", "there is no file {}/others.py; did you mean mine.py?"),
        ("mine:close", 'there is no module mine; for the file beside the job write "./mine.py:close"'),
    ],
)
def test_a_function_is_told_alike_as_metric_and_as_reward(tmp_path: Path, use: str, said: str | None) -> None:
    words = [] if said is None else [said.format(tmp_path)]
    assert told(tmp_path, use) == (words, words)

"""``[[train.reward]]``: mistakes in the tables themselves, and names."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from pydantic import BaseModel, ConfigDict, Field

from forge.discovery.catalogue import Catalogue
from forge.discovery.keys import PluginKeys
from forge.errors import JobError
from forge.job.check import JobCheck
from forge.job.read import parse
from forge_huggingface.rewards.table import RewardTable, names


class Options(BaseModel):
    """What a method with rewards adds to [train]."""

    model_config = ConfigDict(extra="forbid", strict=True)
    reward: list[RewardTable] = Field(default_factory=list)
    learning_rate: float = 1e-6


def mistakes(text: str) -> dict[str, tuple[int | None, str]]:
    """Return what the job's check says of a job's [train] table, by key: the line, and the words."""
    check = JobCheck(tomli.loads(text), text, PluginKeys(Catalogue(())))
    check.validate(Options, check.raw["train"], ("train",), check.unknown_core)
    return {each.where: (each.line, "; ".join(filter(None, (each.message, each.do)))) for each in check.problems}


TWO = """\
[train]
learning_rate = 1e-6

[[train.reward]]
use = "math-equal"

[[train.reward]]
use = "length"
{line}
"""


@pytest.mark.parametrize(
    ("line", "where", "at", "said"),
    [
        ("wieght = 0.5", "train.reward.1.wieght", 9, "unknown key; did you mean weight?"),
        ("function = 1", "train.reward.1.function", 9, "unknown key; known: args, model, name, revision, use, weight"),
        ('weight = "2"', "train.reward.1.weight", 9, 'must be a number, not the string "2"'),
        ("weight = inf", "train.reward.1.weight", 9, "must be a finite number, not inf"),
        ("args = 3", "train.reward.1.args", 9, "must be a table, not 3"),
        (
            'name = "two words"',
            "train.reward.1.name",
            9,
            'may hold letters, digits, dots, dashes and underscores only, not the string "two words"',
        ),
        ('[[train.reward]]\nuse = ""', "train.reward.2.use", 10, "must not be empty"),
        ("[[train.reward]]\nuse = 3", "train.reward.2.use", 10, "must be a string, not 3"),
    ],
)
def test_a_mistake_in_a_table_is_told_with_its_line(line: str, where: str, at: int, said: str) -> None:
    assert mistakes(TWO.replace("{line}", line)) == {where: (at, said)}


def test_an_inline_table_has_lines_too() -> None:
    text = '[train]\nreward = [\n  { use = "length" },\n  { use = "regex", arg = {} },\n]\n'
    assert mistakes(text) == {"train.reward.1.arg": (4, "unknown key; did you mean args?")}


def test_one_bracket_too_few_is_told() -> None:
    text = '[train]\nlearning_rate = 1e-6\n[train.reward]\nuse = "length"\n'
    said = "is one table; write [[train.reward]] with two brackets: there can be several"
    assert mistakes(text) == {"train.reward": (3, said)}


def test_sources_are_still_told_by_their_own_keys() -> None:
    text = '[model]\nid = "m"\n[[data.sources]]\npath = "d"\nwieght = 2.0\n'
    with pytest.raises(JobError) as caught:
        parse(text, "job.toml", Path("/jobs"), PluginKeys(Catalogue([])))
    assert "job.toml:5: data.sources.0.wieght: unknown key; did you mean weight?" in str(caught.value)
    with pytest.raises(JobError) as caught:
        parse(text.replace("[[data.sources]]", "[data.sources]"), "job.toml", Path("/jobs"), PluginKeys(Catalogue([])))
    assert "job.toml:3: data.sources: is one table; write [[data.sources]] with two brackets" in str(caught.value)


def test_every_reward_has_a_name_of_its_own() -> None:
    uses = ["regex", "./a.py:fn", "regex", "m:fn", "length"]
    tables = [RewardTable(use=use) for use in uses] + [RewardTable(use="choice", name="length")]
    assert names(tables) == ["regex", "fn", "regex-2", "fn-2", "length-2", "length"]

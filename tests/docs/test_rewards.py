"""docs/rewards.md shows functions that run and messages that forge prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli

from forge.job.locate import locate
from forge_huggingface.acting.load import load
from forge_huggingface.acting.rules import acting_problems
from forge_huggingface.rewards.reward import RewardError
from forge_huggingface.rewards.rules import reward_problems
from support.rewarding import Folder

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def of(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def test_the_function_shown_is_one(folder: Folder) -> None:
    (source,) = of("python")
    folder.file(source)
    shown = of("toml fragment")[0].partition("\n\n")[2]
    assert folder.problems(shown) == []
    brief = folder.load(shown)[1]
    assert (brief.columns, brief.weight) == (("answer",), 0.2)
    scores = brief.score(["p"] * 2, ["42" + "x" * 98, "41"], {"answer": ["42", "42"]})
    assert [(score.score, score.feedback) for score in scores] == [(0.5, None), (0.0, "The answer is not in the text.")]


def test_the_error_shown_is_what_such_a_function_gives(folder: Folder) -> None:
    reward = folder.one("def fn(completions, answer):\n    return [int(a) for a in answer]\n")
    reward.place = "job.toml:12"
    with pytest.raises(RewardError) as caught:
        reward.score(["p"] * 2, ["c"] * 2, {"answer": ["1", "x"], "origin": ["rows.jsonl:7", "rows.jsonl:9"]})
    assert of("text")[0].replace("\n", " ").strip() == str(caught.value)


def test_the_mistakes_shown_are_those_that_the_plan_tells(folder: Folder) -> None:
    folder.file("def close(*, completions, answer, tolerance=0.1): ...\n")
    text = of("toml fragment")[-1]
    found = []
    for problem in reward_problems(folder.job(text.partition("\n\n")[2])):
        line = locate(text, [int(part) if part.isdigit() else part for part in problem.where.split(".")])
        said = "; ".join(filter(None, (problem.message, problem.do))).replace(f"{folder.path}/", "./")
        found.append(f"  {line}: {problem.where}: {said}\n")
    assert of("text")[1] == "".join(found)


@pytest.mark.parametrize(("language", "key"), [("python tools", "tools"), ("python games", "environment")])
def test_the_tools_shown_are_some_that_a_model_can_be_told_of(folder: Folder, language: str, key: str) -> None:
    (source,) = of(language)
    folder.file(source, f"{language.partition(' ')[2]}.py")
    (shown,) = [text for text in of("toml fragment") if f"\n{key} = " in text]
    options = tomli.loads(shown)["train"]
    job = folder.job("")
    job = job.model_copy(update={"train": job.train.model_copy(update={key: options[key]})})
    assert list(acting_problems(job)) == []
    acting = load(job)
    assert acting is not None
    assert [each["function"]["name"] for each in acting.schemas()] == ["multiply" if key == "tools" else "guess"]

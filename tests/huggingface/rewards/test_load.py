"""Finding reward functions in the worker, and the columns that they need."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import UsageError
from forge.job.read import read
from forge.machine.probe import probe
from forge.planning.planner import make_plan
from forge_huggingface.facts.describe import describe
from forge_huggingface.rewards.load import check_columns, load
from support.projects import Project

if TYPE_CHECKING:
    from support.rewarding import Folder


def test_a_file_beside_the_job_is_found_and_may_import_its_neighbours(folder: Folder) -> None:
    folder.file("BONUS = 2\n", "neighbour_of_rewards.py")
    source = "from neighbour_of_rewards import BONUS\ndef fn(completions): return [BONUS for _ in completions]\n"
    reward = folder.one(source)
    assert [score.score for score in reward.score(["p"], ["c"], {})] == [2.0]
    assert str(folder.path) not in sys.path
    assert "rewards" not in sys.modules or sys.modules["rewards"].__file__ != str(folder.path / "rewards.py")


def test_a_file_cannot_stand_in_for_an_installed_module(folder: Folder) -> None:
    folder.file("raise RuntimeError('mine')\n", "colorsys.py")
    reward = folder.one(
        "import colorsys\ndef fn(completions): return [colorsys.rgb_to_hsv(0, 0, 0)[2]] * len(completions)\n"
    )
    assert reward.score(["p"], ["c"], {})[0].score == 0.0


def test_a_file_with_two_rewards_is_imported_once(folder: Folder) -> None:
    folder.file(
        "import pathlib\nwith pathlib.Path(__file__).with_name('log').open('a') as file: file.write('x')\n"
        "def one(completions): return [1] * len(completions)\n"
        "def two(completions): return [2] * len(completions)\n"
    )
    first, second = (
        '[[train.reward]]\nuse = "./rewards.py:one"\n',
        '[[train.reward]]\nuse = "rewards.py:two"\nweight = 0.5\n',
    )
    rewards = folder.load(first + second)
    assert [(reward.name, reward.weight) for reward in rewards] == [("one", 1.0), ("two", 0.5)]
    assert (folder.path / "log").read_text() == "x"


def test_a_function_of_an_installed_module_is_found(folder: Folder) -> None:
    (reward,) = folder.load('[[train.reward]]\nuse = "trl.rewards:think_format_reward"\n')
    assert reward.name == "think_format_reward"
    completion = [{"role": "assistant", "content": "<think>\nso\n</think>\n4"}]
    assert reward.score(["p"], [completion], {})[0].score == 1.0


def test_needed_columns_are_the_parameters_that_nobody_else_fills(folder: Folder) -> None:
    source = "def fn(prompts, completions, answer, unit, *, trainer_state=None, tolerance=0.1, scale, **columns): ..."
    reward = folder.one(source, "{ scale = 2 }")
    assert reward.columns == ("answer", "unit")


def test_lacking_columns_are_told_all_at_once_with_the_nearest_names(folder: Folder) -> None:
    folder.file("def fn(completions, answr, unit): ...\n")
    rewards = folder.load('[[train.reward]]\nuse = "./rewards.py:fn"\n[[train.reward]]\nuse = "math-equal"\n')
    check_columns(rewards, {"answer", "answr", "unit"})
    with pytest.raises(UsageError) as caught:
        check_columns(rewards, {"answers", "question"})
    assert str(caught.value) == (
        "the rows lack columns that rewards need: "
        "fn ([[train.reward]] number 1) needs answr; did you mean answers?, "
        "fn ([[train.reward]] number 1) needs unit; there are answers, question, "
        "math-equal ([[train.reward]] number 2) needs answer; did you mean answers?; "
        "rename it with [data] columns, or name it in the reward's args"
    )


USE = '[[train.reward]]\nuse = "./rewards.py:fn"\n'
BROKEN = [
    (
        "import nothing_of_this_name\ndef fn(completions): ...\n",
        "importing it failed: ModuleNotFoundError: No module named 'nothing_of_this_name' at rewards.py:1; mend it",
    ),
    (
        "def fn(completions): ...\n\n1 / 0\n",
        "importing it failed: ZeroDivisionError: division by zero at rewards.py:3; mend it",
    ),
    (
        "raise SystemExit(3)\n",
        "importing it failed: SystemExit: 3 at rewards.py:1; mend it",
    ),
    (
        "def other(completions): ...\n",
        "./rewards.py has no function fn; it has other",
    ),
    (
        "def fnn(completions): ...\n",
        "./rewards.py has no function fn; did you mean fnn?",
    ),
    (
        "fn = 3\n",
        "fn is an int; name a function, or an instance that can be called",
    ),
    (
        "class fn: ...\n",
        "fn is a class; name a function, or an instance that can be called",
    ),
    (
        "fn = lambda answer: [1]\n",
        "fn takes no completions; write it as def f(*, prompts, completions, **columns)",
    ),
]


@pytest.mark.parametrize(("source", "said"), BROKEN)
def test_a_function_that_cannot_be_used_is_an_error_before_training(folder: Folder, source: str, said: str) -> None:
    folder.file(source)
    with pytest.raises(UsageError) as caught:
        folder.load(USE)
    assert str(caught.value) == f"./rewards.py:fn cannot be used ([[train.reward]] number 1): {said}"


def test_args_that_the_function_does_not_take_are_an_error(folder: Folder) -> None:
    source = "import functools\nfn = functools.partial(lambda completions, scale=1: [1], scale=2)\n"
    with pytest.raises(UsageError, match=r"fn has no parameter scal; did you mean scale\?"):
        folder.one(source, "{ scal = 1 }")


def test_a_file_that_is_gone_is_an_error(folder: Folder) -> None:
    with pytest.raises(UsageError, match=r"there is no file .*rewards.py; restore it"):
        folder.load(USE)


def test_an_instance_that_can_be_called_is_a_function(folder: Folder) -> None:
    source = (
        "class Judge:\n    def __call__(self, completions, answer):\n"
        "        return [a == c for a, c in zip(answer, completions)]\nfn = Judge()\n"
    )
    reward = folder.one(source)
    assert reward.columns == ("answer",)
    assert [each.score for each in reward.score(["p"] * 2, ["a", "b"], {"answer": ["a", "a"]})] == [1.0, 0.0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Run:
    """A run whose job file is replaced below: only its source and its copy of the file are asked for."""
    project = Project(tmp_path_factory.mktemp("rewards") / "project", tiny_model)
    file = read(project.folder / "job.toml", PluginKeys(discover({})))
    facts = describe(file.job.model.id, None, file.job.folder)
    return Run(folder=project.folder, plan=make_plan(file, discover({}), probe(), facts))


def test_a_reward_knows_its_line_in_the_job(folder: Folder, run: Run) -> None:
    text = '\n[[train.reward]]\nuse = "length"\nargs = { max = 9 }\n\n[[train.reward]]\nuse = "choice"\n'
    (run.folder / "job.toml").write_text(text, encoding="utf-8")
    assert [reward.place for reward in load(folder.job(text), run)] == ["job.toml:2", "job.toml:6"]
    (run.folder / "job.toml").write_text("# --set has made them\n", encoding="utf-8")
    places = [reward.place for reward in load(folder.job(text), run)]
    assert places == ["[[train.reward]] number 1", "[[train.reward]] number 2"]

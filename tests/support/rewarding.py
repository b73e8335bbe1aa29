"""Jobs with rewards, checked and loaded as the plan and the worker do it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli

from forge.errors import Problem
from forge.job.job import Job
from forge.job.locate import locate
from forge_huggingface.rewards.load import load
from forge_huggingface.rewards.reward import Reward
from forge_huggingface.rewards.rules import reward_problems
from forge_huggingface.rewards.score import Score
from forge_huggingface.rewards.table import RewardTable

HEAD = '[model]\nid = "m"\n[data]\npath = "rows.jsonl"\n[train]\nmethod = "grpo"\n'


@dataclass
class Folder:
    """A folder with files of reward functions, and jobs in it."""

    path: Path

    def file(self, text: str, name: str = "rewards.py") -> Path:
        path = self.path / name
        path.write_text(text, encoding="utf-8")
        return path

    def job(self, rewards: str) -> Job:
        """Return a job with these tables, as it comes to rules and stages: checked, and its options dumped."""
        raw = tomli.loads(HEAD + rewards)
        tables = [RewardTable.model_validate(table).model_dump(mode="json") for table in raw["train"].pop("reward", [])]
        job = Job.model_validate({**raw, "folder": self.path})
        return job.model_copy(update={"train": job.train.model_copy(update={"reward": tables})})

    def problems(self, rewards: str) -> list[Problem]:
        """Return the problems of a job with these tables, with the lines that the plan finds for them."""
        found = []
        for problem in reward_problems(self.job(rewards)):
            key = [int(part) if part.isdigit() else part for part in problem.where.split(".")]
            line = locate(HEAD + rewards, key)
            found.append(replace(problem, line=line - HEAD.count("\n") if line else None))
        return found

    def load(self, rewards: str) -> list[Reward]:
        return load(self.job(rewards))

    def one(self, source: str, args: str = "{}") -> Reward:
        """Return the reward that a file's function ``fn`` makes."""
        self.file(source)
        (reward,) = self.load(f'[[train.reward]]\nuse = "./rewards.py:fn"\nargs = {args}\n')
        return reward


def builtin(use: str, **args: Any) -> Any:
    """Return a function that scores texts with a built-in: ``(texts, **columns) -> scores``."""
    table = RewardTable.model_validate({"use": use, "args": args}).model_dump(mode="json")
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d"}})
    job = job.model_copy(update={"train": job.train.model_copy(update={"reward": [table]})})
    (reward,) = load(job)

    def score(texts: list[Any], context: dict[str, Any] | None = None, **columns: list[Any]) -> list[Score]:
        return reward.score(["p"] * len(texts), texts, columns, context)

    return score


def loaded_from(path: Path) -> Any:
    """Return a file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

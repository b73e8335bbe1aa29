"""The rewards in TRL's own trainers: what they are given, how they are awaited, and what is kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from trl.trainer.utils import get_callable_name, is_async_callable

from forge_huggingface.rewards.reward import RewardError
from forge_huggingface.rewards.score import Score
from forge_huggingface.rewards.trl import functions, weights

if TYPE_CHECKING:
    from pathlib import Path

    from support.rewarding import Folder

SOURCE = """\
import asyncio

seen = []
running = []

def told(*, prompts, completions, answer, **columns):
    seen.append(sorted(columns))
    return [{"score": i % 2, "feedback": f"not {a}", "even": not i % 2, "text": "t"} for i, a in enumerate(answer)]

async def judge(*, completions):
    running.append("judge")
    await asyncio.sleep(0.01)
    together = running.count("slow") == running.count("judge")
    return [0.25 if together else -1.0] * len(completions)

async def slow(*, completions):
    running.append("slow")
    await asyncio.sleep(0.01)
    return [None] * len(completions)

def broken(*, completions, answer):
    return [1 / (a == "4") for a in answer]
"""

TABLES = """\
[[train.reward]]
use = "./rewards.py:told"
weight = 2.0
[[train.reward]]
use = "./rewards.py:judge"
[[train.reward]]
use = "./rewards.py:slow"
name = "late"
weight = 0.5
[[train.reward]]
use = "length"
args = { max = 4 }
"""


def trainer(folder: Path, model: Path, funcs: Any, reward_weights: Any) -> Any:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=4,
        reward_weights=reward_weights,
        report_to="none",
        use_cpu=True,
        bf16=False,
        logging_steps=1,
        save_strategy="no",
    )
    rows = [
        {"prompt": [{"role": "user", "content": f"2+{n}"}], "answer": str(2 + n), "origin": f"r:{n}"} for n in (1, 2)
    ]
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=config,
        train_dataset=Dataset.from_list(rows),
        reward_funcs=funcs,
        processing_class=AutoTokenizer.from_pretrained(model),
    )


def test_grpo_takes_them_sync_async_and_with_feedback(folder: Folder, tiny_model: Path) -> None:
    folder.file(SOURCE)
    rewards = folder.load(TABLES)
    funcs = functions(rewards)
    assert [get_callable_name(func) for func in funcs] == ["told", "judge", "late", "length"]
    assert [is_async_callable(func) for func in funcs] == [False, True, True, False]
    made = trainer(folder.path / "out", tiny_model, funcs, weights(rewards))
    made.train()

    told = funcs[0].last
    assert [score.score for score in told] == [0.0, 1.0, 0.0, 1.0]
    assert {score.feedback for score in told} == {"not 3", "not 4"}
    assert told[0].extra == {"even": True, "text": "t"}
    assert [score.score for score in funcs[1].last] == [0.25] * 4  # both async ones ran at once
    assert funcs[2].last == [Score(None)] * 4
    assert all(isinstance(score.extra["length"], int) for score in funcs[3].last)

    seen = rewards[0].function.__globals__["seen"][0]
    assert {"completion_ids", "log_extra", "log_metric", "origin", "trainer_state"} <= set(seen)
    logged = next(line for line in made.state.log_history if "reward" in line)
    assert logged["rewards/told/mean"] == 0.5
    assert logged["rewards/told/even"] == 0.5
    assert "rewards/told/text" not in logged
    assert logged["rewards/length/length"] > 0
    assert logged["reward"] == pytest.approx(2 * 0.5 + 0.25 + logged["rewards/length/mean"])


def test_an_error_inside_the_trainer_names_the_row(folder: Folder, tiny_model: Path) -> None:
    folder.file(SOURCE)
    rewards = folder.load('[[train.reward]]\nuse = "./rewards.py:broken"\n')
    made = trainer(folder.path / "out", tiny_model, functions(rewards), weights(rewards))
    with pytest.raises(RewardError, match=r"ZeroDivisionError: .* at rewards.py:22 \(completion \d .*, row r:1\)"):
        made.train()


def test_blocking_functions_wait_for_async_ones(folder: Folder) -> None:
    folder.file(SOURCE)
    (judge,) = functions(folder.load('[[train.reward]]\nuse = "./rewards.py:judge"\n'), blocking=True)
    assert not is_async_callable(judge)
    assert judge(prompts=["p"], completions=["c"], completion_ids=[[1]], trainer_state=None) == [-1.0]

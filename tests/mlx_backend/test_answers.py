"""A model answers in MLX what it answers in transformers, with its adapter and without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Prompt, Sampling, Stage
from support.evaluating import generator_of, heard
from support.mlx import NEEDED

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import Generator
    from support.projects import Project

pytestmark = NEEDED

MESSAGES = [{"role": "user", "content": "Name a colour."}]
PROMPTS = [Prompt(text=f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n") for text in ("Hi", "Count to 5")]
WAYS = {
    "greedy": Sampling(max_new_tokens=12),
    "repetition": Sampling(max_new_tokens=12, repetition_penalty=1.3),
    "presence": Sampling(max_new_tokens=12, presence_penalty=0.5),
}


@pytest.fixture
def pair(llama: Project) -> tuple[Generator, Generator]:
    """The trained model of a run, in MLX and in transformers."""
    llama.write(train={"max_steps": 20, "learning_rate": 0.02}, use={"backend": "mlx"})
    finished = llama.perform()
    assert finished.code == 0, finished.printed
    mine = generator_of(finished.folder)
    llama.write(train={"max_steps": 20, "learning_rate": 0.02}, use={"backend": "mlx", "generate": "huggingface"})
    job = llama.folder / "job.toml"
    (finished.folder.path / "job.toml").write_bytes(job.read_bytes())
    theirs = generator_of(finished.folder)
    assert (type(mine).__name__, type(theirs).__name__) == ("MLXGenerator", "ModelGenerator")
    return mine, theirs


def answers(generator: Generator, sampling: Sampling) -> list[Any]:
    found = dict(generator.complete(PROMPTS, sampling))
    return [found[index] for index in range(len(PROMPTS))]


def test_the_same_answers_with_and_without_the_adapter(pair: tuple[Generator, Generator]) -> None:
    mine, theirs = pair
    for sampling in WAYS.values():
        tuned = answers(mine, sampling)
        assert tuned == answers(theirs, sampling)
        bare = [each.base() for each in pair]
        assert bare[0] is not None
        assert bare[1] is not None
        assert answers(bare[0], sampling) == answers(bare[1], sampling) != tuned
        assert answers(mine, sampling) == tuned
        (pieces, end), (_, expected) = (heard(each.chat(MESSAGES, sampling)) for each in pair)
        assert end == expected
        assert "".join(pieces) == end.text
    rows = [{"input_ids": list(range(5, 5 + count)), "labels": [-100, *range(6, 5 + count)]} for count in (4, 40, 9)]
    for one, other in zip(mine.losses(rows) or (), theirs.losses(rows) or (), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_drawn_answers_are_repeatable_and_one_of_several_is_another(pair: tuple[Generator, Generator]) -> None:
    mine, _ = pair
    drawing = Sampling(max_new_tokens=12, temperature=1.5, top_k=50, top_p=0.95, min_p=0.01, seed=3)
    first, again = (dict(mine.complete(PROMPTS, drawing, count=3)) for _ in range(2))
    assert first == again
    assert len({answer.text for answer in first[0]}) > 1


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(temperature=1.0, top_k=2), {0, 1}),
        (Sampling(temperature=1.0, top_p=0.6), {0, 1}),
        (Sampling(temperature=0.5, top_p=0.6), {0}),
        (Sampling(temperature=1.0, min_p=0.3), {0, 1, 2}),
        (Sampling(temperature=1.0), {0, 1, 2, 3}),
    ],
    ids=["top-k", "top-p", "colder", "min-p", "all"],
)
def test_tokens_are_drawn_among_those_that_transformers_leaves(sampling: Sampling, kept: set[int]) -> None:
    import mlx.core as mx
    import torch
    from transformers import LogitsProcessorList
    from transformers.generation.logits_process import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    from forge_mlx.decoding import sampler

    chances = [[0.5, 0.28, 0.17, 0.05]]
    mx.random.seed(0)
    scores = mx.log(mx.array(chances * 300))
    assert set(sampler(sampling)(scores).tolist()) == kept
    theirs = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    theirs += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    theirs += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    theirs += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    left = theirs(torch.zeros(1, 1, dtype=torch.long), torch.tensor(chances).log())[0]
    assert {index for index, value in enumerate(left.tolist()) if value > -1e9} == kept


def test_the_base_is_read_in_the_bits_that_the_job_names(llama: Project, tmp_path: Path) -> None:
    llama.write(model={"load_in_4bit": True}, use={"backend": "mlx"})
    finished = llama.perform()
    assert finished.code == 0, finished.printed
    assert finished.folder.plan().step(Stage.TRAIN).plugin == "mlx"
    generator = generator_of(finished.folder)
    assert answers(generator, WAYS["greedy"])

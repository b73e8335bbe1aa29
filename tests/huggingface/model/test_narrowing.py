"""Rows that have ended leave a batch that is decoded, and nothing that is said or drawn changes by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.model import narrowing
from forge_huggingface.model.decoding import Decoder, generating
from forge_huggingface.model.narrowing import Watch
from support.decoding import FAMILIES, made

if TYPE_CHECKING:
    from collections.abc import Callable

torch = pytest.importorskip("torch")


def answers(model: Any, *, stops: int, rows: int = 12, **sampling: Any) -> Any:
    """Return what a model says to prompts of different lengths, where many tokens end an answer."""
    from transformers import GenerationConfig

    ids = torch.randint(stops, 211, (rows, 9), generator=torch.Generator().manual_seed(5)).to(model.device)
    mask = torch.ones_like(ids)
    for row in range(rows):
        mask[row, : row % 7] = 0
    config = GenerationConfig(
        max_new_tokens=60, pad_token_id=0, eos_token_id=[*range(2, stops)], do_sample=bool(sampling), **sampling
    )
    torch.manual_seed(1)
    with torch.inference_mode():
        return model.generate(input_ids=ids * mask, attention_mask=mask, generation_config=config).cpu()


class Sizes:
    """A step that keeps how many rows each pass had."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def step(**inputs: Any) -> Any:
            self.rows.append(inputs["input_ids"].shape[0])
            return forward(**inputs)

        return step


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_shrinks_as_its_rows_end_and_says_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrowing, "COST", 0.01)
    model = made(family)
    for stops, sampling in ((30, {}), (40, {"temperature": 2.0, "top_k": 0, "repetition_penalty": 1.1})):
        plain, seen = answers(model, stops=stops, **sampling), Sizes()
        after = torch.rand(3)
        with generating(model, seen.around, print):
            narrow = answers(model, stops=stops, **sampling)
        assert narrow.tolist() == plain.tolist()
        assert torch.equal(torch.rand(3), after), "what is drawn next is as before"
        assert seen.rows == sorted(seen.rows, reverse=True)
        assert not sampling or (min(seen.rows) < 12 and plain.shape[1] < 69), f"{family} was to end early"


def test_a_batch_stays_whole_where_a_smaller_one_is_not_worth_its_recording() -> None:
    model, seen = made("Llama"), Sizes()
    with generating(model, seen.around, print):
        answers(model, stops=12, temperature=2.0)
    assert set(seen.rows) == {12}


def test_the_end_of_a_batch_is_seen_one_token_late_and_the_token_taken_back() -> None:
    said: list[list[int]] = []

    class Streamer:
        def put(self, tokens: Any) -> None:
            said.append(tokens.tolist())

    watch = Watch(torch.zeros(2, 3), 10, Streamer())
    steps = [([1, 1], [5, 6]), ([0, 1], [7, 8]), ([0, 0], [0, 9]), ([0, 0], [0, 0])]
    ended = []
    for length, (unfinished, tokens) in enumerate(steps, start=4):
        ended.append(watch(torch.tensor(unfinished), torch.tensor(tokens), length))
    assert ended == [False, False, False, True]
    assert watch.finish() == 1
    assert said == [[5, 6], [7, 8], [0, 9]], "what is taken back is never shown"


def test_at_the_longest_nothing_is_taken_back() -> None:
    said: list[list[int]] = []

    class Streamer:
        def put(self, tokens: Any) -> None:
            said.append(tokens.tolist())

    watch = Watch(torch.zeros(1, 3), 5, Streamer())
    assert not watch(torch.tensor([1]), torch.tensor([5]), 4)
    assert watch(torch.tensor([0]), torch.tensor([6]), 5)
    assert watch.finish() == 0
    assert said == [[5], [6]]


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_graphs_of_smaller_batches_say_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrowing, "COST", 0.01)
    torch.backends.cuda.matmul.allow_tf32 = False
    model, said = made(family, "cuda"), list[str]()
    decoder = Decoder(said.append)
    kinds: tuple[tuple[int, dict[str, Any]], ...] = ((30, {}), (40, {"temperature": 2.0, "top_k": 0}))
    for stops, sampling in kinds:
        plain = answers(model, stops=stops, **sampling)
        after = torch.rand(3, device="cuda")
        with decoder.around(model):
            assert answers(model, stops=stops, **sampling).tolist() == plain.tolist()
        assert torch.equal(torch.rand(3, device="cuda"), after)
    assert len(decoder.proved) > 1, "graphs of several sizes were used"
    assert said == ["answers are decoded by a CUDA graph"]


@pytest.mark.gpu
def test_a_token_asks_the_device_for_nothing_that_it_must_wait_for() -> None:
    import warnings

    model = made("Llama", "cuda")
    with Decoder(print).around(model):
        answers(model, stops=3, temperature=1.0)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                answers(model, stops=3, temperature=1.0)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    waits = sum("synchroni" in str(each.message) for each in seen)
    assert waits < 40, f"{waits} waits in 60 tokens"

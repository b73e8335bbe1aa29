"""Answers of the trained model: piece by piece, stopped when nobody wants more, and refused where it cannot."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Answer, Sampling
from forge.errors import UsageError
from support.decoding import Fixed
from support.evaluating import ASKED, generator_of, heard

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder
    from support.projects import Project


def test_an_answer_comes_in_pieces_and_is_that_of_a_batch(trained: tuple[Project, RunFolder]) -> None:
    generator: Any = generator_of(trained[1])
    sampling = Sampling(max_new_tokens=12)
    pieces, end = heard(generator.chat(ASKED, sampling))
    whole = next(generator.complete([generator._prompt(ASKED)], sampling))[1][0]
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text
    assert end == whole
    assert isinstance(end, Answer)


def test_closing_an_answer_stops_the_model(trained: tuple[Project, RunFolder]) -> None:
    generator: Any = generator_of(trained[1])
    generator.stops = frozenset({10**6})  # never by itself
    asked: list[None] = []

    def slowly(*_: Any) -> None:
        asked.append(None)
        time.sleep(0.02)  # all 400 tokens would take longer than any machine needs to close a stream

    hook = generator.model.get_output_embeddings().register_forward_hook(slowly)
    stream = generator.chat(ASKED, Sampling(max_new_tokens=400))
    next(stream)
    stream.close()
    hook.remove()
    assert 0 < len(asked) < 400
    _, end = heard(generator.chat(ASKED, Sampling(max_new_tokens=4)))
    assert end.tokens == 4, "it answers again"


def test_a_conversation_longer_than_the_model_takes_is_refused(trained: tuple[Project, RunFolder]) -> None:
    generator = generator_of(trained[1])
    with pytest.raises(UsageError, match="the model takes 512"):
        next(generator.chat([{"role": "user", "content": "the sea " * 600}], Sampling()))


def test_a_text_model_refuses_an_image(trained: tuple[Project, RunFolder]) -> None:
    generator = generator_of(trained[1])
    content = [{"type": "image", "image": "x.png"}, {"type": "text", "text": "What is this?"}]
    with pytest.raises(UsageError, match="takes text only"):
        next(generator.chat([{"role": "user", "content": content}], Sampling()))


def test_many_rows_at_a_time_answer_as_one_does_and_drawn_ones_are_eight(
    trained: tuple[Project, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator: Any = generator_of(trained[1])
    prompts = [generator._prompt([{"role": "user", "content": "the sea " * (1 + index % 5)}]) for index in range(20)]
    sizes: list[int] = []
    encode = generator._encode
    generator._encode = lambda chosen: sizes.append(len(chosen)) or encode(chosen)
    greedy = Sampling(max_new_tokens=8)
    monkeypatch.setattr("forge_huggingface.generation.generator.fitting", lambda *_: 32)  # as a GPU's memory allows
    alone = dict(generator.complete(prompts, greedy, batch_size=1))
    sizes.clear()
    assert dict(generator.complete(prompts, greedy)) == alone
    assert sizes == [20]
    sizes.clear()
    list(generator.complete(prompts, Sampling(max_new_tokens=8, temperature=1.0, seed=1)))
    assert sizes == [8, 8, 4]


def test_answers_and_chats_go_through_the_decoder(trained: tuple[Project, RunFolder]) -> None:
    generator: Any = generator_of(trained[1])
    sampling = Sampling(max_new_tokens=20, temperature=0.8, seed=3)
    prompts = [generator._prompt(ASKED)] * 2
    plain = list(generator.complete(prompts, sampling)), heard(generator.chat(ASKED, sampling))
    generator.decoder = Fixed()
    assert list(generator.complete(prompts, sampling)) == plain[0]
    made = generator.decoder.steps
    assert made > 0
    assert heard(generator.chat(ASKED, sampling)) == plain[1]
    assert generator.decoder.steps > made

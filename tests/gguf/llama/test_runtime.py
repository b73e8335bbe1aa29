"""A GGUF file answers in this process."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from forge.errors import ExportError
from forge_gguf.file import architectures, vocabulary, writer
from forge_gguf.file.quants import KINDS, Shape
from forge_gguf.file.weights import Weights
from forge_gguf.llama.runtime import Generator
from support.tiny_gguf import make

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ASKED = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generator]:
    from transformers import AutoConfig, AutoTokenizer

    folder = make(tmp_path_factory.mktemp("gguf") / "model", "llama")
    config = AutoConfig.from_pretrained(folder).to_dict()
    weights, kind = Weights(folder), KINDS["f16"]
    words = vocabulary.vocabulary(AutoTokenizer.from_pretrained(folder), config["vocab_size"]).with_pre("gpt-2")
    path = folder / "model.gguf"
    keys = writer.general(kind, "llama", "test") | architectures.keys(config) | words.keys()
    writer.write(path, keys, architectures.tensors(config, weights), weights, kind, Shape(3, tied=False))
    with Generator(path, context=128) as made:
        yield made


def test_an_answer_comes_piece_by_piece_and_is_the_same_each_time(generator: Generator) -> None:
    pieces = list(generator.chat(ASKED, {}, max_tokens=12))
    assert len(pieces) > 1
    assert "".join(pieces) == "".join(generator.chat(ASKED, {}, max_tokens=12))


def test_an_answer_that_nobody_wants_any_more_stops(generator: Generator) -> None:
    answer = generator.chat(ASKED, {}, max_tokens=100)
    next(answer)
    answer.close()
    assert len(generator.tokens("a", special=False)) == 1


def test_probabilities_of_every_position_are_given(generator: Generator) -> None:
    ids = generator.tokens("The capital of France", special=False)
    found, chances = generator.logits(ids, top=416)
    assert found.shape == chances.shape == (len(ids), 416)
    np.testing.assert_allclose(np.exp(chances).sum(1), 1, atol=1e-3)


def test_a_file_may_be_given_back_at_once(generator: Generator) -> None:
    code = (
        "import sys; from pathlib import Path; from forge_gguf.llama.runtime import Generator\n"
        "for _ in range(60):\n"
        "    with Generator(Path(sys.argv[1]), context=32): pass\n"
    )
    for _ in range(2):  # one of two would wait for a thread that never ends
        subprocess.run([sys.executable, "-c", code, str(generator.path)], check=True, timeout=60)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF and then nothing of use")
    with pytest.raises(ExportError, match=r"cannot load a\.gguf"):
        Generator(tmp_path / "a.gguf")
    with pytest.raises(ExportError, match="there is no file"):
        Generator(tmp_path / "b.gguf")

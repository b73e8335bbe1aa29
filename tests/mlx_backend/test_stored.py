"""Models that MLX has rounded, as mlx-community publishes them: trained on as they are, and told elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from forge.api import Stage
from forge_huggingface.facts.describe import describe
from support.evaluating import exported
from support.mlx import BY_NAME, NEEDED, done, make
from support.projects import Project, json_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


pytestmark = NEEDED

EXPORTS: list[dict[str, Any]] = [
    {"format": "mlx"},
    {"format": "mlx", "parts": "adapter"},
    {"format": "mlx", "bits": 4, "group_size": 32},
    {"format": "adapter"},
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a model that mlx-lm has rounded."""
    made: dict[tuple[int, str], Path] = {}

    def folder(bits: int = 4, family: str = "llama") -> Path:
        if (bits, family) not in made:
            from mlx_lm import convert

            base = tmp_path_factory.mktemp("stored")
            make(base / "whole", family, tie_word_embeddings=True)
            convert(str(base / "whole"), str(base / "model"), quantize=True, q_bits=bits, q_group_size=32)
            made[bits, family] = base / "model"
        return made[bits, family]

    return folder


def test_facts_have_the_layers_and_not_what_they_are_packed_into(stored: Callable[..., Path], tmp_path: Path) -> None:
    whole, folder = stored().with_name("whole"), stored()
    exact, rounded = (describe(str(each), None, tmp_path) for each in (whole, folder))
    assert exact.shape is not None
    assert (rounded.quantized, rounded.parameters) == ("mlx", exact.parameters)
    assert rounded.shape == exact.shape
    assert rounded.note == "stored in MLX's 4 bit in groups of 32 weights"
    config = json_of(folder / "config.json")
    config["quantization"]["mode"] = config["quantization_config"]["mode"] = "mxfp4"
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).symlink_to(path)
    (other / "config.json").unlink()
    (other / "config.json").write_text(json.dumps(config))
    assert describe(str(other), None, tmp_path).quantized == "mlx-mxfp4"


@pytest.mark.parametrize(("bits", "family"), [(4, "llama"), pytest.param(8, "qwen3", marks=pytest.mark.slow)])
def test_an_adapter_is_trained_on_it_and_every_export_of_it_is_the_trained_model(
    stored: Callable[..., Path], tmp_path: Path, bits: int, family: str
) -> None:
    import mlx.core as mx
    from mlx_lm.utils import load

    folder = stored(bits, family)
    project = Project(tmp_path / "project", folder)
    finished = done(project, train={"max_steps": 4, "learning_rate": 0.02}, export=EXPORTS, **BY_NAME)
    assert finished.folder.plan().step(Stage.LOAD).plugin == "mlx"
    (loaded,) = finished.of_kind("loaded")
    assert loaded["quantised"] == f"MLX's {bits} bit, in groups of 32"
    assert finished.losses[-1] < finished.losses[0]
    folders = []
    for index in range(len(EXPORTS)):
        made = exported(finished, index)
        assert made.code == 0, made.printed[-3000:]
        folders += (finished.folder.path / "exports").glob(f"{index + 1}-*/")
    ids = torch.randint(3, 400, (2, 24), generator=torch.Generator().manual_seed(0))
    apart, _ = load(str(folder), adapter_path=str(folders[1]))
    expected = np.array(apart(mx.array(ids.numpy())).astype(mx.float32))
    whole, _ = load(str(folders[0]))
    assert "quantization" not in json_of(folders[0] / "config.json")
    size = np.abs(expected).max()
    assert np.abs(np.array(whole(mx.array(ids.numpy())).astype(mx.float32)) - expected).max() / size < 0.02
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folders[0], dtype=torch.float32)(ids).logits.numpy()
    assert np.abs(theirs - expected).max() / size < 0.02
    assert json_of(folders[2] / "config.json")["quantization"]["bits"] == 4

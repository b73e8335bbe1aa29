"""Every family that the plugin takes computes the same in MLX as in transformers, and calls its layers the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from forge.api import Job, ModelError
from forge_mlx.families import COUNTING, FAMILIES
from forge_mlx.generate import shortest
from forge_mlx.load import read_model
from support.mlx import NEEDED, WINDOW, make

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = NEEDED

ROPE = {"rope_theta": 5e5, "factor": 8.0, "original_max_position_embeddings": 64}
KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_theta": 5e5},
    "linear": {"rope_theta": 5e5, "factor": 8.0},
    "llama3": {**ROPE, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn": ROPE,
}


def asked(folder: Path, **model: Any) -> Job:
    tables = {"model": {"id": str(folder), "dtype": "float32", "max_seq_length": 48, **model}}
    return Job.model_validate({**tables, "data": {"path": "rows.jsonl"}, "folder": folder})


def apart(folder: Path) -> tuple[float, set[str]]:
    """Return how far logits lie apart, by their size, and the layers that are called otherwise."""
    import mlx.core as mx
    from mlx import nn

    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    ids = torch.randint(3, 400, (2, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(ids).logits.numpy()
    mine = read_model(asked(folder), folder)
    found = np.array(mine(mx.array(ids.numpy())))
    names = {name for name, each in theirs.named_modules() if isinstance(each, torch.nn.Linear)} - {"lm_head"}
    others = {name for name, each in mine.named_modules() if isinstance(each, nn.Linear)} - {"lm_head"}
    return float(np.abs(found - expected).max() / np.abs(expected).max()), names ^ others


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_computes_what_it_does_in_transformers(families: Callable[[str], Path], family: str) -> None:
    far, otherwise = apart(families(family))
    assert far < 1e-4
    assert not otherwise


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_familys_loss_needs_logits_of_the_asked_tokens_only(families: Callable[[str], Path], family: str) -> None:
    import mlx.core as mx

    from forge_mlx.training.batches import batch_of
    from forge_mlx.training.objectives import log_likelihoods

    folder = families(family)
    module = read_model(asked(folder), folder)
    rows = [
        {"input_ids": list(range(5, 5 + count)), "labels": [-100] * 3 + list(range(8, 5 + count))} for count in (9, 30)
    ]
    found = log_likelihoods(module, batch_of(rows))[0].tolist()
    for row, value in zip(rows, found, strict=True):
        scores = module(mx.array([row["input_ids"]]))[0].astype(mx.float32)
        chances = scores - mx.logsumexp(scores, axis=-1, keepdims=True)
        expected = sum(float(chances[place - 1, row["labels"][place]]) for place in range(3, len(row["labels"])))
        assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(each, marks=() if each in {"cohere2", "llama"} else pytest.mark.slow)
        for each in sorted(FAMILIES.keys() - COUNTING)
    ],
)
def test_rows_of_a_pack_have_the_gradients_of_rows_apart(families: Callable[[str], Path], family: str) -> None:
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_flatten

    from forge_huggingface.data.packing import joined
    from forge_mlx.training.checkpointing import recompute
    from forge_mlx.training.objectives import Likelihood

    folder = families(family)
    module = read_model(asked(folder), folder)
    module.unfreeze()
    rows = [{"input_ids": (ids := list(range(5 + count, 5 + 2 * count))), "labels": ids} for count in (9, 30, 21)]
    likelihood, found = Likelihood(), []
    for batch in (rows, [joined(rows[:2]), joined(rows[2:])], [joined(rows)]):
        if len(batch) == 1:
            recompute(module, 2)
        prepared = likelihood.prepare(module, batch)
        (loss, _), gradients = nn.value_and_grad(module, likelihood.sums)(module, prepared)
        mx.eval(loss, gradients)
        found.append({"loss": np.array(loss), **{name: np.array(each) for name, each in tree_flatten(gradients)}})
        assert prepared.count == 8 + 29 + 20
    for name, value in found[0].items():
        for other in found[1:]:
            np.testing.assert_allclose(other[name], value, atol=1e-4 * max(np.abs(value).max(), 1e-3), err_msg=name)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_angles_of_positions_are_the_models_own(tmp_path: Path, family: str, kind: str) -> None:
    far, _ = apart(make(tmp_path / "model", family, rope_parameters={"rope_type": kind, **KINDS[kind]}))
    assert far < 1e-5


def test_angles_of_short_rows_and_of_long_ones_are_the_models_own_or_refused(tmp_path: Path) -> None:
    angles = {"short_factor": [1.5] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 64}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **angles}
    short = make(tmp_path / "short", "phi3", rope_parameters=rope, original_max_position_embeddings=64)
    far, _ = apart(short)
    assert far < 1e-5
    with pytest.raises(ModelError, match="other angles for rows of more than 64 tokens"):
        read_model(asked(short, max_seq_length=128), short)
    assert shortest(512, short) == 64


def test_a_window_that_mlx_leaves_out_is_refused_where_it_matters(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "mistral", sliding_window=32)
    read_model(asked(folder, max_seq_length=32), folder)
    assert [shortest(context, folder) for context in (512, 16, None)] == [32, 16, 32]
    with pytest.raises(ModelError, match="looks back at all tokens"):
        read_model(asked(folder, max_seq_length=-1), folder)
    with pytest.raises(ModelError, match="looks back at all tokens, and this model at the last 32 only") as refused:
        read_model(asked(folder), folder)
    assert refused.value.do == 'lower [model] max_seq_length to 32, or write [use] backend = "huggingface"'


def test_an_activation_that_mlx_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "model", "llama", hidden_act="gelu")
    with pytest.raises(ModelError, match="MLX cannot compute this llama, whose activation is gelu"):
        read_model(asked(folder), folder)


def test_layers_that_mlx_cannot_have_are_refused(tmp_path: Path) -> None:
    kinds = ["full_attention", "sliding_attention", "sliding_attention"]
    folder = make(tmp_path / "model", "gemma3_text", **{**WINDOW, "layer_types": kinds})
    with pytest.raises(ModelError, match="MLX's gemma3_text cannot have this model's layers"):
        read_model(asked(folder), folder)


def test_weights_that_are_missing_or_have_no_place_are_refused(families: Callable[[str], Path], tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(families("llama"), folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    lost = tensors.pop("model.norm.weight")
    save_file(tensors, file)
    with pytest.raises(ModelError, match="lacks 1 weights") as refused:
        read_model(asked(folder), folder)
    assert refused.value.why == "model.norm.weight would start at random"
    save_file({**tensors, "model.norm.weight": lost, "model.other.weight": lost.clone()}, file)
    with pytest.raises(ModelError, match='has 1 weights for which MLX\'s "llama" has no place'):
        read_model(asked(folder), folder)

"""Every part against the libraries' own, for each architecture: the same loss, the same gradient of every adapter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forge_huggingface.kernels import mlp, norm, seams
from forge_huggingface.kernels.mlp import GatedDown
from forge_huggingface.kernels.norm import Norm
from support.kernels import ARCHITECTURES, INSTALL, assert_equal, bare, install, make, step

LAYER_NORMS = {("norm", "cohere"), ("rope", "cohere")}
"""What an architecture does in another way: Cohere's norms take the mean away, and it turns other pairs."""


@pytest.fixture(autouse=True)
def own() -> Any:
    """Give every library its own back after a test."""
    yield
    seams.restore()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_part_gives_the_loss_and_gradients_of_the_libraries(name: str) -> None:
    theirs = step(make(name))
    for part, put in INSTALL.items():
        model = make(name)
        assert bool(put(model)) == ((part, name) not in LAYER_NORMS), part
        assert_equal(step(model), theirs)
        seams.restore()
    model = make(name)
    install(model)
    assert_equal(step(model), theirs)
    assert all(module.forge_kind[1] for module in model.modules() if hasattr(module, "forge_kind"))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3", "phi3", "olmo2"])
def test_layers_that_are_computed_again_give_the_same_and_leave_nothing_behind(name: str, reentrant: bool) -> None:
    theirs = step(make(name))
    model = make(name)
    install(model)
    base = model.get_base_model()
    base.gradient_checkpointing_enable({"use_reentrant": reentrant})
    base.enable_input_require_grads()
    assert_equal(step(model), theirs)
    groups = {id(module.forge_group[0]): module.forge_group[0] for module in model.modules() if joined(module)}
    assert all(group.x is None and not group.waiting and not group.apart for group in groups.values())
    assert bool(groups) == (name != "phi3")


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_that_are_trained_get_the_gradients_of_the_libraries(
    name: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = step(bare(name))
    called = set()
    for kind in (Norm, GatedDown):
        own = kind.apply
        monkeypatch.setattr(kind, "apply", lambda *given, kind=kind, own=own: called.add(kind) or own(*given))
    model = bare(name)
    if again:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    for part in ("swiglu", "norm", "rope"):
        assert bool(INSTALL[part](model)) == ((part, name) not in LAYER_NORMS), part
    assert_equal(step(model), theirs)
    assert called == ({GatedDown} if name == "cohere" else {Norm, GatedDown})


def test_a_trained_norm_beside_a_frozen_one_has_its_gradient_alone() -> None:
    ours, theirs = bare("qwen3"), bare("qwen3")
    for model in (ours, theirs):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("layers.1.self_attn.q_norm" in name or "layers.0.mlp.down_proj" in name)
    assert INSTALL["norm"](ours)
    assert INSTALL["swiglu"](ours)
    assert_equal(step(ours), step(theirs))


def test_a_layer_that_somebody_listens_to_is_called() -> None:
    model, heard = bare(), []
    assert INSTALL["swiglu"](model) == 2
    for layer in model.model.layers:
        layer.mlp.down_proj.register_full_backward_hook(lambda *_: heard.append(1))
    step(model)
    assert heard == [1, 1]


def test_a_product_whose_gradient_nobody_wants_is_not_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = bare(), []
    own = mlp.gated_backward
    monkeypatch.setattr(mlp, "gated_backward", lambda *given: calls.append(1) or own(*given))
    assert INSTALL["swiglu"](model) == 2
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.0.mlp.down_proj" in name)
    step(model)
    assert calls == [1]  # the layer above it alone


def test_norms_read_rows_whose_numbers_lie_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    strides = []
    for name in ("norm", "norm_backward"):
        own = getattr(norm, name)
        monkeypatch.setattr(
            norm, name, lambda x, *rest, own=own, **more: strides.append(x.stride(-1)) or own(x, *rest, **more)
        )
    x = torch.rand(1, 8, 5, dtype=torch.float64).transpose(1, 2).requires_grad_()
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True)
    y = norm.Norm.apply(x, weight, 1e-6, 0.0, False)
    y.sum().backward()  # its gradient is one number, seen from everywhere
    plain = torch.nn.functional.rms_norm(x, (8,), weight, 1e-6)
    theirs = torch.autograd.grad(plain.sum(), (x, weight))
    torch.testing.assert_close(y, plain)
    torch.testing.assert_close((x.grad, weight.grad), theirs)
    assert strides == [1, 1]


def joined(module: Any) -> bool:
    return hasattr(module, "forge_group")

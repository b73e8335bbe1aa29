"""Every part against the libraries' own, for each architecture: the same loss, the same gradient of every adapter."""

from __future__ import annotations

from typing import Any

import pytest

from forge_huggingface.kernels import seams
from support.kernels import ARCHITECTURES, INSTALL, assert_equal, install, make, step

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


def joined(module: Any) -> bool:
    return hasattr(module, "forge_group")

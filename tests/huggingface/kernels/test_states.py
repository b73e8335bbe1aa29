"""What is not the plain case is left to the libraries, call by call, and nothing goes wrong between the two."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import masking_utils

from forge_huggingface.kernels import lora, mlp, norm, seams
from forge_huggingface.kernels.rounded import ROUNDED
from support.kernels import INPUTS, MASK, assert_equal, install, make, step


@pytest.fixture(autouse=True)
def own() -> Any:
    """Give every library its own back after a test, and let go of its adapters."""
    yield
    seams.restore()
    ROUNDED.forget()


def both(name: str = "llama", **changes: Any) -> tuple[Any, Any]:
    """Return two models that are one: with the kernels, and without."""
    ours, theirs = make(name, **changes), make(name, **changes)
    install(ours)
    return ours, theirs


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=INPUTS, attention_mask=MASK, use_cache=False).logits
    return found[MASK.bool()]  # what padding says is for nobody


def assert_close(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(logits(ours), logits(theirs), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3"])
def test_a_reference_is_the_model_without_its_adapter(name: str) -> None:
    ours, theirs = both(name)
    with ours.disable_adapter(), theirs.disable_adapter():
        assert_close(ours, theirs)
        without = logits(ours)
    assert_close(ours, theirs)
    assert not torch.allclose(logits(ours), without)
    assert_equal(step(ours), step(theirs))


def test_merged_weights_are_not_adapted_again() -> None:
    ours, theirs = both()
    before = logits(ours)
    ours.merge_adapter()
    theirs.merge_adapter()
    assert_close(ours, theirs)
    torch.testing.assert_close(logits(ours), before, rtol=1e-5, atol=1e-5)
    ours.unmerge_adapter()
    torch.testing.assert_close(logits(ours), before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3", "smollm3"])
def test_answers_are_the_same_with_a_cache(name: str) -> None:
    ours, theirs = both(name)
    asked = {"attention_mask": MASK.flip(1), "max_new_tokens": 8, "do_sample": False, "min_new_tokens": 8}
    answers = [model.eval().generate(input_ids=INPUTS.flip(1), **asked) for model in (ours, theirs)]
    assert torch.equal(*answers)


def test_rows_padded_at_the_left_are_refused_while_training() -> None:
    ours, _ = both()
    with pytest.raises(RuntimeError, match="padded at the left"):
        ours.train()(input_ids=INPUTS, attention_mask=MASK.flip(1), use_cache=False)


def test_dropout_is_peft_s_own_while_training_and_none_afterwards() -> None:
    ours, theirs = both(lora_dropout=0.3)
    results = []
    for model in (ours, theirs):
        torch.manual_seed(3)
        results.append(step(model))
    assert_equal(*results)
    assert_close(ours.eval(), theirs.eval())


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"lora_bias": True},
        {"use_rslora": True},
        {"target_modules": ["q_proj", "v_proj"]},
        {"target_modules": ["up_proj"]},
        {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        {"rank_pattern": {"k_proj": 2, "up_proj": 8}, "alpha_pattern": {"v_proj": 32}},
        {"layers_to_transform": [1]},
        {"modules_to_save": ["input_layernorm", "lm_head"]},
    ],
    ids=str,
)
def test_adapters_of_every_kind_train_as_they_do_without(changes: dict[str, Any]) -> None:
    assert_equal(*map(step, both(**changes)))


def test_two_adapters_at_once_are_peft_s_own() -> None:
    pair = both()
    for model in pair:
        torch.manual_seed(4)
        model.add_adapter("other", LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
        model.base_model.set_adapter(["default", "other"])
        model.double()
    assert_close(*pair)
    for model in pair:
        model.base_model.set_adapter("other")
    assert_close(*pair)


def test_a_copy_of_a_model_is_a_model_of_its_own() -> None:
    """A reference is a copy where every weight is trained; it must not compute with the weights it was copied from."""
    ours, _ = both()
    twin = copy.deepcopy(ours)
    before = logits(twin)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert torch.equal(logits(twin), before)
    assert not torch.allclose(logits(ours), before)


def test_layers_that_do_not_read_one_input_are_computed_alone() -> None:
    class Crossed(torch.nn.Module):
        def __init__(self, attention: Any) -> None:
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj = attention.q_proj, attention.k_proj, attention.v_proj

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.q_proj(x).sum() + (self.k_proj(y) * self.v_proj(y)).sum()
            return found

    parts = [Crossed(make().get_base_model().model.layers[0].self_attn) for _ in range(2)]
    assert lora.install(parts[0]) == 3
    x, y = torch.randn(2, 3, 64).double(), torch.randn(2, 3, 64).double()
    for _ in range(2):
        results = [part(x, y) for part in parts]
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)
    group = parts[0].q_proj.forge_group[0]
    assert group.apart
    assert group.x is None


def test_results_that_nobody_fetched_are_dropped_when_a_layer_ends_early() -> None:
    ours, _ = both()
    attention = ours.get_base_model().model.layers[0].self_attn
    attention.o_proj.register_forward_pre_hook(lambda *_: 1 / 0)
    attention.v_proj.forward = lambda *_: torch.zeros(3, 11, 32, dtype=torch.float64)
    with pytest.raises(ZeroDivisionError):
        step(ours)
    group = attention.q_proj.forge_group[0]
    assert (group.x, group.waiting, group.apart) == (None, {}, False)


def test_adapters_in_32_bit_on_a_base_in_16_are_trained_in_32() -> None:
    ours = make().to(torch.bfloat16)
    for name, parameter in ours.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    install(ours)
    with torch.autocast("cpu", torch.bfloat16):
        _, gradients = step(ours)
    assert {gradient.dtype for gradient in gradients.values()} == {torch.float32}
    _, exact = step(make().float())
    for name, gradient in exact.items():
        assert (gradients[name] - gradient).norm() < 0.1 * gradient.norm(), name


def mixed(name: str = "llama") -> Any:
    """Return a model with kernels whose base is in 16 bit, and its adapters in 32."""
    model = make(name).to(torch.bfloat16)
    for full, parameter in model.named_parameters():
        if "lora_" in full:
            parameter.data = parameter.data.float()
    install(model)
    return model


def batch(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    with ROUNDED.batch(), torch.autocast("cpu", torch.bfloat16):
        return step(model)


def alone(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    with torch.autocast("cpu", torch.bfloat16):
        return step(model)


def same(one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]]) -> bool:
    return one[0] == other[0] and all(torch.equal(one[1][name], other[1][name]) for name in other[1])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3"])
def test_adapters_rounded_once_for_a_batch_give_the_same_bits(
    name: str, again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mixed(name)
    if again:
        model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        model.get_base_model().enable_input_require_grads()
    before = alone(model)
    assert same(batch(model), before)
    monkeypatch.setattr(lora, "ready", lambda *_: pytest.fail("a layer rounds for itself"))
    assert same(batch(model), before)  # now all are held
    monkeypatch.undo()
    for change in (lambda p: p.mul_(1.5), lambda p: p.data.add_(0.01), lambda p: setattr(p, "data", 0.5 * p.data)):
        with torch.no_grad():  # the second leaves no mark in a parameter's version, the third has other memory
            for full, parameter in model.named_parameters():
                if "lora_" in full:
                    change(parameter)
        changed = alone(model)
        assert not same(changed, before)
        assert same(batch(model), changed)


def test_what_asks_for_no_gradient_within_a_batch_rounds_for_itself() -> None:
    model = mixed()
    batch(model)
    with ROUNDED.batch(), torch.autocast("cpu", torch.bfloat16):
        first = logits(model)
        with torch.no_grad():
            for full, parameter in model.named_parameters():
                if "lora_" in full:
                    parameter.data.mul_(3)
        assert not torch.equal(logits(model), first)


def test_of_two_adapters_each_has_numbers_of_its_own() -> None:
    model = mixed()
    model.add_adapter("other", LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"]))
    for full, parameter in model.named_parameters():
        if "lora_" in full and "other" in full:
            torch.nn.init.normal_(parameter, std=0.1)
    found = []
    for name in ("default", "other", "default"):
        model.set_adapter(name)
        found.append(batch(model))
        assert same(found[-1], alone(model))
    assert same(found[0], found[2])
    assert found[0][0] != found[1][0]


def test_what_is_held_goes_with_the_training() -> None:
    batch(mixed())
    assert ROUNDED._held
    ROUNDED.forget()
    assert not ROUNDED._held


def adapters(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for full, parameter in model.named_parameters() if "lora_" in full]


def test_weights_that_move_as_a_step_begins_are_rounded_as_they_are_then() -> None:
    """A schedule-free optimizer puts back the weights that are trained within the trainer's step."""
    model = mixed()
    batch(model)
    with ROUNDED.batch(), torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            for parameter in adapters(model):
                parameter.mul_(2)
        moved = step(model)
    assert same(moved, alone(model))


def test_what_a_batch_has_not_asked_for_is_dropped_in_the_next() -> None:
    model = mixed()
    batch(model)
    count = len(ROUNDED._held)
    for parameter in adapters(model):
        parameter.data = parameter.data.clone()
    model.add_adapter("other", LoraConfig(r=4, target_modules=["q_proj"]))
    model.set_adapter("other")
    batch(model)
    assert len(ROUNDED._held) == count + 2  # q_proj of two layers
    batch(model)
    assert len(ROUNDED._held) == 2
    model.set_adapter("default")
    assert same(batch(model), alone(model))


def test_matrices_of_another_size_are_held_anew() -> None:
    model = mixed()
    batch(model)
    with torch.no_grad():
        for full, parameter in model.named_parameters():
            if "lora_A" in full:
                parameter.data = parameter.data[:1].clone()
            elif "lora_B" in full:
                parameter.data = parameter.data[:, :1].clone()
    assert same(batch(model), alone(model))


def test_layers_of_which_some_have_no_adapter_are_not_mistaken_for_others() -> None:
    model = make(target_modules=["up_proj", "down_proj"]).to(torch.bfloat16)
    for parameter in adapters(model):
        parameter.data = parameter.data.float()
    install(model)
    model.add_adapter("other", LoraConfig(r=4, target_modules=["down_proj"]))
    for names in (["default"], ["default", "other"], ["default"]):
        model.base_model.set_adapter(names)
        assert same(batch(model), alone(model))


def test_a_matrix_that_a_parametrization_makes_is_left_to_peft() -> None:
    ours, theirs = make(), make()
    for model in (ours, theirs):
        layer = model.get_base_model().model.layers[0].self_attn.q_proj
        torch.nn.utils.parametrizations.weight_norm(layer.lora_A["default"])
    install(ours)
    assert_equal(step(ours), step(theirs))


def test_a_base_in_32_bit_is_computed_in_16_under_autocast() -> None:
    """As torch does it: the stream stays in 32 bit, and linear layers compute in 16."""
    results = []
    for model in (make().float(), make().float()):
        if not results:
            install(model)
        with torch.autocast("cpu", torch.bfloat16):
            results.append(step(model))
    _, exact = step(make().float())
    for name, gradient in exact.items():
        errors = [(found[name] - gradient).norm() for _, found in results]
        assert errors[0] <= 1.3 * errors[1] + 1e-3 * gradient.norm(), name


def test_what_is_trained_whole_has_norms_and_products_and_no_layers_with_adapters() -> None:
    base = make().get_base_model()
    whole = copy.deepcopy(base)
    for module in whole.modules():
        module.requires_grad_(requires_grad=True)
    assert norm.install(whole) == 5
    assert mlp.install(whole, lora=True) == 2
    assert lora.install(torch.nn.Linear(3, 3)) == 0


def test_nothing_random_is_drawn() -> None:
    model = make(lora_dropout=0.5)
    before = torch.get_rng_state()
    install(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(module.training for module in model.modules())


def test_a_feed_forward_part_with_dropout_of_its_own_keeps_it() -> None:
    model = make()
    part = model.get_base_model().model.layers[0].mlp
    kind = type(part)

    class Dropping(kind):  # type: ignore[misc, valid-type]  # as SeedOssMLP of transformers
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = torch.nn.functional.dropout(super().forward(x), 0.1, training=self.training)
            return found

    part.__class__ = Dropping
    before = torch.get_rng_state()
    assert mlp.install(model, lora=True) == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_a_norm_that_takes_a_gate_too_is_asked_for_it() -> None:
    model = make()
    module = model.get_base_model().model.norm
    kind = type(module)

    class Gating(kind):  # type: ignore[misc, valid-type]  # as Bamba's
        def forward(self, x: torch.Tensor, gate: torch.Tensor | None = None) -> torch.Tensor:
            found: torch.Tensor = super().forward(x if gate is None else x * gate)
            return found

    module.__class__ = Gating
    x = torch.randn(3, 64).double()
    expected = module(x, gate=x)
    assert norm.install(model) == 5
    assert torch.equal(module(x, gate=x), expected)
    torch.testing.assert_close(module(x), kind.forward(module, x), rtol=1e-6, atol=1e-7)


def test_nothing_looks_for_packed_rows_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look for them is to wait for the device."""
    own, looked = masking_utils.find_packed_sequence_indices, []
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda ids: looked.append(ids) or own(ids))
    ours, theirs = both()
    step(ours)
    assert not looked
    positions = torch.cat([torch.arange(4), torch.arange(7)])[None]
    packed = {"input_ids": INPUTS[:1], "position_ids": positions, "use_cache": False}
    torch.testing.assert_close(ours(**packed).logits, theirs(**packed).logits, rtol=1e-6, atol=1e-7)
    assert looked
    assert not torch.allclose(ours(**packed).logits, ours(input_ids=INPUTS[:1], use_cache=False).logits)
    seams.restore()

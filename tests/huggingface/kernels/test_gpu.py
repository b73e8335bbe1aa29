"""On a GPU: the kernels run and compute what torch does, gradients are no worse than plain ones, in 4 bit too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from forge_huggingface.kernels import check, lora, loss, packed, seams
from support.kernels import ARCHITECTURES, INPUTS, LABELS, MASK, assert_equal, install, make

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")]


@pytest.fixture(autouse=True)
def own() -> Any:
    """Give every library its own back after a test."""
    yield
    seams.restore()


def on_gpu(model: Any, *, half: bool = True) -> tuple[float, dict[str, torch.Tensor]]:
    """Return loss and gradients of a batch on the GPU."""
    model.zero_grad()
    given = {name: value.cuda() for name, value in (("input_ids", INPUTS), ("attention_mask", MASK))}
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        value = model(**given, labels=LABELS.cuda(), use_cache=False).loss
    value.backward()
    return value.item(), {n: p.grad.float() for n, p in model.named_parameters() if p.requires_grad}


SIZES = [
    check.Sizes(dtype, width, 3 * width + 2, heads, 24, words, cap, kind)
    for dtype in (torch.float32, torch.bfloat16, torch.float16)
    for width, heads, words, cap, kind in ((2050, 5, 40007, None, "silu"), (64, 2, 97, 30.0, "gelu_tanh"))
]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("part", check.TRIALS)
def test_the_kernels_compute_what_torch_does(part: str, sizes: check.Sizes) -> None:
    assert check.differs_on(part, torch.device("cuda"), sizes) is None


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_are_no_further_from_32_bit_than_plain_ones(name: str) -> None:
    _, exact = on_gpu(make(name).float().cuda(), half=False)
    errors = []
    for fast in (False, True):
        model = make(name).to(torch.bfloat16).cuda()
        for full, parameter in model.named_parameters():
            if "lora_" in full:
                parameter.data = parameter.data.float()
        if fast:
            install(model)
        _, found = on_gpu(model)
        both = [torch.cat([each[key].flatten() for key in exact]) for each in (found, exact)]
        errors.append(float((both[0] - both[1]).norm() / both[1].norm()))
    assert errors[1] <= 1.2 * errors[0] + 1e-3


def test_gradients_in_32_bit_are_the_libraries_own() -> None:
    theirs = on_gpu(make().float().cuda(), half=False)
    model = make().float().cuda()
    install(model)
    ours = on_gpu(model, half=False)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    for key, gradient in theirs[1].items():
        assert (ours[1][key] - gradient).norm() < 1e-4 * gradient.norm(), key


def test_the_number_of_labels_is_read_without_waiting() -> None:
    count, labels = loss.Count(), LABELS.cuda()
    count.begin(None, (), {"labels": labels})
    assert count.of(labels) == int((LABELS[:, 1:] != -100).sum())
    assert count.of(labels) is None  # it was asked for once
    assert count.of(labels.clone()) is None


def test_gradients_over_a_base_in_4_bit_are_no_further_from_32_bit_than_pefts() -> None:
    bnb = pytest.importorskip("bitsandbytes")
    packed_model, exact_model = make().to(torch.bfloat16), make().float()
    bases = dict(exact_model.named_modules())
    for name, module in list(packed_model.named_modules()):
        if hasattr(module, "lora_A"):
            base = module.get_base_layer()
            layer = bnb.nn.Linear4bit(
                base.in_features,
                base.out_features,
                bias=base.bias is not None,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
            )
            layer.load_state_dict(base.state_dict())
            module.base_layer = layer.requires_grad_(requires_grad=False).cuda()
            weight = module.base_layer.weight
            whole = bnb.functional.dequantize_4bit(weight.data, weight.quant_state).float().cpu()
            bases[name].get_base_layer().weight.data = whole
    for model in (packed_model, exact_model):
        for full, parameter in model.named_parameters():
            if "lora_" in full:
                parameter.data = parameter.data.float()
    plain = copy.deepcopy(packed_model.cuda())
    assert lora.install(packed_model) == 14
    _, exact = on_gpu(exact_model.cuda(), half=False)
    errors = []
    for model in (plain, packed_model):
        _, found = on_gpu(model)
        both = [torch.cat([each[key].flatten() for key in exact]) for each in (found, exact)]
        errors.append(float((both[0] - both[1]).norm() / both[1].norm()))
    assert errors[1] <= 1.2 * errors[0] + 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("shape", "size"), [((256, 192), 64), ((5, 64), 64), ((1000, 333), 128), ((7, 11), 32)])
def test_weights_in_4_bit_are_unpacked_to_the_same_bits(
    shape: tuple[int, int], size: int, nested: bool, dtype: torch.dtype
) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(7)).to(dtype).cuda()
    weight, state = functional.quantize_4bit(
        numbers, blocksize=size, compress_statistics=nested, quant_type="nf4", quant_storage=torch.uint8
    )
    weight.quant_state = state
    packed.TRUSTED.clear()
    assert torch.equal(packed.unpacked(weight, dtype), functional.dequantize_4bit(weight, state))
    assert list(packed.TRUSTED.values()) == [True]


def test_a_step_is_repeated_bit_by_bit() -> None:
    results = []
    for _ in range(2):
        model = make().float().cuda()
        install(model)
        results.append(on_gpu(model, half=False))
    assert_equal(*results)

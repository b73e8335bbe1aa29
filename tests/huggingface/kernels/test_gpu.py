"""On a GPU: the kernels run and compute what torch does, gradients are no worse than plain ones, in 4 bit too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from forge_huggingface.kernels import check, lora, loss, seams
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


def test_a_base_in_4_bit() -> None:
    nf4 = pytest.importorskip("bitsandbytes.nn").Linear4bit
    model = make().to(torch.bfloat16)
    for module in list(model.modules()):
        if hasattr(module, "lora_A"):
            base = module.get_base_layer()
            packed = nf4(base.in_features, base.out_features, bias=base.bias is not None, compute_dtype=torch.bfloat16)
            packed.load_state_dict(base.state_dict())
            module.base_layer = packed.requires_grad_(requires_grad=False)
    model = model.cuda()
    twin = copy.deepcopy(model)
    assert lora.install(model) == 14
    ours, theirs = on_gpu(model), on_gpu(twin)
    for key, gradient in theirs[1].items():
        assert (ours[1][key] - gradient).norm() < 0.03 * gradient.norm() + 1e-6, key


def test_a_step_is_repeated_bit_by_bit() -> None:
    results = []
    for _ in range(2):
        model = make().float().cuda()
        install(model)
        results.append(on_gpu(model, half=False))
    assert_equal(*results)

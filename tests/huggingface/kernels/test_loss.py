"""The loss: TRL's numbers and gradients, of both ways in which TRL asks for them, without all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import trl.trainer.utils as shared
from torch.nn import functional
from trl.trainer import sft_trainer

from forge_huggingface.kernels import loss

OLD = hasattr(sft_trainer, "_chunked_cross_entropy_loss")


def numbers(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, labels: torch.Tensor, scale: float, cap: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = hidden @ weight.t()
    logits = (logits if bias is None else logits + bias) * scale
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    log_p = logits.log_softmax(-1)
    valid = labels >= 0
    found = log_p.gather(1, labels.clamp(min=0)[:, None]).squeeze(1) * valid
    entropy = -(log_p.exp() * log_p).sum(-1) * valid
    return found, entropy, (logits.argmax(-1) == labels) & valid, logits.mean(-1) * valid


@pytest.mark.parametrize(("scale", "cap"), [(1.0, None), (0.25, None), (1.0, 3.0), (3.0, 2.0)])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("chunk", [2**28, 97 * 8 * 128])  # one portion, or two
def test_log_probabilities_entropy_and_both_gradients(
    scale: float, cap: float | None, biased: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK", chunk)
    weight, bias = numbers(97, 16, seed=1), numbers(97, seed=2) if biased else None
    labels = torch.randint(0, 97, (200,), generator=torch.Generator().manual_seed(3))
    labels[::3] = -100
    by = numbers(200, seed=4)
    hidden = [numbers(200, 16, seed=5).requires_grad_() for _ in range(2)]
    ours = loss.log_probs(hidden[0], weight, bias, labels, scale, cap)
    theirs = plain(hidden[1], weight, bias, labels, scale, cap)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    for (log_p, entropy, *_), states in ((ours, hidden[0]), (theirs, hidden[1])):
        valid = labels >= 0
        ((log_p * by).sum() + (entropy * by.flip(0))[valid].sum()).backward()
        assert states.grad is not None
    torch.testing.assert_close(hidden[0].grad, hidden[1].grad, rtol=1e-9, atol=1e-12)


def test_no_gradient_is_made_where_none_is_asked_for() -> None:
    hidden, weight = numbers(8, 16, seed=1).requires_grad_(), numbers(97, 16, seed=2)
    with torch.no_grad():
        assert not loss.log_probs(hidden, weight, None, torch.arange(8))[0].requires_grad


@pytest.mark.skipif(not OLD, reason="TRL 1.15 and newer have another function")
@pytest.mark.parametrize("items", [None, 40])
@pytest.mark.parametrize("masked", [0.1, 0.9])
def test_the_loss_of_trl_1_14(items: int | None, masked: float) -> None:
    own = sft_trainer._chunked_cross_entropy_loss
    ours = loss.chunked(loss.Count(), 1.0, own)
    weight = numbers(97, 16, seed=1, dtype=torch.float32)
    labels = torch.randint(0, 97, (8, 100), generator=torch.Generator().manual_seed(3))
    labels[torch.rand(labels.shape, generator=torch.Generator().manual_seed(4)) < masked] = -100
    found = []
    for function in (ours, own):
        hidden = numbers(8, 100, 16, seed=5, dtype=torch.float32).requires_grad_()
        settings: dict[str, Any] = {"labels": labels, "num_items_in_batch": items, "logit_scale": 0.5}
        results = function(hidden, weight, 256, final_logit_softcapping=5.0, **settings)
        results[0].backward()
        found.append((*results, hidden.grad))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)


@pytest.mark.skipif(not OLD, reason="TRL 1.15 and newer know it")
def test_logits_are_divided_as_granite_does_where_trl_forgets_it() -> None:
    own = sft_trainer._chunked_cross_entropy_loss
    hidden, weight = numbers(1, 9, 16, seed=1, dtype=torch.float32), numbers(97, 16, seed=2, dtype=torch.float32)
    labels = torch.arange(9)[None]
    expected = functional.cross_entropy((hidden @ weight.t())[0, :-1] / 4, labels[0, 1:])
    assert loss.chunked(loss.Count(), 0.25, own)(hidden, weight, 256, labels=labels)[0].item() == pytest.approx(
        expected.item(), rel=1e-6
    )
    weight.requires_grad_()  # a trained head is TRL's to compute, and gets the scale too
    assert loss.chunked(loss.Count(), 0.25, own)(hidden, weight, 256, labels=labels)[0].item() == pytest.approx(
        expected.item(), rel=1e-6
    )


@pytest.mark.skipif(OLD, reason="TRL 1.14 has another function")
@pytest.mark.parametrize(("temperature", "cap"), [(1.0, None), (0.7, None), (1.0, 4.0), (0.7, 4.0)])
@pytest.mark.parametrize("trained", [False, True])
def test_the_function_of_trl_since_1_15(temperature: float, cap: float | None, trained: bool) -> None:
    own = shared._ChunkedLogProbFunction
    ours = loss.Since115(own)
    labels = torch.randint(0, 97, (50,), generator=torch.Generator().manual_seed(3))
    outputs = ("log_probs", "entropy", "is_top1", "mean_logits")
    found = []
    for function in (ours, own):
        hidden = numbers(50, 16, seed=5, dtype=torch.float32).requires_grad_()
        weight = numbers(97, 16, seed=1, dtype=torch.float32).requires_grad_(trained)
        results = function.apply(hidden, weight, None, labels, temperature, 64, cap, 0.5, outputs)
        (results[0].sum() + 0.1 * results[1].sum()).backward()
        found.append([*(each for each in results if each is not None), hidden.grad, *([weight.grad] * trained)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(OLD, reason="TRL 1.14 has another function")
def test_outputs_that_forge_has_not_are_left_to_trl() -> None:
    ours = loss.Since115(shared._ChunkedLogProbFunction)
    hidden, weight = numbers(5, 16, seed=5, dtype=torch.float32), numbers(97, 16, seed=1, dtype=torch.float32)
    found = ours.apply(hidden, weight, None, torch.arange(5), 1.0, 64, outputs=("log_sum_sq_probs",))
    assert found[2] is not None

"""The objective against a reference in float64 numpy, value and gradient, in chunks and at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from forge_sdpo import fused
from forge_sdpo.fused import Tokens, loss
from forge_sdpo.objective import Objective, policy, ratio, score
from support.sdpo import reference

ROWS, LENGTH, WIDTH, VOCABULARY = 6, 7, 5, 23
FORMS = {
    "full": {"topk": None},
    "tail": {"topk": 4, "tail": True},
    "renormalised": {"topk": 4, "tail": False},
    "sampled": {"topk": None, "sampled": True},
}
CASES = [(alpha, form) for alpha in (0.0, 0.25, 0.5, 1.0) for form in FORMS if form != "sampled" or alpha == 1.0]
# The sampled token's loss has no alpha; it is the reverse divergence's gradient, and options refuse another.


@pytest.fixture
def batch():
    random = np.random.default_rng(3)
    mask = (np.arange(LENGTH) < random.integers(2, LENGTH + 1, ROWS)[:, None]).astype(float)
    return {
        "hidden": random.normal(size=(ROWS, LENGTH, WIDTH)),
        "head": 2 * random.normal(size=(VOCABULARY, WIDTH)),
        "teacher": 2 * random.normal(size=(ROWS, LENGTH, VOCABULARY)),
        "labels": random.integers(0, VOCABULARY, (ROWS, LENGTH)),
        "mask": mask,
        "taught": np.array([1.0, 0, 1, 1, 0, 1]),
    }


def fused_loss(batch, objective, weights, chunk, monkeypatch, *, kind=torch.float64):
    """The loss of the batch's taught rows by the code under test, with gradients of hidden states and head."""
    monkeypatch.setattr(fused, "CHUNK", chunk)
    chosen = torch.tensor((batch["mask"] * batch["taught"][:, None]) > 0)
    hidden = torch.tensor(batch["hidden"], dtype=kind)[chosen].requires_grad_()
    head = torch.tensor(batch["head"], dtype=kind, requires_grad=True)
    teacher = torch.tensor(batch["teacher"], dtype=kind)[chosen]
    tokens = Tokens(
        labels=torch.tensor(batch["labels"])[chosen],
        taught=int(chosen.sum()),
        teacher=lambda first, last: teacher[first:last],
        distill=torch.tensor(weights)[chosen],
    )
    value, tally = loss(hidden, lambda states: states @ head.T, [head], tokens, objective)
    value.backward()
    return value, hidden.grad, head.grad, chosen, tally


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean"])
@pytest.mark.parametrize(("alpha", "form"), CASES)
def test_loss_and_gradients_are_those_of_the_reference(batch, alpha, form, aggregation, monkeypatch):
    shape = FORMS[form]
    student = batch["hidden"] @ batch["head"].T
    flat = (ROWS * LENGTH, VOCABULARY)
    each, slopes = reference.token_losses(
        student.reshape(flat),
        batch["teacher"].reshape(flat),
        batch["labels"].reshape(-1),
        alpha=alpha,
        temperature=0.7,
        **shape,
    )
    weights = reference.weights(batch["mask"], batch["taught"], aggregation)
    expected = (weights.reshape(-1) * each).sum()
    by_logits = (weights.reshape(-1)[:, None] * slopes).reshape(ROWS, LENGTH, VOCABULARY)
    objective = Objective(alpha=alpha, temperature=0.7, is_clip=None, **shape)

    value, by_hidden, by_head, chosen, _ = fused_loss(batch, objective, weights, 3 * VOCABULARY, monkeypatch)

    assert abs(value.item() - expected) <= 1e-6 * max(1, abs(expected))
    assert np.abs(by_hidden.numpy() - (by_logits @ batch["head"])[chosen.numpy()]).max() <= 1e-6
    assert np.abs(by_head.numpy() - np.einsum("blv,blh->vh", by_logits, batch["hidden"])).max() <= 1e-6


def test_chunks_of_any_size_give_the_same(batch, monkeypatch):
    objective = Objective(alpha=0.5, topk=4, is_clip=None)
    weights = reference.weights(batch["mask"], batch["taught"], "token-mean")
    one = fused_loss(batch, objective, weights, 10**9, monkeypatch)
    many = fused_loss(batch, objective, weights, 1, monkeypatch)
    for first, second in zip(one[:3], many[:3], strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-15)


def test_there_are_never_more_logits_than_a_chunks(monkeypatch):
    """Forward and backward, student and teacher: no tensor is larger than a chunk, the head's own gradient aside."""
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            largest.extend(each.numel() for each in tree_leaves(found) if isinstance(each, torch.Tensor))
            return found

    count, width, vocabulary = 300, 4, 1000
    monkeypatch.setattr(fused, "CHUNK", 8 * vocabulary)
    hidden, head = torch.randn(count, width, requires_grad=True), torch.randn(vocabulary, width, requires_grad=True)
    states = torch.randn(count, width)
    tokens = Tokens(
        labels=torch.zeros(count, dtype=torch.long),
        taught=count,
        teacher=lambda first, last: states[first:last] @ head.detach().T,
        distill=torch.full((count,), 1 / count),
    )
    with Watch():
        value, _ = loss(hidden, lambda piece: piece @ head.T, [head], tokens, Objective(topk=20))
        value.backward()
    assert max(largest) <= 8 * vocabulary
    assert max(largest) < count * vocabulary / 30


def test_tiny_weights_do_not_vanish_in_bfloat16(batch, monkeypatch):
    objective = Objective(alpha=1.0, topk=None, is_clip=None)
    weights = reference.weights(batch["mask"], batch["taught"], "token-mean")
    large = fused_loss(batch, objective, weights, 10**9, monkeypatch, kind=torch.bfloat16)[1]
    small = fused_loss(batch, objective, weights * 1e-9, 10**9, monkeypatch, kind=torch.bfloat16)[1]
    assert small.abs().max() > 0
    torch.testing.assert_close(small.float() * 1e9, large.float(), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_no_divergence_between_equals(alpha):
    logits = torch.randn(4, VOCABULARY, dtype=torch.float64)
    for shape in (FORMS["full"], FORMS["tail"], FORMS["renormalised"]):
        scored = score(logits, logits.clone(), torch.zeros(4, dtype=torch.long), Objective(alpha=alpha, **shape))
        assert scored.divergence.abs().max() < 1e-7
        assert scored.gain.abs().max() < 1e-12


def test_a_k_of_the_whole_vocabulary_is_the_full_divergence():
    student, teacher = torch.randn(4, VOCABULARY), torch.randn(4, VOCABULARY)
    labels = torch.zeros(4, dtype=torch.long)
    full = score(student, teacher, labels, Objective(alpha=0.5, topk=None)).divergence
    assert torch.equal(score(student, teacher, labels, Objective(alpha=0.5, topk=VOCABULARY)).divergence, full)


def test_peaked_distributions_stay_finite():
    student = torch.full((1, VOCABULARY), -1e4)
    student[0, 0] = 0.0
    student.requires_grad_()
    teacher = torch.full((1, VOCABULARY), -1e4)
    teacher[0, 1] = 0.0
    for alpha in (0.0, 0.5, 1.0):
        scored = score(student, teacher, torch.tensor([0]), Objective(alpha=alpha, topk=4))
        (slope,) = torch.autograd.grad(scored.divergence.sum(), student)
        assert torch.isfinite(scored.divergence).all()
        assert torch.isfinite(slope).all()


def test_the_reverse_divergences_gradient_is_a_policy_gradient_over_all_tokens():
    """Paper, section 3: grad KL(S‖T) = -E_{v~S}[log T(v)/S(v) · grad log S(v)]."""
    student = torch.randn(3, VOCABULARY, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, VOCABULARY, dtype=torch.float64)
    scored = score(student, teacher, torch.zeros(3, dtype=torch.long), Objective(alpha=1.0, topk=None))
    (direct,) = torch.autograd.grad(scored.divergence.sum(), student)
    s = student.log_softmax(-1)
    advantage = (teacher.log_softmax(-1) - s).detach()
    (by_policy,) = torch.autograd.grad(-(s.exp().detach() * advantage * s).sum(), student)
    torch.testing.assert_close(direct, by_policy)


def test_an_importance_ratio_is_clipped_above_and_carries_no_gradient():
    logps = torch.tensor([0.0, -1.0, -3.0, 50.0], requires_grad=True)
    found = ratio(logps, torch.tensor([0.0, -3.0, -1.0, 0.0]), 2.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, float(np.exp(-2.0)), 2.0]))
    assert not found.requires_grad
    assert torch.equal(ratio(logps, None, 2.0), torch.ones(4))


def test_the_policys_part_is_the_papers_hybrid_on_policy():
    """Eq. 3: λ·A_GRPO + (1-λ)·log T/S as one advantage has the gradient of the two losses, weighted alike."""
    torch.manual_seed(0)
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    head, teacher = torch.randn(9, 4, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    labels, advantages, share = torch.arange(5), torch.randn(5, dtype=torch.float64), 0.9
    tokens = Tokens(
        labels=labels,
        taught=5,
        teacher=lambda first, last: teacher[first:last],
        distill=torch.full((5,), (1 - share) / 5, dtype=torch.float64),
        policy=torch.full((5,), share / 5, dtype=torch.float64),
        advantages=advantages,
    )
    objective = Objective(alpha=1.0, sampled=True, policy_weight=share)
    value, _ = loss(hidden, lambda states: states @ head.T, [], tokens, objective)
    value.backward()
    s = (hidden @ head.T).log_softmax(-1)[torch.arange(5), labels]
    t = teacher.log_softmax(-1)[torch.arange(5), labels]
    together = share * advantages + (1 - share) * (t - s).detach()
    (expected,) = torch.autograd.grad(-(together * s).mean(), hidden)
    torch.testing.assert_close(hidden.grad, expected)


def test_ppo_clipping_stops_a_token_that_has_gone_too_far():
    logps = torch.tensor([0.5, -0.5, 0.0], requires_grad=True)
    policy(logps, torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]), (0.2, 0.2)).sum().backward()
    assert logps.grad[0] == 0
    assert logps.grad[1] == 0
    assert logps.grad[2] == -1


def test_tokens_without_a_teacher_are_looked_at_and_teach_nothing():
    hidden = torch.randn(4, 3, requires_grad=True)
    head = torch.randn(9, 3, requires_grad=True)
    tokens = Tokens(labels=torch.arange(4), taught=0, teacher=None, distill=torch.zeros(4))
    value, tally = loss(hidden, lambda states: states @ head.T, [head], tokens, Objective())
    value.backward()
    assert value.item() == 0
    assert torch.equal(hidden.grad, torch.zeros(4, 3))
    assert torch.equal(head.grad, torch.zeros(9, 3))
    assert len(torch.cat(tally.entropy)) == 4

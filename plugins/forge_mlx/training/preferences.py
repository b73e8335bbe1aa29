"""The losses of ``dpo``, by TRL's names and as its trainer has them (``dpo_trainer.py`` of 1.14 and 1.16)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import mlx.core as mx
from mlx import nn


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a batch's answers gained on the untrained model; every array has the shape (pairs,).

    Attributes:
        better: What the better answers' log-likelihoods gained, in nats.
        worse: What the other ones' gained.
        now: The better answers' log-likelihoods, less the other ones'.
        likely: The better answers' log-likelihoods.
        better_tokens: How many tokens the better answers have.
        worse_tokens: How many the other ones have.
        beta: How far the trained model may go from the untrained one; the smaller, the further.
        smoothing: The share of pairs that are taken to be the wrong way round.
        tau: The temperature of ``discopop``.
    """

    better: mx.array
    worse: mx.array
    now: mx.array
    likely: mx.array
    better_tokens: mx.array
    worse_tokens: mx.array
    beta: float
    smoothing: float
    tau: float

    @property
    def margin(self) -> mx.array:
        """By how much more the better answers gained, times beta."""
        return self.beta * (self.better - self.worse)

    @property
    def margin_of_a_token(self) -> mx.array:
        """By how much more a token of the better answers gained."""
        return self.better / self.better_tokens - self.worse / self.worse_tokens


Loss = Callable[[Pairs], mx.array]


def _wins(value: mx.array) -> mx.array:
    """Return the negative logarithm of the chance that a margin gives."""
    return -nn.log_sigmoid(value)


def _smooth(pairs: Pairs, margin: mx.array) -> mx.array:
    return _wins(margin) * (1 - pairs.smoothing) + _wins(-margin) * pairs.smoothing


def _exo(pairs: Pairs) -> mx.array:
    margin, wrong = pairs.margin, pairs.smoothing
    right = mx.sigmoid(margin) * (nn.log_sigmoid(margin) - math.log1p(-wrong))
    return right + mx.sigmoid(-margin) * (nn.log_sigmoid(-margin) - math.log(wrong))


def _nca(pairs: Pairs) -> mx.array:
    better, worse = pairs.beta * pairs.better, pairs.beta * pairs.worse
    return _wins(better) + 0.5 * _wins(-better) + 0.5 * _wins(-worse)


def _robust(pairs: Pairs) -> mx.array:
    share = pairs.smoothing
    return ((1 - share) * _wins(pairs.margin) - share * _wins(-pairs.margin)) / (1 - 2 * share)


def _discopop(pairs: Pairs) -> mx.array:
    share = mx.sigmoid(pairs.margin / pairs.tau)
    return _wins(pairs.margin) * (1 - share) + mx.exp(-pairs.margin) * share


def _aot(pairs: Pairs) -> mx.array:
    before = pairs.now - (pairs.better - pairs.worse)
    return _smooth(pairs, pairs.beta * (_rising(pairs.now) - _rising(before)))


def _rising(values: mx.array) -> mx.array:
    return values[mx.argsort(mx.stop_gradient(values))]


LOSSES: Mapping[str, Loss] = {
    "aot": _aot,
    "aot_unpaired": lambda pairs: _smooth(pairs, pairs.beta * (_rising(pairs.better) - _rising(pairs.worse))),
    "apo_down": lambda pairs: mx.sigmoid(pairs.beta * pairs.better) + 1 - mx.sigmoid(pairs.margin),
    "apo_zero": lambda pairs: 1 - mx.sigmoid(pairs.beta * pairs.better) + mx.sigmoid(pairs.beta * pairs.worse),
    "bco_pair": lambda pairs: _wins(pairs.beta * pairs.better) + _wins(-pairs.beta * pairs.worse),
    "discopop": _discopop,
    "exo_pair": _exo,
    "hinge": lambda pairs: mx.maximum(1 - pairs.margin, 0),
    "ipo": lambda pairs: (pairs.margin_of_a_token - 1 / (2 * pairs.beta)) ** 2,
    "nca_pair": _nca,
    "robust": _robust,
    "sft": lambda pairs: mx.broadcast_to(-pairs.likely.sum() / pairs.better_tokens.sum(), pairs.likely.shape),
    "sigmoid": lambda pairs: _wins(pairs.margin),
    "sigmoid_norm": lambda pairs: _wins(pairs.beta * pairs.margin_of_a_token),
    "sppo_hard": lambda pairs: (pairs.better - 0.5 / pairs.beta) ** 2 + (pairs.worse + 0.5 / pairs.beta) ** 2,
}
"""The loss of each pair. Those of ``aot``, ``aot_unpaired`` and ``sft`` go by the whole batch."""

"""Probabilities of a file beside those of the trained model, and the marks by which they are judged."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from forge_gguf.file.quants import KINDS
from forge_gguf.trial.verify import check_logits


class _Answers:
    """A generator that gives probabilities it was made with: what no file gives on purpose."""

    def __init__(self, logs: Any) -> None:
        self.logs = logs

    def logits(self, ids: Any, top: int) -> tuple[Any, Any]:
        del ids
        order = np.argsort(-self.logs, axis=1)[:, :top]
        return order, np.take_along_axis(self.logs, order, axis=1)


def _logs(first: float) -> Any:
    """Return logarithms of the probabilities of four tokens after one position."""
    return np.log(np.array([[first, 0.9 - first, 0.06, 0.04]]))


@pytest.mark.parametrize(("there", "state"), [(0.6, "pass"), (0.5, "warn"), (0.2, "fail")])
def test_a_divergence_passes_is_told_with_its_marks_or_fails(there: float, state: str) -> None:
    generator: Any = _Answers(_logs(there))
    gate = check_logits(generator, [[1]], [_logs(0.6)], KINDS["q8_0"])
    assert gate.state == state
    assert bool(re.search(r"; files of .* have a KL of at most 0\.02 and 94% or more$", gate.message)) == (
        state == "warn"
    )
    p, q = np.exp(_logs(0.6))[0], np.exp(_logs(there))[0]
    assert gate.values["kl_mean"] == pytest.approx(float((p * np.log(p / q)).sum()), abs=1e-6)

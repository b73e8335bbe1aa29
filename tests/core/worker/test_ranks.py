"""What processes that train together tell each other, and what a worker makes of a collective that failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from forge.disk.meeting import free_port
from forge.errors import PeerLost
from forge.worker.ranks import _told, peer_lost

MEMBER = """
import json, sys, time
import torch.distributed
from datetime import timedelta
from forge.worker import ranks

far, wishes, pauses = json.loads(sys.argv[1])
ranks.FAR_APART = far
group = ranks.Together(timedelta(seconds=60))
said, waited = [], []
for step, wish in enumerate(wishes[group.rank]):
    time.sleep(pauses[group.rank][step])
    began = time.monotonic()
    group.agree_soon("another", not wish)
    said.append(group.agree_soon("stop", wish))
    waited.append(time.monotonic() - began)
group.barrier()
print(json.dumps([said, waited]))
torch.distributed.destroy_process_group()
"""


def ask(far: float, wishes: list[list[bool]], pauses: list[list[float]] | None = None) -> list[Any]:
    """Have two processes ask at each step; return what each was told, and how long it waited.

    Args:
        far: From how many seconds on steps are slow.
        wishes: Of each process, whether it wishes something at a step.
        pauses: Of each process, seconds before each question.
    """
    pytest.importorskip("torch")
    there = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    there["MASTER_PORT"] = str(free_port("127.0.0.1"))
    there["PYTHONPATH"] = str(Path(__file__).resolve().parents[3] / "core")
    command = [sys.executable, "-c", MEMBER, json.dumps([far, wishes, pauses or [[0.0] * len(wishes[0])] * 2])]
    both = [
        subprocess.Popen(command, env=there | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True) for rank in (0, 1)
    ]
    end = time.monotonic() + 90
    return [json.loads(each.communicate(timeout=end - time.monotonic())[0]) for each in both]


def test_a_wish_in_quick_steps_is_known_to_all_at_the_next_one() -> None:
    wish = [False, False, True, False, False, False]
    (first, _), (second, _) = ask(100.0, [wish, [False] * 6])
    assert first == second == [False, False, False, True, False, False]


@pytest.mark.slow
def test_in_quick_steps_one_may_be_a_step_ahead_of_the_other() -> None:
    """Each is slow in every other step; were they to wait for each other in each, all steps would be slow."""
    pauses = [[0.3 * (step % 2 == rank) for step in range(8)] for rank in (0, 1)]
    (_, first), (_, second) = ask(100.0, [[False] * 8, [False] * 8], pauses)
    waited = [one + other for one, other in zip(first[3:], second[3:], strict=True)]
    assert sorted(waited)[len(waited) // 2] < 0.15


def test_a_wish_in_slow_steps_is_known_to_all_at_once() -> None:
    wish = [False, False, True, False]
    (first, _), (second, _) = ask(0.0, [[False] * 4, wish])
    assert first == second == wish


@pytest.mark.slow
def test_no_wish_is_lost_where_steps_become_slow_and_quick_again() -> None:
    slow = [step in {3, 4, 5, 6, 11} for step in range(16)]
    wishes = [[step in {2, 6, 9} for step in range(16)], [step in {4, 11, 13} for step in range(16)]]
    (first, _), (second, _) = ask(0.15, wishes, [[0.3 * each for each in slow]] * 2)
    assert first == second
    wished = [one or other for one, other in zip(*wishes, strict=True)]
    for step, wish in enumerate(wished[:-1]):
        assert not wish or True in first[step : step + 2], step
    for step, told in enumerate(first):
        assert not told or True in wished[max(step - 1, 0) : step + 1], step


def test_the_loss_of_another_process_is_found_in_what_was_made_of_it() -> None:
    with pytest.raises(ValueError, match="made of it") as raised:  # noqa: PT012 - the chain is what is looked at
        try:
            raise RuntimeError("[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:1")
        except RuntimeError as error:
            raise ValueError("made of it") from error
    lost = peer_lost(raised.value)
    assert lost is not None
    assert "Connection closed by peer" in (lost.why or "")
    assert peer_lost(ValueError("something else")) is None


@pytest.mark.parametrize(
    "words",
    [
        "NCCL error: remote process exited or there was a network error",
        "NCCL WARN NET/Socket : Connection closed by remote peer 10.0.0.1",
        "NCCL communicator was aborted on rank 0.",
    ],
)
def test_what_nccl_says_of_a_process_that_is_gone_is_understood(words: str) -> None:
    assert peer_lost(RuntimeError(words)) is not None


def test_what_cannot_be_sent_is_no_loss_of_a_process() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"), _told():
        raise TypeError("it cannot be pickled")
    with pytest.raises(PeerLost, match="another process of the training is gone"), _told():
        raise RuntimeError("words that nobody knows")


def test_errors_that_were_made_of_each_other_are_looked_through_once() -> None:
    first, second = OSError("the disk is full"), ValueError("while it was told")
    first.__cause__, second.__context__ = second, first
    assert peer_lost(first) is None

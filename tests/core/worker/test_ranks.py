"""What a worker makes of a collective that failed."""

from __future__ import annotations

import pytest

from forge.worker.ranks import peer_lost


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


def test_errors_that_were_made_of_each_other_are_looked_through_once() -> None:
    first, second = OSError("the disk is full"), ValueError("while it was told")
    first.__cause__, second.__context__ = second, first
    assert peer_lost(first) is None

"""Fixtures of the tests of where jobs are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.clusters import missing, slurm

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A real Slurm of two nodes; the variables with which its tools find it."""
    if why := missing():
        pytest.skip(why)
    # A socket's path has at most 107 letters.
    with slurm(tmp_path_factory.mktemp("slurm")) as variables, pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables

"""Fixtures of the tests of SDPO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.sdpo.project import SdpoProject


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Models this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> SdpoProject:
    """A project of its own for each test."""
    return SdpoProject(tmp_path / "project", tiny_model)

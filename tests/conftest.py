"""Fixtures that several test files share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tiny import make_model

if TYPE_CHECKING:
    from pathlib import Path

# The models are tiny and the tests run side by side: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a real tokenizer. Shared by all tests: copy it before you change a file of it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")

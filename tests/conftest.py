"""Fixtures that several test files share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tiny import make_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a real tokenizer. Shared by all tests: copy it before you change a file of it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")

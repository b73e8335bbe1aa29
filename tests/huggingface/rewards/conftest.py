"""Jobs with rewards, checked and loaded as the plan and the worker do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.rewarding import Folder, builtin

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.fixture
def make() -> Any:
    return builtin

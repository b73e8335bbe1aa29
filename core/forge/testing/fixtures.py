"""Fixtures of pytest for authors of plugins: ``pytest_plugins = ["forge.testing.fixtures"]`` in a ``conftest.py``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from forge.testing.running import run_job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from forge.testing.running import Ran


@pytest.fixture
def forge_run(tmp_path: Path) -> Callable[..., Ran]:
    """Run jobs in a folder of this test: :func:`forge.testing.run_job` without the folder."""
    return partial(run_job, folder=tmp_path)

"""Here every project's model sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.looking import VisionProject


@pytest.fixture
def project(seeing: VisionProject) -> VisionProject:
    """A project of its own for each test."""
    return seeing

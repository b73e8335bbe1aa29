"""What tests of ``forge migrate`` share: a configuration of another tool, and the job that comes of it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from forge_migrate.draft import Draft
from forge_migrate.reading import read
from forge_migrate.translate import draft_of
from forge_migrate.writing import text_of

if TYPE_CHECKING:
    from pathlib import Path

Migrate = Callable[..., tuple[dict[str, Any], Draft]]


@pytest.fixture
def migrate(tmp_path: Path) -> Migrate:
    """Return a function that takes a file's text (and name) and returns the job's tables and the draft."""

    def act(text: str, name: str = "config.yaml", **options: Any) -> tuple[dict[str, Any], Draft]:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        draft = draft_of(read(path, **options), tmp_path)
        return tomli.loads(text_of(draft, name)), draft

    return act

"""What the tests of GGUF files share; without the packages of ``forge-train[gguf]`` they are skipped, and say so."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

WHEELS = {"gguf": "gguf", "xllamacpp": "xllamacpp", "libggml-python": "libggml"}
# This folder is called gguf too: found without an origin, it is no package.
MISSING = [name for name, module in WHEELS.items() if getattr(find_spec(module), "origin", None) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs packages that are not here."""
    if MISSING:
        reason = f'{", ".join(MISSING)} not installed: pip install "forge-train[gguf]"'
        for item in items:
            if "tests/gguf" in item.path.as_posix() and "test_rules" not in item.path.name:
                item.add_marker(pytest.mark.skip(reason=reason))

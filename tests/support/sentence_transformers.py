"""What tests of embedding models and rerankers share."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDED = pytest.mark.skipif(
    find_spec("sentence_transformers") is None,
    reason="sentence-transformers is not installed (pip install sentence-transformers)",
)
"""Marks tests that compute with it, which nothing else of forge needs."""

"""What a word that names a function can say."""

from __future__ import annotations

import pytest

from forge_huggingface.functions.reference import Reference, reference


@pytest.mark.parametrize(
    ("use", "refers"),
    [
        ("math-equal", Reference("builtin", "math-equal", "")),
        ("package.module:fn", Reference("module", "package.module", "fn")),
        ("module:fn", Reference("module", "module", "fn")),
        ("package.module", Reference("module", "package.module", "")),
        ("./rewards.py:fn", Reference("file", "./rewards.py", "fn")),
        ("rewards.py:fn", Reference("file", "rewards.py", "fn")),
        ("./rewards.py", Reference("file", "./rewards.py", "")),
        ("/jobs/a:b/rewards.py:fn", Reference("file", "/jobs/a:b/rewards.py", "fn")),
        (r"C:\jobs\rewards.py:fn", Reference("file", r"C:\jobs\rewards.py", "fn")),
        (r"C:\jobs\rewards.py", Reference("file", r"C:\jobs\rewards.py", "")),
    ],
)
def test_use_names_a_builtin_a_module_or_a_file(use: str, refers: Reference) -> None:
    assert reference(use) == refers

"""The beginnings of plugins: each works as it is written, and no name of another's is taken."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from forge.cli.scaffold import scaffold
from forge.cli.scaffold.kinds import KINDS
from forge.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from support.sites import Site

LIGHT = [kind for kind in KINDS if kind != "method"]


def installed(site: Site, kind: str) -> Path:
    """Write the beginning of a plugin and install it; return its folder."""
    root = scaffold(f"new-{kind}", site.folder.parent, kind)[0].parent
    site.install_project(root)
    return root


@pytest.mark.slow
def test_every_kind_passes_its_own_tests_and_ruff(site: Site) -> None:
    roots = [installed(site, kind) for kind in KINDS]
    long = [scaffold(f"{'long-' * 6}{kind}", site.folder.parent, kind)[0].parent for kind in KINDS]
    for arguments in (["check"], ["format", "--check"]):
        ruff = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", *map(str, roots + long)],
            capture_output=True,
            text=True,
        )
        assert ruff.returncode == 0, ruff.stdout + ruff.stderr
    assert "14 passed" in site.pytest(*(root for root, kind in zip(roots, KINDS, strict=True) if kind in LIGHT))


@pytest.mark.slow
def test_the_method_passes_its_own_test_and_every_kind_mypy(site: Site) -> None:
    roots = [installed(site, kind) for kind in KINDS]
    assert "2 passed" in site.pytest(next(root for root in roots if root.name.endswith("method")))
    for root in roots:
        mypy = subprocess.run(
            [sys.executable, "-m", "mypy", "--cache-dir", str(site.folder.parent / "mypy")],
            capture_output=True,
            text=True,
            cwd=root,
        )
        assert mypy.returncode == 0, mypy.stdout + mypy.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_has_what_a_project_has_and_no_word_is_left_open(tmp_path: Path, kind: str) -> None:
    written = scaffold("my-tool", tmp_path, kind)
    names = {path.relative_to(tmp_path / "forge-my-tool").as_posix() for path in written}
    assert names >= {"pyproject.toml", "README.md", ".github/workflows/ci.yml", "forge_my_tool/py.typed"}
    assert not [path.name for path in written if "@NAME@" in (text := path.read_text()) or "@PACKAGE@" in text]
    assert KINDS[kind].about in (tmp_path / "forge-my-tool" / "README.md").read_text()


def test_names_that_are_taken_are_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("others-zip", {"others_zip": ""}, "[forge_v1]\nzip = others_zip\n")
    monkeypatch.syspath_prepend(site.folder)
    with pytest.raises(UsageError, match=r"zip is taken: others-zip 1.0 has a plugin of this name"):
        scaffold("zip", tmp_path)
    with pytest.raises(UsageError, match="huggingface is taken"):
        scaffold("huggingface", tmp_path)
    with pytest.raises(UsageError, match="run is taken: forge run is a command already"):
        scaffold("run", tmp_path, "command", commands=("run",))
    with pytest.raises(UsageError, match=r"slurm is taken: plugin submit .* sends jobs to slurm"):
        scaffold("slurm", tmp_path, "target")
    with pytest.raises(UsageError, match="begin with a lower-case letter"):
        scaffold("1st", tmp_path)

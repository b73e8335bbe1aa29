"""What ``forge plugins new`` of forge 0.1 wrote still works: ``forge-0.1`` holds it, as it was written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli

from forge.testing import run_job

if TYPE_CHECKING:
    from support.sites import Site

OLD = Path(__file__).with_name("forge-0.1")
FIRST, LAST = "first", "last"
"""Its first template, with the stages' words in ``supports``, and its last."""
SERVING = """\
from collections.abc import Iterable

from forge.api import Extension, Offer, Stage, hookimpl


@hookimpl
def forge_offers() -> Iterable[Offer | Extension]:
    yield Extension(impl="forge_my_tool.observer")
    yield Offer(stage=Stage.EXPORT, impl="forge_my_tool.export:export", {word}=frozenset({{"my-tool/my-format"}}))
"""
EXPORT = """\
from forge.api import Exported

def export(out):
    (out / "weights").write_text("w")
    return Exported(files=("weights",))
"""


def installed(site: Site, version: str) -> Path:
    """Install what was written, as pip does it; return the project's folder."""
    root = site.folder.parent / "forge-my-tool"
    for path in (OLD / version).rglob("*.txt"):
        file = root / path.relative_to(OLD / version).with_suffix("")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    project = tomli.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"] == {"forge_v1": {"my-tool": "forge_my_tool"}}
    modules = {
        f"forge_my_tool.{path.stem}": path.read_text(encoding="utf-8") for path in root.glob("forge_my_tool/*.py")
    }
    needs = ", ".join(project["dependencies"])
    site.install("forge-my-tool", modules, "[forge_v1]\nmy-tool = forge_my_tool\n", project["version"], needs)
    return root


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A site whose plugins this process sees."""
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    return site


@pytest.mark.parametrize("version", [pytest.param(FIRST, marks=pytest.mark.slow), LAST])
def test_it_passes_its_own_test_and_its_observer_prints(here: Site, version: str, tmp_path: Path) -> None:
    root = installed(here, version)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-c", os.devnull, str(root)],
        capture_output=True,
        text=True,
        env=here.environment(),
        cwd=here.folder,
        timeout=60,
    )
    assert "1 passed" in ran.stdout, ran.stdout + ran.stderr
    shown = json.loads(here.forge("plugins", "my-tool", "--json").stdout)
    assert (shown["status"], shown["deprecated"], shown["version"]) == ("ok", [], "0.1.0")
    log = run_job('[use]\nwith = ["my-tool"]\n[train]\nmax_steps = 2\n', tmp_path).log
    assert [line for line in log.splitlines() if line.startswith("my-tool:")] == (
        ["my-tool: {'step': 1, 'of': 2, 'loss': 2.0}", "my-tool: {'step': 2, 'of': 2, 'loss': 1.0}"]
        if version == FIRST
        else ["my-tool: step 1 loss 2.0", "my-tool: step 2 loss 1.0"]
    )


@pytest.mark.parametrize(("version", "word"), [(FIRST, "supports"), (LAST, "serves")])
def test_the_offer_that_its_comment_shows_serves_a_job(here: Site, version: str, word: str, tmp_path: Path) -> None:
    comment = (OLD / version / "forge_my_tool" / "__init__.py.txt").read_text(encoding="utf-8")
    assert f'{word}=frozenset({{"my-tool/my-format"}})' in comment
    installed(here, version)
    (here.folder / "forge_my_tool" / "__init__.py").write_text(SERVING.format(word=word))
    (here.folder / "forge_my_tool" / "export.py").write_text(EXPORT)
    ran = run_job('[[export]]\nformat = "my-tool/my-format"\n', tmp_path)
    assert (ran.exports[0] / "weights").read_text() == "w"
    told = [note for note in ran.plan.notes if "Offer.supports" in note]
    assert len(told) == (1 if version == FIRST else 0)

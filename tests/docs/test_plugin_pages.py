"""The example of each page of docs/plugins/ works as it stands there, and asks nothing of forge that is not public."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.guide import PAGES, files_of, install, job_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from support.sites import Site

EXAMPLES = sorted(path.name for path in PAGES.glob("*.md") if "```python tests/" in path.read_text(encoding="utf-8"))


WHOLE = {page for page in EXAMPLES if "whole=True" in (PAGES / page).read_text(encoding="utf-8")}
"""Those whose run loads transformers; the method trains in tests/runs/test_other_plugin.py too."""
LIGHT = [page for page in EXAMPLES if page not in WHOLE]


def test_each_kind_has_a_page_with_an_example_and_the_index_names_it() -> None:
    assert len(EXAMPLES) == 13
    assert sorted(WHOLE) == ["adapt.md", "method.md"]
    index = (PAGES / "index.md").read_text(encoding="utf-8")
    assert not [page for page in EXAMPLES if f"]({page})" not in index]


def run_tests(site: Site, folder: Path, pages: Sequence[str]) -> None:
    """Install the examples of pages, and run their own tests in one interpreter."""
    for page in pages:
        install(site, page)
        for path, text in files_of(page).items():
            if path.startswith("tests/"):
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    done = subprocess.run(
        [*command, str(folder / "tests")],
        cwd=folder,
        env=site.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("half", [LIGHT[::2], LIGHT[1::2]], ids=lambda pages: ",".join(pages))
def test_the_examples_of_pages_pass_their_own_tests(half: list[str], site: Site, tmp_path: Path) -> None:
    run_tests(site, tmp_path, half)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(WHOLE))
def test_the_example_of_a_page_that_trains_passes_its_own_test(page: str, site: Site, tmp_path: Path) -> None:
    run_tests(site, tmp_path, [page])


def test_the_jobs_of_the_pages_ask_for_their_plugins(site: Site, tmp_path: Path) -> None:
    names = [install(site, page) for page in EXAMPLES]
    jobs = [text for page in EXAMPLES if (text := job_of(page))]
    assert len(jobs) == 12
    for number, text in enumerate(jobs):
        rows = "" if "[data]" in text else "[data]\npath = 'rows.jsonl'\n"
        model = "" if "[model]" in text else "[model]\nid = 'org/name'\n"
        (tmp_path / f"{number}.toml").write_text(f"{text}\n{rows}{model}", encoding="utf-8")
    site.python(
        "import sys; from pathlib import Path; from forge.discovery.discover import discover\n"
        "from forge.discovery.keys import PluginKeys; from forge.job.read import read\n"
        "found = discover(); assert all(found.find(name).status == 'ok' for name in sys.argv[2:])\n"
        "for path in Path(sys.argv[1]).glob('*.toml'): read(path, PluginKeys(found))\n",
        str(tmp_path),
        *names,
    )


@pytest.mark.parametrize("page", EXAMPLES)
def test_an_example_imports_only_what_is_public(page: str) -> None:
    public = {"forge.api", "forge.testing", "forge_huggingface.methods", "forge_huggingface.offering",
              "forge_huggingface.training.recipe", "forge_huggingface.training.train",
              "forge_huggingface.arguments.options"}  # fmt: skip
    own = {path.partition("/")[0] for path in files_of(page)}
    text = "".join(files_of(page).values())
    named = set(re.findall(r"^\s*from (forge[\w.]*) import", text, re.MULTILINE))
    assert {each for each in named if each.partition(".")[0] not in own} <= public

"""A plugin says by its distribution which forge it needs; another forge imports nothing of it, and says what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import forge
from forge.cli.scaffold import scaffold
from forge.discovery.discover import discover
from forge.discovery.requirements import unmet_forge
from support.crowd import offering

if TYPE_CHECKING:
    from support.sites import Site

SERIES = ".".join(forge.__version__.split(".")[:2])


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ("forge-train>=99", 'needs forge >=99, and this is {}: pip install "forge-train>=99"'),
        (
            "Forge_Train[huggingface]>=99,<100",
            'needs forge <100,>=99, and this is {}: pip install "forge-train<100,>=99"',
        ),
        ("forge-train<0.0.1", "needs forge <0.0.1, and this is {}: pip install --upgrade forge-x"),
        ("forge-train==0.0.*", "needs forge ==0.0.*, and this is {}: pip install --upgrade forge-x"),
        ("forge-train>=", "its requirement 'forge-train>=' cannot be read: "),
        ("forge-train", None),
        (f"forge-train>={SERIES}", None),
        ("forge-train-extras>=99", None),
        ('forge-train>=99; extra == "dev"', None),
        ('forge-train>=99; python_version < "3"', None),
    ],
)
def test_the_requirement_is_held_against_this_forge(needs: str, said: str | None) -> None:
    found = unmet_forge(["zipp", needs], "forge-x")
    assert (found or "").startswith((said or "").format(forge.__version__))
    assert (found is None) == (said is None)


def test_what_leads_to_a_version_has_what_that_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forge, "__version__", "0.9.0.dev3")
    assert unmet_forge(["forge-train>=0.9"], "forge-x") is None
    assert unmet_forge(["forge-train<0.9"], "forge-x") is not None


def test_a_plugin_for_another_forge_is_not_imported_and_told_by_name(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    seen = tmp_path / "seen"
    text = f"open({str(seen)!r}, 'w').close()\n" + offering("yield Extension(impl='late')")
    site.install("forge-late", {"late": text}, "[forge_v1]\nlate = late\n", needs="forge-train>=99")
    site.install("forge-fine", {"fine": offering("yield Extension(impl='fine')")}, "[forge_v1]\nfine = fine\n")
    catalogue = discover({})
    plugin, fine = catalogue.find("late"), catalogue.find("fine")
    assert plugin is not None
    assert fine is not None
    assert (plugin.status, fine.status) == ("other forge", "ok")
    assert 'pip install "forge-train>=99"' in str(plugin.reason)
    assert not seen.exists()
    assert "other forge: needs forge >=99" in site.forge("plugins").stdout


def test_what_stands_on_the_page_of_a_package_is_no_requirement(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site.folder)
    site.install("forge-page", {"page": offering("yield Extension(impl='page')")}, "[forge_v1]\npage = page\n")
    metadata = next(site.folder.glob("forge_page*.dist-info")) / "METADATA"
    metadata.write_text(metadata.read_text() + "\nAs in:\n\nRequires-Dist: forge-train>=99\n")
    found = discover({}).find("page")
    assert found is not None
    assert found.status == "ok"


@pytest.mark.parametrize(("kind", "needs"), [("export", "forge-train"), ("method", "forge-train[huggingface]")])
def test_a_new_plugin_says_which_forge_it_was_begun_with(tmp_path: Path, kind: str, needs: str) -> None:
    scaffold("my-tool", tmp_path, kind)
    text = (tmp_path / "forge-my-tool" / "pyproject.toml").read_text(encoding="utf-8")
    assert f'dependencies = ["{needs}>={SERIES}"]' in text

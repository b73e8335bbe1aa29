"""The example export: what it uploads, to a double of the hub."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from support.doubles.hub import Hub

if TYPE_CHECKING:
    from support.projects import Project


@pytest.mark.slow
def test_a_bundle_is_uploaded_with_its_checksum(project: Project, examples: None) -> None:
    project.write(export=[{"format": "bundle/tar", "file": "colours", "push_to_hub": "me/colours"}])
    with Hub() as hub:
        told = project.forge("run", "job.toml", **hub.environment(project.folder / "home"))
        files = hub.repos["me/colours"].files
        assert f"{hub.url}/me/colours" in told
        assert hub.repos["me/colours"].private
    assert {name for name in files if not name.startswith(".")} == {"colours.tar", "colours.tar.sha256"}
    assert files["colours.tar.sha256"].decode().split()[0] == hashlib.sha256(files["colours.tar"]).hexdigest()


@pytest.mark.slow
def test_an_upload_that_the_hub_refuses_costs_no_bundle(project: Project, examples: None) -> None:
    project.write(export=[{"format": "bundle/tar", "push_to_hub": "me/colours"}])
    with Hub() as hub:
        told = project.forge("run", "job.toml", code=1, **hub.environment(project.folder / "home", "hf_wrong"))
        assert "me/colours could not be written" in told
        (folder,) = (path for path, _ in project.newest().exports())
        assert (folder / "bundle.tar").is_file()
        again = project.forge("resume", str(project.newest().path), **hub.environment(project.folder / "home"))
        assert "bundle.tar" in hub.repos["me/colours"].files, again

"""The contract of a forge plugin, and what this one does in a run."""

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from forge.api import ForgeError
from forge.testing import Ran, check_plugin, make_model, run_job

from forge_bundle import archive
from forge_bundle.licence import licence_files, licence_of

JOB = '[[export]]\nformat = "bundle/tar"\n'


def manifest_of(path: Path) -> dict[str, Any]:
    with tarfile.open(path) as found:
        content = found.extractfile("manifest.json")
        assert content is not None
        manifest: dict[str, Any] = json.load(content)
        return manifest


def warnings_of(ran: Ran) -> list[str]:
    return [str(event.values["message"]) for event in ran.of_kind("warning")]


def test_the_plugin_keeps_its_contract() -> None:
    check_plugin("bundle")


def test_a_bundle_holds_what_was_trained_with_its_sums(tmp_path: Path) -> None:
    ran = run_job(f'{JOB}file = "colours"\nlicence = "mit"\n', tmp_path)
    (folder,) = ran.exports
    path = folder / "colours.tar"
    manifest = manifest_of(path)
    weights = (ran.folder / ran.trained.weights / "adapter_model.safetensors").read_bytes()
    assert manifest["files"]["adapter/adapter_model.safetensors"] == {
        "bytes": len(weights),
        "sha256": hashlib.sha256(weights).hexdigest(),
    }
    assert set(archive.sums(path)) == {"manifest.json", *manifest["files"]}
    assert "job.lock.toml" in manifest["files"]
    assert (manifest["licence"], manifest["kind"], manifest["base"]["id"]) == ("mit", "adapter", "model")
    assert (folder / "colours.tar.sha256").read_text().split() == [
        hashlib.sha256(path.read_bytes()).hexdigest(),
        "colours.tar",
    ]
    assert warnings_of(ran) == []


def test_the_base_models_licence_goes_with_it(tmp_path: Path) -> None:
    model = make_model(tmp_path / "base")
    (model / "README.md").write_text("---\nlicense: apache-2.0\ntags: []\n---\n# A model\n")
    (model / "LICENSE").write_text("do what you like")
    ran = run_job(f'[model]\nid = "base"\n{JOB}compression = "xz"\n', tmp_path)
    manifest = manifest_of(ran.exports[0] / "bundle.tar.xz")
    assert manifest["licence"] == "apache-2.0"
    assert "licence/LICENSE" in manifest["files"]
    assert warnings_of(ran) == []


def test_a_licence_that_nobody_names_is_told_before_the_training(tmp_path: Path) -> None:
    ran = run_job(JOB, tmp_path)
    kinds = [event.kind for event in ran.events]
    assert kinds.index("warning") < kinds.index("training")
    assert warnings_of(ran) == ["model does not say under which licence it is, and the bundle will not either"]
    assert manifest_of(ran.exports[0] / "bundle.tar")["licence"] is None


def test_an_upload_without_a_token_ends_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ForgeError, match="there is no token to upload to me/colours"):
        run_job(f'{JOB}push_to_hub = "me/colours"\n', tmp_path)


@pytest.mark.parametrize("compression", archive.MODES)
def test_the_same_files_make_the_same_bytes(tmp_path: Path, compression: str) -> None:
    (tmp_path / "a").write_bytes(b"weights" * 1000)
    files = {"manifest.json": b"{}", "deep/folder/a": tmp_path / "a"}
    archive.write(tmp_path / "one", compression, files)
    (tmp_path / "a").touch()
    archive.write(tmp_path / "two", compression, files)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert archive.sums(tmp_path / "one")["deep/folder/a"] == hashlib.sha256(b"weights" * 1000).hexdigest()


@pytest.mark.parametrize(
    ("card", "named"),
    [
        ("---\nlicense: 'llama3.1'\n---\ntext", "llama3.1"),
        ("---\nlicense: mit", None),
        ("license: mit", None),
        ("---\ntags: []\n---\nlicense: mit\n", None),
        (None, None),
    ],
)
def test_a_card_names_a_licence_in_its_head_alone(tmp_path: Path, card: str | None, named: str | None) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert licence_of(tmp_path) == named
    assert licence_files(tmp_path) == []
    assert licence_of(None) is None

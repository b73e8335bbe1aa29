"""The double of the hub satisfies the real ``huggingface_hub``, in a child process as forge's workers use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from support.doubles.hub import TOKEN, Hub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = {"config.json": '{"model_type": "llama"}', "model.safetensors": b"\x00" * 5000, "sub/readme.txt": "hello"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as hub:
        yield hub


def client(hub: Hub, home: Path, code: str, token: str | None = TOKEN) -> Any:
    """Run code in a child with huggingface_hub and return what it leaves in ``out``."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    script = "import json, huggingface_hub as h\nout = None\n" + textwrap.dedent(code) + "\nprint(json.dumps(out))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean | hub.environment(home, token),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_downloaded_whole_and_by_file(hub: Hub, tmp_path: Path) -> None:
    commit = hub.add("org/model", FILES)
    folder, one, sha = client(
        hub,
        tmp_path,
        """
        folder = h.snapshot_download("org/model")
        one = h.hf_hub_download("org/model", "model.safetensors", revision=h.HfApi().model_info("org/model").sha)
        out = folder, one, h.HfApi().model_info("org/model", revision="main").sha
        """,
    )
    assert folder == str(tmp_path / "hub" / "models--org--model" / "snapshots" / commit)
    assert one == f"{folder}/model.safetensors"
    assert sha == commit
    assert not hub.leaked
    for path, body in FILES.items():
        content = (tmp_path / "hub/models--org--model/snapshots" / commit / path).read_bytes()
        assert content == (body if isinstance(body, bytes) else body.encode())


def test_a_folder_is_uploaded_to_a_new_private_model(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"\x01" * 3000)
    (folder / "sub" / "a.txt").write_text("a")
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "README.md").write_text("---\nlibrary_name: peft\n---\n# Card\n")
    url, oid = client(
        hub,
        tmp_path / "home",
        f"""
        api = h.HfApi()
        repo = api.create_repo("new", private=True, exist_ok=True)
        api.create_repo(repo.repo_id, private=True, exist_ok=True)
        info = api.upload_folder(repo_id=repo.repo_id, folder_path={str(folder)!r}, commit_message="trained")
        out = str(info.commit_url), info.oid
        """,
    )
    repo = hub.repos["tester/new"]
    assert repo.private
    assert repo.messages[-1] == "trained"
    assert (url, oid) == (f"{hub.url}/tester/new/commit/{repo.head}", repo.head)
    assert repo.files["model.safetensors"] == b"\x01" * 3000
    assert repo.files["sub/a.txt"] == b"a"
    assert repo.files["empty.safetensors"] == b""
    assert any(path.startswith("/lfs/") for method, path in hub.requests if method == "PUT")
    assert set(hub.tokens_seen) == {TOKEN}


def test_the_clients_errors_are_the_hubs(hub: Hub, tmp_path: Path) -> None:
    hub.add("org/gated", FILES, gated=True)
    hub.add("org/private", FILES, private=True)
    hub.add("org/open", FILES)
    code = """
        def kind(*args, **kwargs):
            try:
                h.hf_hub_download(*args, **kwargs)
            except Exception as error:
                return type(error).__name__
        out = [kind("org/gated", "config.json"), kind("org/private", "config.json"), kind("org/none", "config.json"),
               kind("org/open", "none.json"), kind("org/open", "config.json", revision="none")]
        try:
            h.HfApi().create_repo("org/mine")
        except Exception as error:
            out.append(error.response.status_code if hasattr(error, "response") else type(error).__name__)
        """
    missing = ["RemoteEntryNotFoundError", "RevisionNotFoundError"]
    refused = ["GatedRepoError", "RepositoryNotFoundError", "RepositoryNotFoundError", *missing, 401]
    assert client(hub, tmp_path, code, token=None) == refused
    known = ["GatedRepoError", None, "RepositoryNotFoundError", *missing]
    assert client(hub, tmp_path / "b", code, token=TOKEN) == known
    assert list(hub.repos["org/mine"].files) == [".gitattributes"]


def test_nothing_is_written_without_a_token_that_it_knows(hub: Hub, tmp_path: Path) -> None:
    code = """
        try:
            h.HfApi().create_repo("org/mine")
        except Exception as error:
            out = error.response.status_code
        """
    assert client(hub, tmp_path, code, token="hf_other") == 401
    assert hub.repos == {}
    assert hub.tokens_seen == ["hf_other"]

"""GGUF exports: checked before training, made from the files of a run, resumable, and refused if they differ."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.errors import DiskFull, ExportError
from forge.job.job import Job
from forge.job.read import change_of, parse
from forge.machine.probe import probe
from forge.planning.planner import export_plan
from forge_gguf.file.quants import KINDS
from support.doubles.hub import Hub
from support.projects import Finished, Project, json_of, perform_in
from support.tiny_gguf import make, make_like_llama3

TYPES = ["q8_0", "f16"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A trained run with a GGUF export that was not made yet. Shared: copy it before changing anything.

    Its model has matrices large enough for attention to matter: the shared tiny one attends to everything alike.
    """
    folder = tmp_path_factory.mktemp("gguf")
    project = Project(folder / "project", make(folder / "base", "llama"))
    project.write(export=[{"format": "gguf", "types": TYPES}], name="tiny")
    done = project.perform()
    assert done.code == 0, done.printed
    return done


@pytest.fixture
def mine(run: Finished, tmp_path: Path) -> RunFolder:
    """A copy of the run."""
    return RunFolder(Path(shutil.copytree(run.folder.path, tmp_path / "runs" / "tiny" / "a")))


def job_of(folder: RunFolder, *changes: str) -> Job:
    """Read the job of a run again, with changes."""
    stored = folder.plan().job["folder"]
    text = (folder.path / "job.toml").read_text(encoding="utf-8")
    return parse(
        text, "job.toml", Path(stored), PluginKeys(discover({})), [change_of(text) for text in list(changes)]
    ).job


def exported(folder: RunFolder, *changes: str, index: int = 0) -> Finished:
    """Make an export of a run in this process."""
    plan, trained = folder.plan(), folder.trained()
    assert trained is not None
    made = export_plan(job_of(folder, *changes), index, discover({}), probe(), plan.facts, trained.traits, plan.source)
    made = replace(made, decisions=(*plan.decisions, *made.decisions))
    return perform_in(Run(folder=folder.path, plan=made), folder)


def out_of(folder: RunFolder) -> Path:
    return folder.path / "exports" / "1-gguf"


def test_before_training_a_small_model_went_the_whole_way(run: Finished) -> None:
    said = [event["message"] for event in run.of_kind("note")]
    assert any("a small random llama went the whole way to GGUF" in text for text in said), said
    assert any(text.startswith("q8_0 will be") and "bits per weight" in text for text in said)
    assert run.of_kind("warning") == []


def test_files_that_pass_are_recorded_with_what_was_found(mine: RunFolder) -> None:
    made = exported(mine)
    assert made.code == 0, made.printed
    out = out_of(mine)
    report = json_of(out / "export.json")
    assert set(report["files"]) == {"tiny-q8_0.gguf", "tiny-f16.gguf", "Modelfile", "README.md", "verified.json"}
    for name in TYPES:
        about = report["report"][name]
        assert set(about["gates"]) >= {"keys", "tokens", "template", "logits"}
        assert {gate["state"] for gate in about["gates"].values()} <= {"pass", "warn"}
        file = out / about["file"]
        assert about["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() == report["files"][file.name]["sha256"]
    assert report["report"]["f16"]["gates"]["logits"]["kl_mean"] < 3e-4
    assert "llama-server -m tiny-q8_0.gguf" in (out / "README.md").read_text(encoding="utf-8")
    assert not list(out.parent.rglob("*.part"))


@pytest.mark.slow
def test_another_type_is_added_later_and_nothing_is_made_twice(mine: RunFolder) -> None:
    assert exported(mine).code == 0
    before = {path.name: path.stat().st_mtime_ns for path in out_of(mine).glob("*.gguf")}
    made = exported(mine, 'export.0.types=["q4_k_m"]')
    assert made.code == 0, made.printed
    after = {path.name: path.stat().st_mtime_ns for path in out_of(mine).glob("*.gguf")}
    assert after.keys() - before.keys() == {"tiny-q4_k_m.gguf"}
    assert {name: after[name] for name in before} == before
    report = json_of(out_of(mine) / "export.json")["report"]
    assert "conversion" in report["q4_k_m"]["gates"], "a rounded file alone cannot tell whether the conversion is right"


@pytest.mark.slow
def test_files_of_another_training_are_not_kept(mine: RunFolder) -> None:
    assert exported(mine, 'export.0.types=["f16"]').code == 0
    record = out_of(mine) / "verified.json"
    text = record.read_text(encoding="utf-8")
    fingerprint = json_of(record)["f16"]["fingerprint"]
    record.write_text(text.replace(fingerprint, "0" * 64), encoding="utf-8")
    made = exported(mine, 'export.0.types=["q8_0"]')
    assert made.code == 0, made.printed
    assert [path.name for path in out_of(mine).glob("*.gguf")] == ["tiny-q8_0.gguf"]


def test_what_ended_between_two_files_is_finished_later(mine: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is kept as it is, the half of the second is made anew."""
    from forge_gguf import export as module

    whole = module.one

    def dies(run: Any, source: Any, kind: Any, out: Path, trials: Any) -> Any:
        if kind.name == "f16":
            (out / "tiny-f16.gguf.part").write_bytes(b"half")
            raise KeyboardInterrupt
        return whole(run, source, kind, out, trials)

    monkeypatch.setattr(module, "one", dies)
    assert exported(mine).code == 1
    monkeypatch.undo()
    part = out_of(mine).with_name("1-gguf.part")
    first = (part / "tiny-q8_0.gguf").stat().st_mtime_ns
    assert (part / "tiny-f16.gguf.part").exists()
    made = exported(mine)
    assert made.code == 0, made.printed
    assert (out_of(mine) / "tiny-q8_0.gguf").stat().st_mtime_ns == first
    assert (out_of(mine) / "tiny-f16.gguf").exists()


@pytest.mark.slow
def test_a_kill_in_the_middle_leaves_the_weights_and_forge_export_finishes(mine: RunFolder) -> None:
    """With a real worker and SIGKILL while it writes or tries a file."""
    weights = (mine.path / "adapter" / "adapter_model.safetensors").read_bytes()
    command = [sys.executable, "-P", "-m", "forge", "export", str(mine.path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = out_of(mine).with_name("1-gguf.part")
    end = time.monotonic() + 120
    while not list(part.glob("*.gguf.part")) and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(int((mine.path / ".lock").read_text()), signal.SIGKILL)
    assert process.wait(60) == 1
    assert not out_of(mine).exists()
    assert (mine.path / "adapter" / "adapter_model.safetensors").read_bytes() == weights
    subprocess.run(command, check=True, timeout=240, stdout=subprocess.DEVNULL)
    assert len(list(out_of(mine).glob("*.gguf"))) == 2


def test_a_full_disk_is_told_before_anything_is_written(mine: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(mine.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=2**20))
    made = exported(mine)
    assert made.code == DiskFull.exit_code
    assert "q8_0, f16 need" in made.error["why"]
    assert f"forge export {mine.path}" in made.error["do"]


def test_a_disk_that_fills_up_leaves_the_weights_and_the_whole_files(
    mine: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_gguf.file import quants

    encode = quants.encode

    def full(rows: Any, format_: str) -> Any:
        if format_ == "F16":
            raise OSError(28, "No space left on device")
        return encode(rows, format_)

    monkeypatch.setattr(quants, "encode", full)
    made = exported(mine)
    assert made.code == DiskFull.exit_code
    assert "the disk is full" in made.error["why"]
    assert (mine.path / "adapter" / "adapter_model.safetensors").exists()
    assert (out_of(mine).with_name("1-gguf.part") / "tiny-q8_0.gguf").exists(), "what was whole before is kept"


def test_no_network_is_needed(mine: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the loopback address may be reached: llama.cpp in this process is asked there."""
    connect = socket.socket.connect

    def local_only(this: socket.socket, address: Any) -> None:
        assert isinstance(address, tuple), address
        assert address[0] == "127.0.0.1", f"the export reached for {address}"
        connect(this, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    made = exported(mine, 'export.0.types=["q8_0"]')
    assert made.code == 0, made.printed


def test_an_adapter_alone_is_laid_over_the_base(mine: RunFolder) -> None:
    made = exported(mine, "export.0.adapter=true", 'export.0.types=["f16"]')
    assert made.code == 0, made.printed
    report = json_of(out_of(mine) / "export.json")["report"]["f16"]
    assert report["file"] == "tiny-lora-f16.gguf"
    assert report["gates"]["logits"]["kl_mean"] < 3e-4
    assert "--lora tiny-lora-f16.gguf" in (out_of(mine) / "README.md").read_text(encoding="utf-8")


ODD_NAMES = ("phi-3-colours", "my-Phi3", "modern-bert", "a-mmproj", "MTP-it", "x-00001-of-00002", "ü" * 100, "☃phi3")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_runs_name_stands_in_no_key_and_no_file_name_that_programs_act_on(
    name: str, run: Finished, tmp_path: Path
) -> None:
    """llama.cpp looks for Phi-3's tokens where ``general.name`` says so, and takes ``mmproj`` for eyes of a model."""
    from forge_gguf.source import header, name_of, source_of

    job = job_of(run.folder).model_copy(update={"name": name})
    trained = run.folder.trained()
    assert trained is not None
    source = source_of(job, Run(folder=run.folder.path, plan=run.folder.plan()), trained)
    keys = source.keys(KINDS["f16"])
    told = {key for key, value in keys.items() if isinstance(value, str) and source.name in value}
    assert told == {"general.description"}
    assert keys == header(KINDS["f16"], source.config, source.vocabulary, source.name)
    assert name_of(job, Run(folder=run.folder.path, plan=run.folder.plan())) == source.name
    file = f"{source.name}-q4_k_m.gguf.part"
    assert len(file.encode()) < 255
    assert not re.search(r"mmproj|mtp-|\d{5}-of-\d{5}", file, re.IGNORECASE)


@pytest.mark.slow
def test_a_run_that_is_called_after_phi_3_loads_in_llama_cpp(mine: RunFolder) -> None:
    from forge_gguf.llama.runtime import Generator

    made = exported(mine, 'export.0.types=["f16"]', 'name="phi-3-colours"')
    assert made.code == 0, made.printed
    with Generator(out_of(mine) / "phi-3-colours-f16.gguf", context=32) as generator:
        assert generator.tokens("red", special=False)


@pytest.mark.slow
def test_the_small_model_before_training_has_the_header_of_the_file_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the sizes: what llama.cpp would not load, or read otherwise, stops the run and not its export."""
    from forge_gguf import export
    from forge_gguf.trial import preflight

    seen: list[dict[str, Any]] = []
    whole = export.write

    def noted(path: Path, keys: dict[str, Any], *rest: Any) -> None:
        seen.append(dict(keys))
        whole(path, keys, *rest)

    for module in (preflight, export):
        monkeypatch.setattr(module, "write", noted)
    project = Project(tmp_path / "project", make(tmp_path / "base", "llama"))
    project.write(export=[{"format": "gguf", "types": ["f16"]}], name="phi-3-colours")
    done = project.perform()
    assert done.code == 0, done.printed
    assert exported(done.folder).code == 0
    small, large = seen
    sizes = {
        "block_count",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
    }
    assert {key.removeprefix("llama.") for key in large if large[key] != small.get(key)} <= sizes
    assert list(small) == list(large)


@pytest.mark.slow
def test_the_finished_folder_is_uploaded(mine: RunFolder, tmp_path: Path) -> None:
    with Hub() as hub:
        environ = {**os.environ, **hub.environment(tmp_path / "home")}
        done = subprocess.run(
            [
                sys.executable,
                "-P",
                "-m",
                "forge",
                "export",
                str(mine.path),
                "--format",
                "gguf",
                "--type",
                "q8_0",
                "--push-to-hub",
                "me/it",
            ],
            env=environ,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert {"tiny-q8_0.gguf", "Modelfile", "README.md"} <= set(hub.repos["me/it"].files)


# Four sabotages: each is caught by the gate that is there for it.


def sabotaged(mine: RunFolder, *changes: str) -> str:
    """Make an export that must fail, and return why."""
    made = exported(mine, *changes)
    assert made.code == ExportError.exit_code, made.printed
    assert not out_of(mine).exists()
    assert list(out_of(mine).with_name("1-gguf.part").glob("*.gguf.part")), "the file keeps its temporary name"
    return str(made.error["why"])


def test_a_wrong_way_of_splitting_is_caught(mine: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_gguf.file.pretokenizer.find", lambda *_: "llama-bpe")
    why = sabotaged(mine, 'export.0.types=["f16"]')
    assert "tokens:" in why
    assert "it is split in another way" in why
    assert "broken export" in why
    assert "logits:" not in why, "no logit shows it"


def test_a_missing_word_about_the_first_token_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp adds a token to texts that are split as Llama 3's are, unless the file says not to."""
    from transformers import AutoTokenizer

    from forge_gguf.file import pretokenizer, vocabulary
    from forge_gguf.file.writer import write_vocabulary
    from forge_gguf.llama.runtime import Generator
    from forge_gguf.trial import verify
    from forge_gguf.trial.texts import corpus

    tokenizer = AutoTokenizer.from_pretrained(make_like_llama3(tmp_path / "tokenizer"))
    texts = corpus(tokenizer)[::8]
    words = vocabulary.vocabulary(tokenizer, 416)
    words = words.with_pre(pretokenizer.find(tokenizer, words, texts))
    assert words.pre == "llama-bpe"
    path = tmp_path / "vocabulary.gguf"

    def found() -> verify.Gate:
        write_vocabulary(path, words)
        with Generator(path, context=32) as generator:
            return verify.check_tokens(generator, tokenizer, texts, ())

    assert found().state == "pass"
    keys = vocabulary.Vocabulary.keys
    forget = "tokenizer.ggml.add_bos_token"
    monkeypatch.setattr(
        vocabulary.Vocabulary, "keys", lambda this: {key: value for key, value in keys(this).items() if key != forget}
    )
    gate = found()
    assert gate.state == "fail"
    assert f"{len(texts)} of {len(texts)} texts give other ids" in gate.message
    assert "a token is added to texts" in gate.message


@pytest.mark.slow
def test_a_rotation_of_another_frequency_is_caught(mine: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from forge_gguf.file import architectures

    keys = architectures.keys
    doubled = lambda config: {**keys(config), "llama.rope.freq_base": 2 * keys(config)["llama.rope.freq_base"]}  # noqa: E731
    monkeypatch.setattr(architectures, "keys", doubled)
    why = sabotaged(mine, 'export.0.types=["q4_k_m"]')
    assert "conversion:" in why, "the loss by rounding of q4_k_m would hide it; the first layers in 16 bit do not"
    assert "broken export" in why


def test_a_rotation_of_another_frequency_in_the_file_alone_is_a_wrong_key(
    mine: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_gguf.file import writer

    add = writer._add
    twice = {"llama.rope.freq_base": 2.0}
    monkeypatch.setattr(
        writer, "_add", lambda file, key, value: add(file, key, value * twice[key] if key in twice else value)
    )
    assert "llama.rope.freq_base is 20000.0, not 10000.0" in sabotaged(mine, 'export.0.types=["f16"]')


def test_rows_that_were_not_permuted_are_caught(mine: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    monkeypatch.setattr("forge_gguf.file.architectures.interleaved", lambda rows, _heads: np.arange(rows))
    why = sabotaged(mine, 'export.0.types=["f16"]')
    assert "logits: KL" in why
    assert "broken export" in why


def test_a_loss_by_rounding_is_told_from_a_broken_export(mine: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    from forge_gguf.file import quants

    kinds = {**quants.KINDS, "q4_k_m": replace(quants.KINDS["q4_k_m"], kl=(0.0, 0.0))}
    monkeypatch.setattr("forge_gguf.export.KINDS", kinds)
    why = sabotaged(mine, 'export.0.types=["q4_k_m", "q8_0"]')
    assert "quantisation loss: the conversion is right, the model does not bear q4_k_m; take q8_0" in why
    part = out_of(mine).with_name("1-gguf.part")
    assert (part / "tiny-q8_0.gguf").exists(), "a file that passed is kept, whatever becomes of another"

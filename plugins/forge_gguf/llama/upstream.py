"""What forge does not write itself: llama.cpp's own converter, from a tree that the user has, in a process of its own.

It needs the model as one folder, so an adapter is merged first. It comes with its own copy of the package ``gguf``,
which the installed one does not fit, and so is never imported here. Its files pass the same gates but for the keys,
which only it knows.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from forge.api import Exported, ExportError, ModelError, Noted, Warned
from forge.disk.faults import disk_errors
from forge.disk.files import files_below, sha256, write_text
from forge_gguf import modelfile, rules
from forge_gguf.file.quants import KINDS
from forge_gguf.llama.runtime import Generator
from forge_gguf.source import name_of, samples
from forge_gguf.trial import verify
from forge_gguf.trial.reference import Reference
from forge_gguf.trial.texts import corpus, own_texts, rows
from forge_huggingface.export.merge import merge
from forge_huggingface.generation.plain import trained_on_plain_text
from forge_huggingface.hub.card import model_card
from forge_huggingface.rendering import tokenizers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forge.api import ExportTable, Job, ModelFacts, Run, Trained
    from forge_gguf.file.quants import Kind


def needed(job: Job, facts: ModelFacts) -> bool:
    """Whether an export goes through llama.cpp's converter: it is named, and forge cannot write the model itself."""
    if rules.converter(job) is None:
        return False
    return facts.task == "vision" or not facts.architectures or facts.architectures[0] not in rules.ARCHITECTURES


def export(job: Job, run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Merge, convert, and try the files.

    Raises:
        ExportError: The converter failed, or a file did not pass.
    """
    tree = rules.converter(job)
    assert tree is not None
    for stale in out.iterdir():
        shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    scratch = out / "merged.part"
    try:
        folder = whole(job, run, trained, scratch)
        record = {}
        for name in export.options["types"]:
            record[name] = one(job, run, folder, tree, KINDS[name], out)
        if run.plan.facts.task == "vision":
            record["mmproj"] = projector(run, folder, tree, out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    files = [str(each["file"]) for each in record.values()]

    plain = trained_on_plain_text(run.folder)
    usage = modelfile.usage(name_of(job, run), files, adapter=False, plain=plain, ollama=False)
    write_text(out / "README.md", model_card(job, run.plan, trained, "gguf", usage=usage))
    return Exported(files=tuple(path.as_posix() for path in files_below(out)), report=record)


def whole(job: Job, run: Run, trained: Trained, scratch: Path) -> Path:
    """Return a folder with the whole trained model, merged into ``scratch`` if it is not there yet."""
    weights = run.folder / trained.weights
    if trained.kind == "full":
        return weights

    scratch.mkdir()
    merge(job, run, trained, scratch)
    return scratch


def convert(folder: Path, tree: Path, path: Path, *arguments: str) -> None:
    """Run the converter.

    Args:
        folder: The model.
        tree: The llama.cpp tree.
        path: The file to write.
        arguments: More arguments of the script.

    Raises:
        ExportError: It failed; the message has its last words.
    """
    command = [sys.executable, str(tree / rules.SCRIPT), str(folder), "--outfile", str(path), *arguments]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"}
    with disk_errors(path):
        done = subprocess.run(
            command, env=environ, capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    sys.stderr.write(done.stdout + done.stderr)  # the run's log
    if done.returncode == 0 and path.is_file():
        return
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    why = lines[-1].strip() if lines else f"it ended with {done.returncode}"
    do = f"see the run's log; the command was: {' '.join(command[1:])}"
    raise ExportError(f"llama.cpp's converter in {tree} failed", why, do)


def one(job: Job, run: Run, folder: Path, tree: Path, kind: Kind, out: Path) -> dict[str, Any]:
    """Convert and try one file.

    Raises:
        ExportError: It did not pass; it keeps its temporary name.
    """
    start = time.monotonic()
    path = out / f"{name_of(job, run)}-{kind.name}.gguf"
    part = path.with_name(f"{path.name}.part")
    convert(folder, tree, part, "--outtype", kind.name)
    gates = tried(job, run, folder, part, kind)
    found = {"file": path.name, "bytes": part.stat().st_size, "converter": str(tree)}
    found["gates"] = {gate.name: gate.to_json() for gate in gates}
    if failed := verify.verdict(gates, kind):
        do = f"{part.name} is kept; the trained weights are safe"
        raise ExportError(f"the file of llama.cpp's converter ({kind.name}) did not pass", ": ".join(failed), do)
    found |= {"sha256": sha256(part), "seconds": round(time.monotonic() - start, 1)}
    part.rename(path)
    run.emit(Noted(f"{path.name}: {gates[-1].message}"))
    return found


def tried(job: Job, run: Run, folder: Path, path: Path, kind: Kind) -> Sequence[verify.Gate]:
    """Return what the gates find of a converted file; the keys are the converter's own."""
    tokenizer, variables = tokenizers.load(job, folder), job.data.variables
    known = rows(run.folder, tokenizer, variables) if run.plan.facts.task != "vision" else []
    own = own_texts(tokenizer, known, variables)
    asked = samples(tokenizer, known, variables)
    with Reference(folder, None, task=run.plan.facts.task) as trained:
        chances = [trained.chances(ids) for ids in asked]
    with Generator(path, context=max(map(len, asked)) + 8, exact=True) as generator:
        return [
            verify.check_tokens(generator, tokenizer, corpus(tokenizer, variables), (), own),
            verify.check_template(generator, tokenizer, variables),
            verify.check_logits(generator, asked, chances, kind),
        ]


def projector(run: Run, folder: Path, tree: Path, out: Path) -> dict[str, Any]:
    """Convert the part of a vision model that sees; nothing here can try it.

    Raises:
        ModelError: The processor's files are not beside the model.
    """
    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        raise ModelError(f"{folder} has no image processor", "the converter reads its settings", "restore the folder")
    path = out / "mmproj-f16.gguf"
    part = path.with_name(f"{path.name}.part")
    convert(folder, tree, part, "--mmproj", "--outtype", "f16")
    part.rename(path)
    run.emit(Warned(f"{path.name} was not compared with the trained model: try it on an image"))
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path), "converter": str(tree)}

"""EXPORT: GGUF files, each written under a temporary name, compared with the trained model, and only then renamed.

What was finished and checked is not made again: a record beside the files tells of each what it was made from, its
hash, and what the gates found. So an export that was killed goes on, and other types can be added later.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from forge.api import DiskFull, Exported, ExportError, Noted, Warned, Writing
from forge.disk.faults import disk_errors
from forge.disk.files import files_below, sha256, write_json, write_text
from forge.disk.folder import RunFolder
from forge_gguf import lora, modelfile
from forge_gguf.file.architectures import tensors_of_first
from forge_gguf.file.quants import KINDS
from forge_gguf.file.writer import layout, size, write
from forge_gguf.llama import upstream
from forge_gguf.llama.runtime import Generator
from forge_gguf.source import Source, source_of
from forge_gguf.trial import verify
from forge_gguf.trial.reference import Reference, fits
from forge_gguf.trial.texts import CONVERSATIONS
from forge_huggingface.generation.sampling import recommended

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from forge.api import ExportTable, Job, Run, Trained
    from forge_gguf.file.quants import Kind
    from forge_gguf.trial.verify import Gate

RECORD = "verified.json"
"""Of each file by type: name, size, sha256, what it was made from, what the gates found."""

Chances = list["NDArray[Any]"]
_EXACT = frozenset({"f32", "f16", "bf16"})
_CUT = 2


def export(job: Job, run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Write the files of one export into ``out``, which may hold what an earlier try left.

    Raises:
        ExportError: A file did not pass; it keeps its temporary name. Those that passed are not made again.
        DiskFull: There is no room. The trained weights are safe.
    """
    wanted: list[str] = export.options["types"]
    if upstream.needed(job, run.plan.facts):
        return upstream.export(job, run, trained, export, out)
    source = source_of(job, run, trained)
    if export.options["adapter"]:
        return finish(job, run, trained, export, out, source, lora.export(run, source, wanted, out))
    fingerprint = source.fingerprint(run.folder / "trained.json")
    record = kept(out, fingerprint)
    todo = [KINDS[name] for name in wanted if name not in record]
    room(out, source, todo)
    failures: list[str] = []
    if todo:
        with Trials(run, source, out, exact=any(kind.name in _EXACT for kind in todo)) as trials:
            for kind in todo:
                found = one(run, source, kind, out, trials)
                if (failed := found.pop("failed", None)) is not None:
                    failures.append(f"{kind.name}: {failed[0]}; this means: {failed[1]} ({found['file']}.part is kept)")
                    continue
                record[kind.name] = {"fingerprint": fingerprint, **found}
                write_json(out / RECORD, record)
    if failures:
        raise ExportError(
            f"{len(failures)} of {len(wanted)} GGUF files did not pass",
            "; ".join(failures),
            "the trained weights are safe, and files that passed are not made again",
        )
    return finish(job, run, trained, export, out, source, record)


def finish(
    job: Job,
    run: Run,
    trained: Trained,
    export: ExportTable,
    out: Path,
    source: Source,
    record: Mapping[str, Any],
) -> Exported:
    """Write what belongs beside the files, and say what there is."""
    first = [name for name in export.options["types"] if name in record]  # the job's first type is recommended
    files = [str(record[name]["file"]) for name in dict.fromkeys([*first, *record])]
    alone, evaluation = export.options["adapter"], RunFolder(run.folder).evaluation()
    values = recommended(job, source.base, run.plan.facts.model_type, source.vocabulary.template).values
    told = modelfile.modelfile(source, files[0], job.model.max_seq_length, values, adapter=alone)
    write_text(out / "Modelfile", told)
    text = modelfile.card(job, run.plan, trained, source, files, evaluation, adapter=alone)
    write_text(out / "README.md", text)
    report = {
        name: {key: value for key, value in each.items() if key != "fingerprint"} for name, each in record.items()
    }
    return Exported(files=tuple(path.as_posix() for path in files_below(out)), report=report)


def kept(out: Path, fingerprint: str) -> dict[str, dict[str, Any]]:
    """Return what an earlier try, or the export that stands in the final place, left whole; delete all else in ``out``.

    Args:
        out: The folder that is being filled: ``1-gguf.part`` for ``1-gguf``.
        fingerprint: What files must have been made from.
    """
    found: dict[str, dict[str, Any]] = {}
    for folder in (out.with_suffix(""), out):
        path = folder / RECORD
        if (folder.suffix == ".part" and folder is not out) or not path.is_file():
            continue
        try:
            record: Mapping[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue  # cut short by a kill: its files are made again
        for kind, about in record.items():
            file = folder / about["file"]
            same = about["fingerprint"] == fingerprint and file.is_file() and file.stat().st_size == about["bytes"]
            if not same or sha256(file) != about["sha256"]:
                continue
            if folder is not out:
                (out / about["file"]).unlink(missing_ok=True)
                _link(file, out / about["file"])
            found[kind] = about
    names = {about["file"] for about in found.values()}
    for name in files_below(out):
        if name.as_posix() not in names:
            (out / name).unlink()
    write_json(out / RECORD, found)
    return found


def _link(file: Path, other: Path) -> None:
    try:
        os.link(file, other)
    except OSError:  # a file system without links, or without room for one
        with disk_errors(other):
            shutil.copyfile(file, other)


def room(out: Path, source: Source, kinds: Sequence[Kind]) -> None:
    """Refuse to begin what the disk cannot hold. Raises :class:`DiskFull`."""
    needed = sum(size(source.tensors, kind, source.shape) for kind in kinds) + 64 * 2**20
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DiskFull(
            f"cannot write {out.with_suffix('')}",
            f"{', '.join(kind.name for kind in kinds)} need {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are free",
            f"the trained weights are safe; free some space, then: forge export {out.parent.parent}",
        )


def one(run: Run, source: Source, kind: Kind, out: Path, trials: Trials) -> dict[str, Any]:
    """Write and try one file; it gets its name if it passes.

    Returns:
        What the record says of it; under ``failed`` what failed and what that means.
    """
    path = out / f"{source.name}-{kind.name}.gguf"
    part = path.with_name(f"{path.name}.part")
    start = time.monotonic()
    write(part, source.keys(kind), source.tensors, source.weights, kind, source.shape, reporter(run, path.name))
    written = time.monotonic() - start
    found: dict[str, Any] = {"file": path.name, "bytes": part.stat().st_size}
    gates, end = trials.gates(part, kind)
    found["gates"] = {gate.name: gate.to_json() for gate in gates}
    found |= {
        "end": end,
        "write_seconds": round(written, 1),
        "check_seconds": round(time.monotonic() - start - written, 1),
    }
    for gate in gates:
        if gate.state == "warn":
            run.emit(Warned(f"{kind.name}: {gate.name}: {gate.message}"))
    if (failed := verify.verdict(gates, kind)) is not None:
        return {**found, "failed": failed}
    if not end["ended"]:
        said = f"{kind.name}: an answer did not end within {end['tokens']} tokens"
        run.emit(Warned(said, "see whether the trained model ends it"))
    found["sha256"] = sha256(part)
    part.rename(path)
    logits = next(gate for gate in gates if gate.name == "logits")
    told = "" if logits.state == "warn" else f", {logits.message}"
    run.emit(Noted(f"{path.name}: {found['bytes'] / 2**20:.1f} MiB{told}"))
    return found


def reporter(run: Run, name: str) -> Callable[[int, int, float], None]:
    """Return what tells the progress of a file, at most every five seconds."""
    last = [0.0]

    def tell(done: int, total: int, seconds: float) -> None:
        if seconds - last[0] >= 5 and done < total:
            last[0] = seconds
            left = round(seconds / done * (total - done), 1)
            run.emit(Writing(name, done, total, left))

    return tell


class Trials:
    """Compares files with the trained model; what that one says is computed once for all files.

    Args:
        run: The run, for its events.
        source: The trained model.
        out: Where a small file can be written.
        exact: Whether one of the files is in 16 or 32 bit, and so tells by itself whether the conversion is right.
    """

    def __init__(self, run: Run, source: Source, out: Path, *, exact: bool) -> None:
        self.run, self.source, self.out = run, source, out
        self.longest = max((len(ids) for ids in source.rows), default=1)
        self.wide = fits(source.weights.count(), wide=True)
        self.possible = self.wide or fits(source.weights.count(), wide=False)
        self._chances: Chances | None = None
        self._conversion: Gate | None = None
        self._cut = not exact or not self.wide

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._chances = None

    def gates(self, path: Path, kind: Kind) -> tuple[list[Gate], dict[str, Any]]:
        """Return what the gates find of a file, and how an answer of it ends."""
        source = self.source
        keys = verify.check_keys(path, source.keys(kind), layout(source.tensors, kind, source.shape), source.weights)
        if keys.state == "fail":  # llama.cpp may not even load it, or worse
            return [keys, *([self.conversion()] if self._cut else [])], {"ended": False, "tokens": 0, "text": ""}
        found = [keys]
        with Generator(path, context=self.longest + 160, exact=True) as generator:
            stops, bare = source.vocabulary.stops, source.vocabulary.bare
            found.append(verify.check_tokens(generator, source.tokenizer, source.texts, stops, source.own, bare=bare))
            found.append(verify.check_template(generator, source.tokenizer, source.variables))
            if self._cut:
                found.append(self.conversion())
            found.append(self.logits(generator, kind))
            end = verify.check_end(generator, source.tokenizer, self.prompt())
        return found, end

    def logits(self, generator: Generator, kind: Kind) -> Gate:
        """Compare a file's logits with the trained model's."""
        if not self.possible:
            return verify.Gate("logits", "warn", "not compared: the trained model does not fit into memory here")
        if self._chances is None:
            with Reference(self.source.base, self.source.adapter, wide=self.wide) as trained:
                self._chances = [trained.chances(ids) for ids in self.source.rows]
        # A 16-bit model differs from itself in 32 bit by as much as a bf16 file does.
        limits = kind if self.wide or kind.name not in _EXACT else KINDS["bf16"]
        return verify.check_logits(generator, self.source.rows, self._chances, limits)

    def conversion(self) -> Gate:
        """Compare the first layers in 16 bit, exactly: what is wrong in a conversion cannot hide behind rounding."""
        if self._conversion is None:
            self._conversion = conversion(self.source, self.out, _CUT)
        return self._conversion

    def prompt(self) -> list[int]:
        """Return a question for an answer."""
        tokenizer = self.source.tokenizer
        if not tokenizer.chat_template:
            return list(self.source.rows[0][:16])
        asked = list(CONVERSATIONS[0])
        told = {"add_generation_prompt": True, "return_dict": True, **self.source.variables}
        return list(tokenizer.apply_chat_template(asked, **told)["input_ids"])


def conversion(source: Source, folder: Path, layers: int) -> Gate:
    """Write the first layers in 16 bit, and compare their logits with those of the trained model's first layers."""
    kind = KINDS["f16"]
    cut = dataclasses.replace(
        source,
        config={**source.config, "num_hidden_layers": min(layers, source.config["num_hidden_layers"])},
        tensors=tuple(tensors_of_first(source.tensors, layers)),
    )
    path = folder / "first-layers.part"
    try:
        write(path, cut.keys(kind), cut.tensors, cut.weights, kind, cut.shape)
        with Reference(source.base, source.adapter, layers=layers) as trained:
            chances = [trained.chances(ids) for ids in source.rows]
        with Generator(path, context=max(map(len, source.rows)) + 8, exact=True) as generator:
            return verify.check_logits(generator, source.rows, chances, kind, "conversion")
    finally:
        path.unlink(missing_ok=True)

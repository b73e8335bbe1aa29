"""Makes the export: one archive with a manifest, and its checksum beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Exported, ExportError

from forge_bundle import archive
from forge_bundle.licence import licence_files, licence_of

if TYPE_CHECKING:
    from forge.api import ExportTable, Run, Trained


def export(run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Write the archive, read it back, and compare.

    Raises:
        ExportError: What is in the archive is not what was trained.
    """
    facts, options = run.plan.facts, export.options
    model = Path(facts.path) if facts.path else None
    files = contents(run, trained, model)
    known = {name: {"bytes": path.stat().st_size, "sha256": _digest(path)} for name, path in files.items()}
    manifest: dict[str, Any] = {
        "bundle": 1,
        "made_by": f"forge {run.plan.forge}",
        "kind": trained.kind,
        "task": trained.task,
        "base": {key: trained.base.get(key) for key in ("id", "revision", "digest")},
        "licence": options["licence"] or licence_of(model),
        "metrics": dict(trained.metrics),
        "files": known,
    }
    text = json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n"
    path = out / f"{options['file']}{archive.MODES[options['compression']][1]}"
    archive.write(path, options["compression"], {"manifest.json": text, **files})
    there = archive.sums(path)
    if wrong := [name for name, each in known.items() if there.get(name) != each["sha256"]]:
        raise ExportError(f"{path.name} does not hold what was trained", f"{wrong[0]} is another file in it")
    digest = _digest(path)
    (out / f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    report = {"sha256": digest, "files": len(known), "licence": manifest["licence"]}
    return Exported(files=(path.name, f"{path.name}.sha256"), report=report)


def contents(run: Run, trained: Trained, model: Path | None) -> dict[str, Path]:
    """Return what goes into the archive, by the name that it has there: weights, tokenizer, licences, and the job."""
    found: dict[str, Path] = {}
    for part in dict.fromkeys((trained.weights, trained.processor)):
        folder = run.folder / part
        found |= {path.relative_to(run.folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found |= {f"licence/{path.name}": path for path in licence_files(model)}
    beside = ("job.lock.toml", "evaluation.json")
    found |= {name: run.folder / name for name in beside if (run.folder / name).is_file()}
    return dict(sorted(found.items()))


def _digest(path: Path) -> str:
    with path.open("rb") as content:
        return archive.digest(content)

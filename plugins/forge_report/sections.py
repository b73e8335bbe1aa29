"""What the parts of a report show that tell what was run: plan, rows, history, exports, and how to repeat it.

Each function returns the values that the template of its name asks for, or None where the run has nothing to show.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.api import Estimate
from forge.text import memory as budget
from forge.text.units import amount, size
from forge_report.record import told
from forge_report.text import NONE, clock, facts, value

if TYPE_CHECKING:
    from forge_report.record import Record


LINES = 100
"""Lines of the history that are shown of its beginning, and of its end."""

_LIBRARIES = ("torch", "transformers", "trl", "peft", "unsloth", "accelerate", "datasets", "bitsandbytes", "vllm")


def plan(record: Record) -> dict[str, Any] | None:
    """Return what was chosen and decided, each with its reason, and what the job itself says."""
    made = record.plan
    if not made:
        return None
    steps = [(step.get("label"), step.get("plugin"), step) for step in made.get("steps") or []]
    verdicts = [(each.get("label"), each.get("plugin"), each.get("reason")) for each in made.get("verdicts") or []]
    chosen = {(label, plugin) for label, plugin, _ in steps}
    reasons = {(label, plugin): reason for label, plugin, reason in verdicts}
    return {
        "steps": [
            (label, f"{plugin} {step.get('version')}", reasons.get((label, plugin)), step.get("impl"))
            for label, plugin, step in steps
        ],
        "turned_down": [each for each in verdicts if each[:2] not in chosen],
        "decisions": [
            (each.get("key"), value(each.get("value")), each.get("reason")) for each in made.get("decisions") or []
        ],
        "named": [(key, value(_get(made.get("job") or {}, key))) for key in made.get("named") or []],
        "notes": made.get("notes") or [],
        "overrides": " ".join(made.get("overrides") or []),
    }


def machine(record: Record) -> dict[str, Any]:
    """Return the machine, the model, and the classes that trained it."""
    made = record.plan
    here, model, last = made.get("machine") or {}, made.get("facts") or {}, record.last
    cards = [f"{card.get('name')} ({size(card.get('memory'))})" for card in here.get("accelerators") or []]
    versions = here.get("versions") or {}
    loaded, adapted, trainer = (dict(last.get(kind) or {}) for kind in ("loaded", "adapted", "trainer"))
    trainable, everything = adapted.get("trainable"), adapted.get("all")
    share = f" ({trainable / everything:.2%})" if trainable and everything else ""
    first = {
        "model": model.get("id"),
        "revision": model.get("revision"),
        "architecture": model.get("architectures"),
        "parameters": amount(model.get("parameters")) if model.get("parameters") else None,
        "trained parameters": f"{amount(trainable)}{share}" if trainable else None,
        "adapted modules": adapted.get("targets"),
        "dtype": loaded.get("dtype"),
        "attention": loaded.get("attention"),
        "device": loaded.get("device"),
        "accelerators": cards,
        "machine": f"{here.get('platform')} {here.get('arch')}, {here.get('cores')} cores, {size(here.get('memory'))}"
        if here
        else None,
        "forge": made.get("forge"),
        "Python": here.get("python"),
        **{name: versions.get(name) for name in _LIBRARIES},
    }
    classes = {name: found for name, found in {**loaded, **trainer}.items() if name not in {"time", "kind"}}
    return {"first": facts(first), "classes": facts(classes), "packages": facts(versions), "count": len(versions)}


def data(record: Record) -> dict[str, Any] | None:
    """Return the counts of the rows and where they came from."""
    summary: dict[str, Any] = dict((record.data or {}).get("summary") or {})
    if not summary:
        return None
    names = ("rows", "tokens", "supervised", "share", "longest", "truncated", "dropped")
    splits = {"training": summary, **(summary.get("eval") or {})}
    known = {*names, "eval", "sources", "dropped_first"}
    return {
        "splits": [
            ["held out" if name == "eval" else name, *(_count(split, key) for key in names)]
            for name, split in splits.items()
            if isinstance(split, Mapping)
        ],
        "sources": [_source(source) for source in summary.get("sources") or [] if isinstance(source, dict)],
        "dropped": summary.get("dropped_first") or [],
        "others": facts({name.replace("_", " "): found for name, found in summary.items() if name not in known}),
    }


def memory(record: Record) -> dict[str, Any] | None:
    """Return what the plan estimated, and beside it what a dry run measured."""
    made, dry = record.plan.get("estimate"), record.last.get("dry-run")
    estimated = budget.describe(Estimate.from_json(made)) if made else []
    measured = budget.measured(dry) if dry else []
    if not estimated and not measured:
        return None
    return {"estimated": "\n".join(estimated), "measured": "\n".join(measured)}


def speed(record: Record) -> dict[str, Any] | None:
    """Return what the last training's time went into, and how fast it was."""
    times = record.times
    if not times.lines:
        return None
    return {"seconds": [(name, clock(each)) for name, each in times.seconds.items()], "facts": facts(times.facts)}


def history(record: Record) -> dict[str, Any] | None:
    """Return what each worker did, the checkpoints, and every warning, note and failure."""
    if not record.sessions:
        return None
    sessions = [
        {
            "task": session.task,
            "began": session.began,
            "took": max(0.0, session.ended - session.began),
            "steps": NONE if session.start is None else f"{session.start} → {session.step}",
            "end": session.end + (f": {session.message}" if session.message else ""),
            "stages": list(session.stages.items()),
        }
        for session in record.sessions
    ]
    lines = [(float(event.get("time") or 0), event.get("kind"), told(event)) for event in record.happened]
    left_out = max(0, len(lines) - 2 * LINES)
    return {
        "sessions": sessions,
        "checkpoints": _checkpoints(record),
        "count": len(lines),
        "begin": lines[:LINES] if left_out else lines,
        "left_out": left_out,
        "end": lines[-LINES:] if left_out else [],
    }


def exports(record: Record) -> dict[str, Any] | None:
    """Return each export with what was checked of it, and those that the job asks for and that are not there."""
    asked = (record.plan.get("job") or {}).get("export") or []
    names = [f"{index + 1}-{str(each.get('format')).replace('/', '-')}" for index, each in enumerate(asked)]
    missing = [name for name in names if name not in record.exports]
    found = [_export(name, export) for name, export in record.exports.items()]
    return {"exports": found, "missing": ", ".join(missing)} if found or missing else None


def repeat(record: Record) -> dict[str, Any]:
    """Return the commands that repeat the run or go on with it, and what it was made of."""
    folder = shlex.quote(str(record.path))
    lock = shlex.quote(str(record.path / "job.lock.toml"))
    options = (record.plan.get("job") or {}).get("train") or {}
    weights = (record.trained or {}).get("weights")
    files = (record.trained or {}).get("files") or {}
    made_of = {
        "seed": options.get("seed"),
        "rows' digest": (record.data or {}).get("digest"),
        "job's digest": record.plan.get("job_digest"),
        "base model's digest": (record.plan.get("facts") or {}).get("digest"),
        "weights": str(record.path / weights) if weights else None,
    }
    for name, each in files.items():
        if isinstance(each, dict) and name.endswith(".safetensors"):
            made_of[f"sha256 of {name}"] = each.get("sha256")
    return {
        "trained": bool(record.trained),
        "again": f"forge run {lock}",
        "export": f"forge export {folder}",
        "resume": f"forge resume {folder}",
        "made_of": facts(made_of),
        "lock": record.lock,
    }


def _source(source: Mapping[str, Any]) -> list[object]:
    columns = (source.get("columns") or {}).items()
    return [
        str(source.get("path")),
        source.get("format"),
        value(source.get("split")),
        value(source.get("weight")),
        ", ".join(key if key == name else f"{key} from {name}" for key, name in columns),
        value(source.get("ignored") or None),
    ]


def _export(name: str, export: Mapping[str, Any] | None) -> dict[str, Any]:
    if export is None:
        return {"name": name, "whole": False}
    files = [(key, each) for key, each in (export.get("files") or {}).items() if isinstance(each, dict)]
    total = sum(each.get("bytes") or 0 for _, each in files)
    about = {
        "format": export.get("format"),
        "size": f"{size(total)} in {len(files)} files",
        "uploaded to": export.get("url"),
        **{key.replace("_", " "): each for key, each in (export.get("report") or {}).items()},
    }
    listed = [(key, each.get("bytes"), each.get("sha256")) for key, each in files]
    return {"name": name, "whole": True, "facts": facts(about), "files": listed}


def _checkpoints(record: Record) -> str | None:
    saved, there = record.saved, record.checkpoints
    if not saved and not there:
        return None
    text = f"{len(saved)} checkpoints were written" if len(saved) != 1 else "1 checkpoint was written"
    if saved:
        sizes, seconds = sorted(each[1] for each in saved), sorted(each[2] for each in saved)
        middle = f"{size(sizes[len(sizes) // 2])} each, marked as whole in {clock(seconds[len(seconds) // 2])}"
        text += f", the last at step {saved[-1][0]}; {middle} (medians)"
    kept = ", ".join(f"{name} ({size(total)}{'' if whole else ', not whole'})" for name, total, whole in there)
    return f"{text}. On disk: {kept or 'none'}."


def _count(split: Mapping[str, Any], key: str) -> str:
    found = split.get(key)
    if key == "share" and isinstance(found, int | float):
        return f"{found:.0%}"
    return value(found)


def _get(job: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key such as ``train.learning_rate``."""
    found: Any = job
    for part in key.split("."):
        if isinstance(found, list):
            found = found[int(part)] if part.isdigit() and int(part) < len(found) else None
        elif isinstance(found, Mapping):
            found = found.get(part)
        else:
            return None
    return found

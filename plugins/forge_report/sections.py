"""The parts of a report that tell what was run: plan, rows, history, exports, and how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.api import Estimate
from forge.text import memory as budget
from forge.text.units import amount, size
from forge_report.markup import NONE, Markup, tag
from forge_report.record import told
from forge_report.text import block, clock, facts, moment, more, prose, table, value

if TYPE_CHECKING:
    from forge_report.record import Record


LINES = 100
"""Lines of the history that are shown of its beginning, and of its end."""

_LIBRARIES = ("torch", "transformers", "trl", "peft", "unsloth", "accelerate", "datasets", "bitsandbytes", "vllm")


def plan(record: Record) -> Markup | None:
    """Return what was chosen and decided, each with its reason, and what the job itself says."""
    made = record.plan
    if not made:
        return None
    steps, verdicts = made.get("steps") or [], made.get("verdicts") or []
    chosen = {(step.get("label"), step.get("plugin")) for step in steps}
    reasons = {(each.get("label"), each.get("plugin")): each.get("reason") for each in verdicts}
    rows = [
        [
            step.get("label"),
            f"{step.get('plugin')} {step.get('version')}",
            reasons.get((step.get("label"), step.get("plugin"))),
            step.get("impl"),
        ]
        for step in steps
    ]
    turned_down = [
        [each.get("label"), each.get("plugin"), each.get("reason")]
        for each in verdicts
        if (each.get("label"), each.get("plugin")) not in chosen
    ]
    decisions = [
        [tag("code", each.get("key")), value(each.get("value")), each.get("reason")]
        for each in made.get("decisions") or []
    ]
    named = [[tag("code", key), value(_get(made.get("job") or {}, key))] for key in made.get("named") or []]
    return tag(
        "div",
        table(["stage", "plugin", "why", "implementation"], rows),
        tag("h3", "Decided where the job left it open") if decisions else None,
        table(["key", "value", "reason"], decisions) if decisions else None,
        tag("h3", "Said by the job") if named else None,
        table(["key", "value"], named) if named else None,
        more(f"Turned down ({len(turned_down)})", table(["stage", "plugin", "reason"], turned_down))
        if turned_down
        else None,
        *(tag("p", "Note: ", note, class_="note") for note in made.get("notes") or []),
        tag("p", "Changed on the command line: ", tag("code", " ".join(made["overrides"])))
        if made.get("overrides")
        else None,
    )


def machine(record: Record) -> Markup | None:
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
    return tag(
        "div",
        facts(first),
        more("Classes that ran", facts(classes)) if classes else None,
        more(f"All {len(versions)} packages", facts(versions)) if versions else None,
    )


def data(record: Record) -> Markup | None:
    """Return the counts of the rows and where they came from."""
    summary: dict[str, Any] = dict((record.data or {}).get("summary") or {})
    if not summary:
        return None
    head = ["", "rows", "tokens", "trained on", "share", "longest", "cut", "dropped"]
    names = ("rows", "tokens", "supervised", "share", "longest", "truncated", "dropped")
    splits = {"training": summary, **(summary.get("eval") or {})}
    rows = [
        ["held out" if name == "eval" else name, *(_count(split, key) for key in names)]
        for name, split in splits.items()
        if isinstance(split, Mapping)
    ]
    sources = [
        [
            str(source.get("path")),
            source.get("format"),
            value(source.get("split")),
            value(source.get("weight")),
            ", ".join(
                key if key == name else f"{key} from {name}" for key, name in (source.get("columns") or {}).items()
            ),
            value(source.get("ignored") or None),
        ]
        for source in summary.get("sources") or []
        if isinstance(source, dict)
    ]
    known = {*names, "eval", "sources", "dropped_first"}
    first = [tag("li", text) for text in summary.get("dropped_first") or []]
    return tag(
        "div",
        table(head, rows, "numbers"),
        table(["source", "format", "split", "weight", "columns", "not used"], sources) if sources else None,
        more("The first dropped rows", tag("ul", *first)) if first else None,
        facts({name.replace("_", " "): found for name, found in summary.items() if name not in known}),
    )


def memory(record: Record) -> Markup | None:
    """Return what the plan estimated, and beside it what a dry run measured."""
    made, dry = record.plan.get("estimate"), record.last.get("dry-run")
    estimated = budget.describe(Estimate.from_json(made)) if made else []
    found = budget.measured(dry) if dry else []
    if not estimated and not found:
        return None
    return tag(
        "div",
        tag("div", "Estimated by the plan:", block("\n".join(estimated))) if estimated else None,
        tag("div", "Measured by the dry run:", block("\n".join(found))) if found else None,
    )


def history(record: Record) -> Markup | None:
    """Return what each worker did, the checkpoints, and every warning, note and failure."""
    if not record.sessions:
        return None
    rows = [
        [
            index + 1,
            session.task,
            moment(session.began),
            clock(max(0.0, session.ended - session.began)),
            NONE if session.start is None else f"{session.start} → {session.step}",
            prose(session.end + (f": {session.message}" if session.message else "")),
            ", ".join(f"{stage} {clock(seconds)}" for stage, seconds in session.stages.items()),
        ]
        for index, session in enumerate(record.sessions)
    ]
    lines = [
        [moment(float(event.get("time") or 0)), event.get("kind"), prose(told(event))] for event in record.happened
    ]
    cut = len(lines) - 2 * LINES
    if cut > 0:
        lines[LINES:-LINES] = [["…", "", f"{cut} more in events.jsonl"]]
    return tag(
        "div",
        table(["", "what", "began", "took", "steps", "end", "stages"], rows),
        _checkpoints(record),
        more(f"Warnings, notes and failures ({len(record.happened)})", table(["when", "kind", "what"], lines))
        if lines
        else None,
    )


def exports(record: Record) -> Markup | None:
    """Return each export with what was checked of it."""
    found = []
    for name, export in record.exports.items():
        if export is None:
            found.append(tag("article", tag("h3", name), tag("p", "It is not whole.", class_="bad")))
            continue
        files = [(key, each) for key, each in (export.get("files") or {}).items() if isinstance(each, dict)]
        total = sum(each.get("bytes") or 0 for _, each in files)
        checks = {key.replace("_", " "): each for key, each in (export.get("report") or {}).items()}
        rows = [[key, size(each.get("bytes")), tag("code", each.get("sha256"))] for key, each in files]
        about = {"format": export.get("format"), "size": f"{size(total)} in {len(files)} files"}
        listed = more("Files", table(["file", "size", "sha256"], rows))
        found.append(
            tag("article", tag("h3", name), facts({**about, "uploaded to": export.get("url"), **checks}), listed)
        )
    asked = (record.plan.get("job") or {}).get("export") or []
    names = [f"{index + 1}-{str(each.get('format')).replace('/', '-')}" for index, each in enumerate(asked)]
    if missing := [name for name in names if name not in record.exports]:
        found.append(tag("p", f"Asked for by the job and not made: {', '.join(missing)}."))
    return tag("div", *found) if found else None


def repeat(record: Record) -> Markup:
    """Return the commands that repeat the run or go on with it, and what it was made of."""
    folder = shlex.quote(str(record.path))
    lock = shlex.quote(str(record.path / "job.lock.toml"))
    options = (record.plan.get("job") or {}).get("train") or {}
    commands = [
        ("The same job again, with every value written out:", f"forge run {lock}"),
        ("Make the exports again:", f"forge export {folder}")
        if record.trained
        else ("Go on from the newest whole checkpoint:", f"forge resume {folder}"),
    ]
    weights = (record.trained or {}).get("weights")
    files = (record.trained or {}).get("files") or {}
    known = {
        "seed": options.get("seed"),
        "rows' digest": (record.data or {}).get("digest"),
        "job's digest": record.plan.get("job_digest"),
        "base model's digest": (record.plan.get("facts") or {}).get("digest"),
        "weights": str(record.path / weights) if weights else None,
    }
    for name, each in files.items():
        if isinstance(each, dict) and name.endswith(".safetensors"):
            known[f"sha256 of {name}"] = each.get("sha256")
    return tag(
        "div",
        *(tag("div", words, block(command)) for words, command in commands),
        facts(known),
        more("job.lock.toml", block(record.lock)) if record.lock else None,
    )


def _checkpoints(record: Record) -> Markup | None:
    saved, there = record.saved, record.checkpoints
    if not saved and not there:
        return None
    text = f"{len(saved)} checkpoints were written" if len(saved) != 1 else "1 checkpoint was written"
    if saved:
        sizes, seconds = sorted(each[1] for each in saved), sorted(each[2] for each in saved)
        text += (
            f", the last at step {saved[-1][0]}; {size(sizes[len(sizes) // 2])} each, marked as whole in "
            f"{clock(seconds[len(seconds) // 2])} (medians)"
        )
    kept = ", ".join(f"{name} ({size(total)}{'' if whole else ', not whole'})" for name, total, whole in there)
    return tag("p", f"{text}. On disk: {kept or 'none'}.")


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

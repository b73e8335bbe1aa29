"""The parts ``default`` and ``ragged``: jobs as forge takes them by itself, against the scripts that users have."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from rig.forge import events, failure, forge
from rig.models import LENGTH, lengths_of, text_of
from rig.rounds import Side, interleaved, summary
from rig.runs import lines, script

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LOG = 5
DEFAULT: Mapping[str, Mapping[str, Any]] = {
    "default": {"shape": "1b", "bits": 16, "batch": 4, "log": LOG},
    "default-8b": {"shape": "8b", "bits": 16, "batch": 2, "log": 2},
    "default-8b-4bit": {"shape": "8b", "bits": 4, "batch": 2, "log": 2},
}
"""The parts whose rows all fill 2048 tokens; ``log``: steps between two logs, fewer where a step is long."""

SIDES = ("unsloth", "unsloth without checkpointing", "trl", "forge", "forge on huggingface", "forge on unsloth")
RAGGED: Mapping[str, Any] = {"shape": "1b", "bits": 16, "batch": 8, "short": 320, "timed": 2_000, "long": 10_000}
"""``short``: rows of a whole command. ``timed``: rows in the middle of which the pace is taken, by which the time of
``long`` rows is worked out; the reading of those is not in it."""


def forge_side(place: Path, model: Path, rows: Path, bits: int, train: Mapping[str, Any], backend: str | None) -> Side:
    """Return forge as it comes: a job that names the model, the rows and the batch, and a backend if one is wanted."""
    tables: dict[str, Any] = {
        "model": {"id": str(model), "max_seq_length": LENGTH, **({"load_in_4bit": True} if bits == 4 else {})},
        "data": {"path": str(rows)},
        "train": {"logging_steps": LOG, "save_strategy": "no", **train},
        **({"use": {"backend": backend}} if backend else {}),
    }
    place.mkdir(parents=True)
    (place / "job.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
    return Side(
        f"forge on {backend}" if backend else "forge",
        lambda: forge("run", "job.toml", folder=place, wait=False),
        lambda: events(place, "step"),
        lambda: failure(place),
    )


def script_side(place: Path, name: str, model: Path, rows: Path, bits: int, train: Mapping[str, Any]) -> Side:
    """Return a plain script; ``unsloth without checkpointing`` is the one that keeps all activations."""
    place.mkdir(parents=True)
    arguments = {"logging_steps": LOG, **train}
    checkpointing = not name.endswith("without checkpointing")
    return Side(
        name,
        lambda: script(
            place,
            name.split()[0],
            bits,
            model,
            rows,
            checkpointing=checkpointing,
            arguments=arguments,
            wait=False,
        ),
        lambda: lines(place / "steps.jsonl"),
        lambda: (place / "log.txt").read_text(encoding="utf-8")[-1500:],
    )


def sides_of(
    names: Iterable[str], work: Path, model: Path, rows: Path, bits: int, train: Mapping[str, Any]
) -> list[Side]:
    """Return the named sides, each with a folder of its own."""
    found = []
    for name in names:
        place = work / name.replace(" ", "-")
        if name.startswith("forge"):
            backend = name.removeprefix("forge on ") if " on " in name else None
            found.append(forge_side(place, model, rows, bits, train, backend))
        else:
            found.append(script_side(place, name, model, rows, bits, train))
    return found


def decided(place: Path) -> dict[str, Any]:
    """Return what forge decided for a run, as its plan has it, and what its trainer was."""
    path = next(iter(sorted(place.glob("runs/*/*/plan.json"))), None)
    if path is None:
        return {}
    plan = json.loads(path.read_text(encoding="utf-8"))
    chosen = {step["stage"]: step["plugin"] for step in plan["steps"]}
    values = {each["key"]: each["value"] for each in plan.get("decisions", [])}
    found = {kind: next(iter(events(place, kind)), None) for kind in ("adapted", "trainer", "probe", "kernels")}
    return {"stages": chosen, "decisions": values, **found}


def compare(part: str, work: Path, models: Path, only: list[str], rounds: int) -> list[dict[str, Any]]:
    """Time all sides of a part of full rows, in turn."""
    setting = DEFAULT[part]
    train = {
        "max_steps": 2000,
        "per_device_train_batch_size": setting["batch"],
        "logging_steps": setting["log"],
    }
    names = [name for name in SIDES if not only or name in only]
    place = work / part
    sides = sides_of(names, place, models / setting["shape"], work / "full.jsonl", setting["bits"], train)
    interleaved(sides, warm=4, rounds=rounds)
    tokens = setting["batch"] * LENGTH
    return [_entry(part, side, tokens, place) for side in sides]


def make_ragged(work: Path, model: Path) -> dict[str, Any]:
    """Write rows of 30 to 2,000 tokens, short.jsonl and timed.jsonl, and return their numbers of tokens."""
    from transformers import AutoTokenizer

    rng, counts = random.Random(3), {}
    known = lengths_of(rng, AutoTokenizer.from_pretrained(model))
    for name in ("short", "timed"):
        lengths = [rng.randint(30, 2000) for _ in range(RAGGED[name])]
        with (work / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": text_of(rng, known, length - 1)}) + "\n" for length in lengths)
        counts[name] = sum(lengths)
    return counts


def ragged(work: Path, models: Path, only: list[str], rounds: int, commands: int) -> list[dict[str, Any]]:
    """Time rows of all lengths: the pace in the middle of many rows, and whole commands on few."""
    model, batch = models / RAGGED["shape"], RAGGED["batch"]
    counts = make_ragged(work, model)
    names = [name for name in SIDES if name in (only or ("unsloth", "trl", "forge", "forge on huggingface"))]
    train = {"num_train_epochs": 1, "per_device_train_batch_size": batch}
    place = work / "ragged"
    sides = sides_of(names, place, model, work / "timed.jsonl", RAGGED["bits"], train)
    interleaved(sides, warm=4, rounds=rounds)
    found = []
    for side in sides:
        starts = events(place / side.name.replace(" ", "-"), "training")
        steps = starts[-1]["steps"] if starts else -(-RAGGED["timed"] // batch)
        entry = _entry("ragged", side, counts["timed"] / steps, place)
        if entry["seconds_a_step"] is not None:
            longer = RAGGED["long"] / RAGGED["timed"]
            entry["whole_long"] = round(entry["start"] + steps * longer * entry["seconds_a_step"])
        found.append(entry)
    whole: dict[str, list[float]] = {name: [] for name in names}
    for number in range(commands):
        for name in names if number % 2 == 0 else reversed(names):
            (side,) = sides_of([name], work / f"whole-{number}", model, work / "short.jsonl", RAGGED["bits"], train)
            began = time.time()
            process = side.start()
            if process.wait() == 0:
                whole[name].append(round(time.time() - began, 1))
                print(f"{name}: {whole[name][-1]} s for the whole command", flush=True)
            else:
                print(name, side.failure(), flush=True)
    for entry in found:
        seconds = whole[entry["side"]]
        entry["whole_short"] = seconds
        entry["whole_tokens_per_second"] = round(counts["short"] / statistics.median(seconds)) if seconds else None
    return found


CARD: Mapping[str, Any] = {"shape": "8b", "bits": 4, "batch": 2, "free": 24, "steps": 24, "log": 2}
"""The part ``card``: what a card of so many GiB holds, as the same card shows it whose other memory is taken."""

HOLD = """
import sys, time, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(float(sys.argv[1]) * 2**30), dtype=torch.uint8, device="cuda")
print("held", flush=True)
time.sleep(3600)
"""


def card(work: Path, models: Path, only: list[str], rounds: int) -> list[dict[str, Any]]:
    """Time whole runs one after another on a card of which another process has left 24 GiB."""
    setting = CARD
    names = [name for name in SIDES if name in (only or ("unsloth", "trl", "forge"))]
    found = {name: Side(name, _nothing, list, lambda: None) for name in names}
    command = [sys.executable, "-c", HOLD, str(setting["free"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        if holder.stdout is None or holder.stdout.readline().strip() != "held":
            raise SystemExit("the memory of the card could not be taken")
        try:
            for number in range(rounds):
                for name in names if number % 2 == 0 else reversed(names):
                    _whole(found[name], work / f"card-{number}", models / setting["shape"], work / "full.jsonl")
        finally:
            holder.kill()
    return [_entry("card", found[name], setting["batch"] * LENGTH, work / "card-0") for name in names]


def _nothing() -> subprocess.Popen[Any]:
    raise AssertionError("each round starts a run of its own")


def _whole(kept: Side, place: Path, model: Path, rows: Path) -> None:
    """Run a side to its end and keep its pace behind the first third."""
    train = {"max_steps": CARD["steps"], "per_device_train_batch_size": CARD["batch"], "logging_steps": CARD["log"]}
    (side,) = sides_of([kept.name], place, model, rows, CARD["bits"], train)
    began = time.time()
    code = side.start().wait()
    steps = side.steps()
    if code != 0 or len(steps) < 4:
        kept.error = side.failure() or f"it ended with {code}"
        return
    first = steps[len(steps) // 3]
    kept.paces.append((steps[-1]["time"] - first["time"]) / (steps[-1]["step"] - first["step"]))
    kept.began, kept.steps = began, side.steps
    print(f"{kept.name}: {kept.paces[-1]:.4f} s a step", flush=True)


def _entry(part: str, side: Side, tokens: float, place: Path) -> dict[str, Any]:
    found = {"part": part, **summary(side), "decided": decided(place / side.name.replace(" ", "-"))}
    pace = found["seconds_a_step"]
    found["tokens_per_second"] = round(tokens / pace) if pace else None
    shown = {key: value for key, value in found.items() if key not in {"losses", "decided"}}
    print(json.dumps(shown), flush=True)
    return found


def compared(entries: list[dict[str, Any]]) -> list[str]:
    """Return what was found as lines of Markdown; ratios are medians of those within each round."""
    rows = ["", "| part | side | tokens/s | to Unsloth's script | to TRL's | peak GiB | step 1 after, s | loss |"]
    rows += ["|---|---|---|---|---|---|---|---|"]
    for entry in entries:
        if entry["error"]:
            rows.append(f"| {entry['part']} | {entry['side']} | {entry['error'][-300:]!r} | | | | | |")
            continue
        ratios = []
        for other in ("unsloth", "trl"):
            base = next((e for e in entries if e["part"] == entry["part"] and e["side"] == other), None)
            each = [a / b for a, b in zip(base["paces"] if base else [], entry["paces"], strict=False)]
            each = [value * entry["tokens_per_second"] * entry["seconds_a_step"] for value in each]
            each = [value / (base["tokens_per_second"] * base["seconds_a_step"]) for value in each] if base else []
            ratios.append(f"{statistics.median(each):.2f}" if each else "")
        rows.append(
            f"| {entry['part']} | {entry['side']} | {entry['tokens_per_second']:,} | {ratios[0]} | {ratios[1]} | "
            f"{entry['peak_gib']} | {entry['start']} | {entry['losses'][0]:.4f} … {entry['losses'][-1]:.4f} |"
        )
    if any(entry.get("whole_short") for entry in entries):
        rows += ["", "| side | 320 rows, whole command, s | real tokens/s | 10,000 rows, worked out, s |"]
        rows += ["|---|---|---|---|"]
        rows += [
            f"| {e['side']} | {e['whole_short']} | {e['whole_tokens_per_second']} | {e.get('whole_long')} |"
            for e in entries
            if "whole_short" in e
        ]
    return rows

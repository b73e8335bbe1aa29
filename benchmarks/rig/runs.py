"""The parts: what is timed, and what is trained on both backends, killed and resumed, or merged."""

from __future__ import annotations

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rig.forge import events, failure, forge, job
from rig.models import FAMILIES, LENGTH, SCRIPT, WINDOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


TIMED: Mapping[str, Mapping[str, int]] = {
    "1b": {"batch": 4, "steps": 50, "warm": 10},
    "8b": {"batch": 2, "steps": 50, "warm": 6},
    "small": {"batch": 4, "steps": 12, "warm": 4},
}
SIDES = ("unsloth", "forge-unsloth", "trl", "forge-huggingface")


def timed(part: str, work: Path, models: Path, only: list[str]) -> Iterator[dict[str, Any]]:
    """Run all four sides in 16 and in 4 bit, or those of them that are named."""
    for bits, side in itertools.product((16, 4), SIDES):
        if only and f"{bits}-{side}" not in only:
            continue
        place = work / f"{part}-{bits}-{side}"
        place.mkdir(parents=True)
        began, setting, entry = time.time(), TIMED[part], {"part": part, "bits": bits, "side": side}
        if side.startswith("forge-"):
            train = {"max_steps": setting["steps"], "per_device_train_batch_size": setting["batch"]}
            model = {"load_in_4bit": True} if bits == 4 else {}
            job(place, models / part, work / "full.jsonl", side.removeprefix("forge-"), model=model, train=train)
            process = forge("run", "job.toml", folder=place)
            entry |= {"error": failure(place)} if process.returncode else {}
            steps = events(place, "step")
            for kind in ("data", "loaded", "trainer", "probe"):
                entry[kind] = next(iter(events(place, kind)), None)
            entry["stages"] = {e["stage"]: e["seconds"] for e in events(place, "stage") if e["state"] == "finished"}
        else:
            arguments = {"max_steps": setting["steps"], "per_device_train_batch_size": setting["batch"]}
            process = script(place, side, bits, models / part, work / "full.jsonl", arguments=arguments)
            steps = lines(place / "steps.jsonl")
            if process.returncode:
                entry["error"] = (place / "log.txt").read_text(encoding="utf-8")[-2000:]
        entry |= measures(steps, began, setting) | {"seconds": round(time.time() - began, 1)}
        print(json.dumps({k: v for k, v in entry.items() if k not in {"losses", "data", "trainer"}}), flush=True)
        yield entry


def script(
    place: Path,
    side: str,
    bits: int,
    model: Path,
    rows: Path,
    *,
    checkpointing: bool = True,
    arguments: Mapping[str, Any],
    wait: bool = True,
) -> subprocess.Popen[str]:
    """Start a plain script in a process of its own; its steps go to ``steps.jsonl`` and its output to ``log.txt``."""
    asked = {
        "side": side,
        "bits": bits,
        "model": str(model),
        "rows": str(rows),
        "out": str(place / "steps.jsonl"),
        "checkpointing": checkpointing,
        "arguments": dict(arguments),
    }
    setting = place / "setting.json"
    setting.write_text(json.dumps(asked), encoding="utf-8")
    with (place / "log.txt").open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "plain", str(setting)], cwd=place, stdout=file, stderr=subprocess.STDOUT
        )
    if wait:
        process.wait()
    return process  # type: ignore[return-value]  # its output is a file, so text or bytes is the same


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file that may still be written."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def measures(steps: list[dict[str, Any]], began: float, setting: Mapping[str, int]) -> dict[str, Any]:
    """Return tokens a second, memory, start-up and losses."""
    times = [step["time"] for step in steps][setting["warm"] - 1 :]
    if len(times) <= WINDOW:
        return {"losses": [step["loss"] for step in steps]}
    paces = [(later - now) / WINDOW for now, later in zip(times, times[WINDOW:], strict=False)]
    tokens = setting["batch"] * LENGTH
    return {
        "tokens_per_second": round(tokens / statistics.median(paces)),
        "tokens_per_second_mean": round(tokens * (len(times) - 1) / (times[-1] - times[0])),
        "peak_gib": round(max(step["memory"] for step in steps) / 2**30, 2),
        "startup": round(steps[0]["time"] - began, 1),
        "losses": [step["loss"] for step in steps],
    }


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "16 bit": {},
    "4 bit": {"model": {"load_in_4bit": True}},
    "8 bit": {"model": {"load_in_8bit": True}},
    "no checkpointing": {"train": {"gradient_checkpointing": False}},
    "packing": {"data": {"packing": True}, "train": {"per_device_train_batch_size": 2}},
    "accumulation": {"train": {"gradient_accumulation_steps": 2}},
    "held-out rows": {"data": {"eval_size": 16}, "train": {"eval_strategy": "steps", "eval_steps": 6}},
    "adamw_8bit": {"train": {"optim": "adamw_8bit"}},
    "use_rslora": {"adapter": {"use_rslora": True}},
    "use_dora": {"adapter": {"use_dora": True}},
    "all-linear": {"adapter": {"target_modules": "all-linear"}},
    "target_modules": {"adapter": {"target_modules": ["q_proj", "v_proj"]}},
    "layers_to_transform": {"adapter": {"layers_to_transform": [1, 3]}},
    "exclude_modules": {"adapter": {"exclude_modules": ["v_proj"]}},
    "rank and alpha patterns": {"adapter": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 32}}},
    "modules_to_save": {"adapter": {"modules_to_save": ["lm_head"]}},
    "init gaussian": {"adapter": {"init_lora_weights": "gaussian"}},
    "every weight": {
        "adapter": {"type": "none", "r": None, "lora_alpha": None, "target_modules": None},
        "train": {"learning_rate": 2e-5},
    },
}
"""Changes of the small job, each to be trained alike on both backends."""


def variant(backend: str, work: Path, model: Path, name: str) -> dict[str, Any]:
    """Train a variant of the small job on one backend, in a process of its own."""
    place = work / f"{backend}-{name.replace(' ', '-').replace(',', '')}"
    base = {"max_steps": 24, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
    family, _, mode = name.partition(", ")
    changes = {key: dict(value) for key, value in VARIANTS.get(mode or name, {}).items()}
    changes["train"] = base | changes.get("train", {})
    if family in FAMILIES:
        changes["adapter"] = {"target_modules": "auto"}
    job(place, model, work / "chat.jsonl", backend, **changes)
    forge("run", "job.toml", folder=place)
    return {
        "error": failure(place),
        "losses": [step["loss"] for step in events(place, "step")],
        "eval": [step["eval_loss"] for step in events(place, "eval")],
        **{kind: next(iter(events(place, kind)), {}) for kind in ("data", "adapted", "loaded", "trainer")},
    }


def both(work: Path, model: Callable[[str], Path], names: list[str], at_once: int) -> list[dict[str, Any]]:
    """Train each named variant on both backends and compare."""
    tasks = [(name, backend) for name in names for backend in ("unsloth", "huggingface")]
    with ThreadPoolExecutor(at_once) as pool:
        done = dict(zip(tasks, pool.map(lambda t: variant(t[1], work, model(t[0]), t[0]), tasks), strict=True))
    found = []
    for name in names:
        ours, theirs = done[name, "unsloth"], done[name, "huggingface"]
        entry = {"variant": name, "unsloth": ours, "huggingface": theirs, **difference(ours, theirs)}
        entry["error"] = ours["error"] or theirs["error"]
        print(json.dumps({k: v for k, v in entry.items() if k not in {"unsloth", "huggingface"}}), flush=True)
        found.append(entry)
    return found


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two runs of one job: the rows, what is trained, and the losses."""
    gaps = [abs(a - b) for a, b in zip(ours["losses"], theirs["losses"], strict=False)]
    held = [abs(a - b) for a, b in zip(ours.get("eval", []), theirs.get("eval", []), strict=False)]
    if not gaps:
        return {}
    return {
        "same_digest": ours["data"]["digest"] == theirs["data"]["digest"],
        "trainable": [(side.get("adapted") or side["trainer"]).get("trainable") for side in (ours, theirs)],
        "steps": [len(ours["losses"]), len(theirs["losses"])],
        "first": gaps[0] / theirs["losses"][0],
        "mean": statistics.mean(gaps),
        "max": max(gaps),
        "fall": theirs["losses"][0] - theirs["losses"][-1],
        **({"eval_max": max(held)} if held else {}),
    }


def resume(work: Path, model: Path, rows: str = "chat.jsonl", **changes: Mapping[str, Any]) -> dict[str, Any]:
    """Kill a run on Unsloth after a checkpoint, resume it, and compare its losses with an undisturbed run's."""
    train = {"max_steps": 30, "per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 5}
    straight, killed = work / "resume-straight", work / "resume-killed"
    for place in (straight, killed):
        job(place, model, work / rows, "unsloth", train={**train, "learning_rate": 1e-3}, **changes)
    forge("run", "job.toml", folder=straight)
    process = forge("run", "job.toml", folder=killed, wait=False)
    while process.poll() is None and len(events(killed, "step")) < 13:
        time.sleep(0.01)
    lock = next(iter(killed.glob("runs/*/*/.lock")), None)
    if lock is None:
        return {"error": failure(killed)}
    os.kill(int(lock.read_text(encoding="utf-8")), signal.SIGKILL)
    process.wait()
    at = len(events(killed, "step"))
    folder = lock.parent
    forge("resume", str(folder), folder=killed)
    last = {step["step"]: step["loss"] for step in events(killed, "step")}
    whole = {step["step"]: step["loss"] for step in events(straight, "step")}
    return {
        "killed_after_step": at,
        "resumed_at": events(killed, "training")[-1]["from"] if events(killed, "training") else None,
        "steps": [len(whole), len(last)],
        "max": max((abs(whole[step] - last[step]) for step in whole if step in last), default=None),
        "losses": [list(whole.values())[-3:], [last[step] for step in sorted(last)][-3:]],
        "error": failure(killed),
    }


def merged(work: Path, model: Path, bits: int) -> dict[str, Any]:
    """Train on Unsloth, export the merged model, and return what forge found when it read that back."""
    place = work / f"merged-{bits}"
    train = {"max_steps": 30, "per_device_train_batch_size": 4, "learning_rate": 3e-3}
    table = {"load_in_4bit": True} if bits == 4 else {}
    exports: Any = [{"format": "adapter"}, {"format": "merged"}]
    job(place, model, work / "chat.jsonl", "unsloth", model=table, train=train, export=exports)
    forge("run", "job.toml", folder=place)
    path = next(iter(place.glob("runs/*/*/exports/2-merged/export.json")), None)
    report = json.loads(path.read_text(encoding="utf-8"))["report"] if path else {"error": failure(place)}
    losses = [step["loss"] for step in events(place, "step")]
    plans = list(place.glob("runs/*/*/exports/*.plan.json"))
    preload = [json.loads(plan.read_text(encoding="utf-8"))["preload"] for plan in plans]
    return {"bits": bits, "fall": losses[0] - losses[-1] if losses else None, "export_preload": preload, **report}

"""Runs whose numbers look like those of the quick start, made without training: for pictures of the page."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from forge.disk.checkpoints import mark
from forge.disk.files import write_json
from support.projects import Project
from support.tiny import make_rows

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"
CARDS = {
    "Estonia": ("Tallinn", "Europe", "EUR"),
    "Kuwait": ("Kuwait City", "Asia", "KWD"),
    "Rwanda": ("Kigali", "Africa", "RWF"),
    "Peru": ("Lima", "Americas", "PEN"),
    "Samoa": ("Apia", "Oceania", "WST"),
    "Ireland": ("Dublin", "Europe", "EUR"),
    "Moldova": ("Chisinau", "Europe", "MDL"),
    "Montserrat": ("Plymouth", "Americas", "XCD"),
}
BASE = "Ireland is a sovereign state in the Atlantic Ocean, located in the North Atlantic Ocean, between the United"
TUNED = '{"capital": "Londinium", "region": "Europe", "currency": "EUR"}'


def card(name: str) -> str:
    """Return the card of a country, as the quick start writes it."""
    return json.dumps(dict(zip(("capital", "region", "currency"), CARDS[name], strict=True)))


def make_shop(folder: Path, model: Path) -> Path:
    """Make a folder with the quick start's model and rows, and with runs that ended in several ways."""
    project = Project(folder, model)
    quick = folder / "quickstart"
    shutil.copytree(model, quick / "model")
    (quick / "data").mkdir()
    shutil.copy(EXAMPLE / "metrics.py", quick)
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Give the country card of {name}."},
                {"role": "assistant", "content": card(name)},
            ]
        }
        for name in CARDS
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    for part, times in (("train", 26), ("eval", 3)):
        (quick / "data" / f"{part}.jsonl").write_text(text * times, encoding="utf-8")
    make_rows(folder / "rows.jsonl", 8)
    made(project, "quickstart", "20260101-100000", 20, 20, result=True)
    made(project, "quickstart", "20260101-091500", 20, 5, stopped=True)
    made(project, "capitals", "20251231-184200", 400, 400)
    made(project, "capitals", "20251231-171000", 400, 132, failed=True)
    return folder


def made(
    project: Project,
    name: str,
    moment: str,
    of: int,
    last: int,
    *,
    result: bool = False,
    stopped: bool = False,
    failed: bool = False,
) -> None:
    """Make the folder of a run, with the events of its steps."""
    _, run = project.prepare()
    path = project.runs / name / moment
    path.parent.mkdir(exist_ok=True)
    run.path.rename(path)
    begun = 1767261600.0
    events: list[dict[str, Any]] = [{"kind": "preloaded", "seconds": 3.2}]
    events += [
        {"kind": "data", "rows": 212, "tokens": 13005, "share": 0.383, "longest": 68},
        {"kind": "loaded", "parameters": 134515008, "dtype": "float32", "attention": "sdpa", "device": "cpu"},
        {"kind": "adapted", "trainable": 4884480, "all": 139399488, "targets": ["q_proj"]},
        {"kind": "probe", "rows": 8, "tokens": 532, "seconds": 3.8, "memory": 3006477107},
        {"kind": "training", "steps": of, "from": 0},
    ]
    for step in range(1, last + 1):
        wave = math.sin(12.9898 * step) * 43758.5453 % 1 - 0.5
        events.append(
            {
                "kind": "step",
                "step": step,
                "of": of,
                "loss": 0.55 + 1.7 * math.exp(-5 * step / of) + 0.12 * wave,
                "learning_rate": 5e-4 * (1 - step / of),
                "grad_norm": 0.8 + math.exp(-6 * step / of) + 0.3 * wave,
                "mean_token_accuracy": 0.88 - 0.25 * math.exp(-6 * step / of) + 0.02 * wave,
                "tokens_per_second": 184 + 20 * wave,
                "memory": 3006477107,
            }
        )
        if step * 4 % of == 0:
            events.append(
                {
                    "kind": "eval",
                    "step": step,
                    "eval_loss": 0.46 + 1.5 * math.exp(-5 * step / of),
                    "eval_mean_token_accuracy": 0.9,
                }
            )
            events.append({"kind": "checkpoint", "step": step, "bytes": 62605377})
    if stopped:
        (path / "checkpoints" / f"checkpoint-{last}").mkdir(parents=True)
        mark(path / "checkpoints" / f"checkpoint-{last}")
        events.append(
            {"kind": "stopped", "message": f"stopped after step {last}, as asked; checkpoint-{last} is whole"}
        )
    elif failed:
        why = "the system ended it, most likely because memory ran out"
        error = {
            "type": "WorkerKilled",
            "what": "the worker was killed",
            "why": why,
            "do": "take smaller batches, or less of everything else",
        }
        events.append({"kind": "failed", "error": error})
    else:
        events.append({"kind": "trained", "weights": "adapter", "metrics": {"train_loss": 0.8678, "eval_loss": 0.4654}})
        events.append({"kind": "exported", "format": "merged", "folder": "1-merged", "files": {}})
        events.append({"kind": "done", "task": "train"})
        weights(path)
    lines = (json.dumps({"time": begun + 2.4 * at, **event}) + "\n" for at, event in enumerate(events))
    (path / "events.jsonl").write_text("".join(lines), encoding="utf-8")
    (path / "log.txt").write_text("The model is already on multiple devices.\n" * 3, encoding="utf-8")
    if result:
        write_json(path / "evaluation.json", evaluation())


def weights(path: Path) -> None:
    """Say that an adapter was trained and a merged model exported."""
    (path / "adapter").mkdir()
    (path / "adapter" / "adapter_model.safetensors").write_bytes(b"0" * 4096)
    files = {"adapter_model.safetensors": {"bytes": 4096, "sha256": "0" * 64}}
    about = {"weights": "adapter", "kind": "adapter", "task": "text", "base": {}, "processor": "adapter", "traits": []}
    write_json(path / "trained.json", {**about, "best_step": None, "metrics": {"train_loss": 0.8678}, "files": files})


def evaluation() -> dict[str, Any]:
    """Return a result as the quick start has it."""

    def entry(value: float, low: float, high: float, *, share: bool = True) -> dict[str, Any]:
        return {"value": value, "stderr": 0.1, "low": low, "high": high, "n": 24, "share": share}

    metrics = {
        "loss": {
            "base": entry(2.272, 2.134, 2.411, share=False),
            "tuned": entry(0.4654, 0.3759, 0.563, share=False),
            "difference": entry(-1.806, -1.885, -1.723, share=False),
        },
        "card": {"base": entry(0, 0, 0.14), "tuned": entry(1, 0.86, 1), "difference": entry(1, 0.8, 1)},
        "region": {
            "base": entry(0.08, 0.02, 0.26),
            "tuned": entry(0.92, 0.74, 0.98),
            "difference": entry(0.83, 0.59, 0.92),
        },
        "capital": {
            "base": entry(0.17, 0.07, 0.36),
            "tuned": entry(0.25, 0.12, 0.45),
            "difference": entry(0.08, -0.13, 0.29),
        },
    }
    sample = {
        "origin": "data/eval.jsonl:4",
        "prompt": "Give the country card of Ireland.",
        "reference": card("Ireland"),
        "answers": {"base": BASE, "tuned": TUNED},
    }
    models = {name: {"seconds": 13.0, "answers": 24, "tokens": 800, "finished": 0.9} for name in ("base", "tuned")}
    return {
        "rows": 24,
        "models": models,
        "metrics": metrics,
        "samples": [sample],
        "report": {"source": "data/eval.jsonl"},
    }

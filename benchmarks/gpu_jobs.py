"""Ordinary jobs on one GPU: each ends well, or is refused before anything is loaded.

    python benchmarks/gpu_jobs.py [--only WORD ...] [--at-once 7] [--out FOLDER] [--work FOLDER]

Needs what ``gpu.py`` needs; optional packages that are not there are part of what is tried. A random model of 28 M
parameters, a few steps each, seven at a time: it is about what happens, not about how fast. ``jobs.json`` and
``jobs.md`` hold, for each job, how it ended, what was trained by and in which precision, and the first and the last
loss. It exits with 1 if a job failed after it was planned.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from gpu_methods import write_rows
from rig.forge import events, failure, forge, job
from rig.models import build, make_rows, words

HF, UNSLOTH = {"use": {"backend": "huggingface"}}, {"use": {"backend": "unsloth"}}
PLANNED = 2
"""Exit status of a job that was refused before it ran."""

Tables = dict[str, Any]


def train(**options: Any) -> Tables:
    """Return a job's table ``[train]``."""
    return {"train": options}


def method(name: str, **options: Any) -> Tables:
    """Return what a job of a method needs."""
    return {
        "data": {"path": f"{name if name in {'kto', 'grpo'} else 'dpo'}.jsonl"},
        "train": {"method": name, **options},
    }


HELD_OUT = {"eval_size": 0.1}
FULL: Tables = {"adapter": {"type": "none", "r": None, "lora_alpha": None, "target_modules": None}}
ONLINE = {
    "num_generations": 4,
    "max_completion_length": 16,
    "per_device_train_batch_size": 4,
    "reward": [{"use": "length", "args": {"max": 60}}],
}
JOBS: Mapping[str, tuple[Tables, ...]] = {
    "defaults": (),
    "defaults, transformers": (HF,),
    "liger": (HF, train(use_liger_kernel=True)),
    "liger, no backend named": (train(use_liger_kernel=True),),
    "float16 by dtype": ({"model": {"dtype": "float16"}},),
    "float16 by flag": (train(fp16=True),),
    "float16 by flag, transformers": (HF, train(fp16=True)),
    "packing": ({"data": {"packing": True}},),
    "packing, transformers": (HF, {"data": {"packing": True}}),
    "full, bfloat16": (HF, FULL, {"model": {"load_in_16bit": True}}),
    "full, float32": (HF, FULL, train(bf16=False)),
    "full, float16 arithmetic": (HF, FULL, train(fp16=True)),
    "full, Unsloth": (UNSLOTH, FULL),
    "full, Unsloth, float16 arithmetic": (UNSLOTH, FULL, train(fp16=True)),
    "torch_compile": (HF, train(torch_compile=True)),
    "paged_adamw_8bit": (train(optim="paged_adamw_8bit"),),
    "adafactor": (train(optim="adafactor"),),
    "lion_8bit": (train(optim="lion_8bit"),),
    "galore": (HF, FULL, train(optim="galore_adamw", optim_target_modules="all-linear")),
    "apollo": (HF, FULL, train(optim="apollo_adamw", optim_target_modules="all-linear")),
    "neftune": (train(neftune_noise_alpha=5.0),),
    "workers": (train(dataloader_num_workers=2),),
    "tensorboard": (train(report_to="tensorboard"),),
    "early stopping": (
        {"data": HELD_OUT},
        train(
            eval_steps=2, early_stopping_patience=1, load_best_model_at_end=True, save_strategy="steps", save_steps=2
        ),
    ),
    "8 bit": (HF, {"model": {"load_in_8bit": True}}),
    "4 bit, DoRA": (HF, {"model": {"load_in_4bit": True}, "adapter": {"use_dora": True}}),
    "4 bit, float16": (HF, {"model": {"load_in_4bit": True}}, train(fp16=True)),
    "flash_attention_2": (HF, {"model": {"attn_implementation": "flash_attention_2"}}),
    "flex_attention": (HF, {"model": {"attn_implementation": "flex_attention"}}),
    "eager": (HF, {"model": {"attn_implementation": "eager"}}),
    "dpo": (method("dpo"),),
    "kto": (method("kto"),),
    "orpo": (method("orpo"),),
    "reward": (method("reward"),),
    "grpo, transformers": (HF, method("grpo", **ONLINE)),
    "grpo, Unsloth": (UNSLOTH, method("grpo", **ONLINE)),
    "sdpo": (method("sdpo", **ONLINE),),
    "merged from 4 bit": ({"model": {"load_in_4bit": True}, "export": [{"format": "merged"}]},),
    "eval": ({"data": HELD_OUT, "eval": {}},),
    "embeddings trained": ({"adapter": {"modules_to_save": ["embed_tokens", "lm_head"]}},),
    "embeddings trained, float16": (
        HF,
        {"adapter": {"modules_to_save": ["embed_tokens", "lm_head"]}},
        train(fp16=True),
    ),
    "streaming": ({"data": {"streaming": True}},),
    "8k rows": (
        {"data": {"path": "long.jsonl"}, "model": {"max_seq_length": 8192}},
        train(per_device_train_batch_size=1),
    ),
}
"""The tables of each job, over the defaults of :func:`rig.forge.job`."""


def long_rows(path: Path) -> None:
    """Write rows that fill 8192 tokens."""
    rng = random.Random(3)
    path.write_text(
        "".join(json.dumps({"text": " ".join(words(rng, 8192))}) + "\n" for _ in range(8)), encoding="utf-8"
    )


def try_job(name: str, tables: tuple[Tables, ...], work: Path, model: Path) -> dict[str, Any]:
    """Run one job and say how it ended."""
    place, merged = work / "".join(letter if letter.isalnum() else "-" for letter in name), dict[str, Any]()
    for tables_ in (train(max_steps=6, per_device_train_batch_size=2), *tables):
        for key, table in tables_.items():
            merged[key] = table if isinstance(table, list) else {**merged.get(key, {}), **table}
    data = merged.setdefault("data", {})
    data["path"] = str(work / data.get("path", "chat.jsonl"))
    backend = merged.pop("use", {"backend": "auto"})["backend"]
    job(place, model, Path(data["path"]), backend, **merged)
    code = forge("run", "job.toml", folder=place).returncode
    loaded, trainer = next(iter(events(place, "loaded")), {}), next(iter(events(place, "trainer")), {})
    losses = [step["loss"] for step in events(place, "step") if step.get("loss") is not None]
    why = None if code == 0 else failure(place) or "no reason"
    planned = not list(place.glob("runs/*/*/events.jsonl"))
    how = (
        "ended well"
        if code == 0
        else "refused when planned"
        if code == PLANNED and planned
        else "refused before loading"
    )
    if code and (loaded or code != PLANNED):
        how = "FAILED"
    return {
        "job": name,
        "how": how,
        "why": why,
        "loaded": loaded.get("class"),
        "dtype": loaded.get("dtype"),
        "attention": loaded.get("attention"),
        "trainer": trainer.get("trainer"),
        "losses": [losses[0], losses[-1]] if losses else None,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the results as Markdown."""
    lines = ["| job | how it ended | weights | attention | first and last loss |", "|---|---|---|---|---|"]
    for each in results:
        losses = " → ".join(f"{loss:.4f}" for loss in each["losses"] or ())
        why = "" if each["why"] is None else f": {' '.join(each['why'].split())[-300:]}"
        lines.append(
            f"| {each['job']} | {each['how']}{why} | {each['dtype'] or ''} | {each['attention'] or ''} | {losses} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the jobs and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="words of which one is in a job's name")
    parser.add_argument("--at-once", type=int, default=7)
    parser.add_argument("--shape", default="small", choices=["small", "1b"])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="gpu-jobs-"))
    out = options.out or work
    for folder in (work, out):
        folder.mkdir(parents=True, exist_ok=True)
    model = build(work / "models", options.shape)
    make_rows(work)
    write_rows(work, 20, 30)
    long_rows(work / "long.jsonl")
    chosen = {
        name: tables for name, tables in JOBS.items() if not options.only or any(word in name for word in options.only)
    }
    with ThreadPoolExecutor(options.at_once) as pool:
        results = list(pool.map(lambda each: try_job(each[0], each[1], work, model), chosen.items()))
    (out / "jobs.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = table(results)
    (out / "jobs.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    failed = [each["job"] for each in results if each["how"] == "FAILED"]
    print(f"{len(results)} jobs, {len(failed)} failed after they were planned: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Vision models on one GPU: the same job on Unsloth and on transformers, in 16 and 4 bit.

    python benchmarks/gpu_vision.py [--archs qwen2_5_vl qwen3_vl] [--size medium] [--out FOLDER] [--work FOLDER]

Needs what ``benchmarks/gpu.py`` needs, and torchvision. Models are random weights in the shapes of two families; rows
are pictures of one colour, each with a question and its answer. Every run is a process of its own, one after another.
``results.json`` and ``table.md`` hold the result: milliseconds of the median warm step, peak memory, the loss of the
first step and of the last, whether both backends saw the same rows, and what the labels say, decoded.
``resumed`` kills a run on Unsloth after a checkpoint, and compares it, resumed, with an undisturbed one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT / "benchmarks"), str(ROOT / "tests")]

# They lie in folders, not in a package.
from rig.forge import events, failure, forge, job  # noqa: E402
from rig.runs import difference, resume  # noqa: E402

from support.tiny_vlm import make_vlm  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple")
SIDE = 448
BATCH = 4
MODES = ("16 bit", "4 bit", "language only", "all weights", "Unsloth's collator", "merged", "4 bit merged", "resumed")
SIZES: Mapping[str, Mapping[str, Any]] = {
    "medium": {
        "hidden": 1536,
        "text": {"num_hidden_layers": 16, "intermediate_size": 6144, "num_attention_heads": 12,
                 "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 32768},
        "vision": {"depth": 16, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 3072},
    },
    "small": {
        "hidden": 256,
        "text": {"num_hidden_layers": 4, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2,
                 "head_dim": 64, "vocab_size": 1024},
        "vision": {"depth": 4, "hidden_size": 128, "num_heads": 4, "intermediate_size": 256},
    },
}  # fmt: skip


def make_model(folder: Path, arch: str, size: str) -> None:
    """Write a random model of a family."""
    sizes = {name: dict(value) for name, value in SIZES[size].items() if name != "hidden"}
    half = sizes["text"]["head_dim"] // 2
    sections = [half - 2 * (3 * half // 8), 3 * half // 8, 3 * half // 8]
    rope = {"rope_type": "default", "rope_theta": 1000000.0, "mrope_section": sections}
    if arch == "qwen2_5_vl":
        sizes["vision"]["fullatt_block_indexes"] = [sizes["vision"]["depth"] - 1]
    else:
        rope["mrope_interleaved"] = True
        sizes["vision"]["num_position_embeddings"] = 2304
    sizes["text"] |= {"rope_parameters": rope, "max_position_embeddings": 4096}
    make_vlm(folder, arch, hidden=SIZES[size]["hidden"], side=SIDE, sizes=sizes, dtype="bfloat16")


def make_rows(folder: Path, count: int = 96) -> Path:
    """Write pictures of a few sizes, and questions about them with answers of some length."""
    from PIL import Image

    rng, path = random.Random(0), folder / "rows.jsonl"
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            colour, name = COLOURS[index % len(COLOURS)], f"pictures/{index}.png"
            Image.new("RGB", (rng.choice((336, 392, SIDE)), SIDE), colour).save(folder / name)
            question = [{"type": "image"}, {"type": "text", "text": "Which colour is this? Describe the picture."}]
            answer = f"It is {colour}. " + f"The picture is {colour}, and so is all that is in the picture. " * 3
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"images": [name], "messages": messages}) + "\n")
    return path


def runs(
    arch: str, size: str, work: Path, steps: int, backends: list[str], modes: list[str]
) -> Iterator[dict[str, Any]]:
    """Train one model in each way and yield what was measured."""
    base = work / f"{arch}-{size}"
    make_model(base, arch, size)
    for mode in modes:
        for backend in backends:
            place = work / f"{arch}-{mode}-{backend}".replace(" ", "-")
            if mode in {"Unsloth's collator", "resumed"} and backend != "unsloth":
                continue
            if mode == "resumed":
                found = resume(work, base, "rows.jsonl", adapter={"target_modules": None})
                print(json.dumps(found), flush=True)
                yield {"arch": arch, "mode": mode, "backend": backend, "resume": found, "error": found["error"]}
                continue
            model = {"max_seq_length": 2048, **({"load_in_4bit": True} if mode.startswith("4 bit") else {})}
            train = {"max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": 2e-4}
            changes: dict[str, Any] = {"model": model, "train": train, "adapter": {"target_modules": None}}
            if mode == "language only":
                changes["adapter"]["finetune_vision_layers"] = False
            if mode == "all weights":
                changes["adapter"] = {"type": "none", "r": None, "lora_alpha": None, "target_modules": None}
                train["learning_rate"] = 2e-5
            if mode == "Unsloth's collator":
                changes["use"] = {"collate": "unsloth-vision"}
            if mode.endswith("merged"):
                changes["export"] = [{"format": "merged"}]
            job(place, base, work / "rows.jsonl", backend, **changes)
            began = time.time()
            process = forge("run", "job.toml", folder=place)
            logged = events(place, "step")
            times = [step["time"] for step in logged][min(6, steps // 2) :]
            entry = {
                "arch": arch, "mode": mode, "backend": backend, "seconds": round(time.time() - began, 1),
                "error": failure(place) if process.returncode else None,
                "ms": round(1e3 * statistics.median(b - a for a, b in itertools.pairwise(times)), 1)
                if len(times) > 1 else None,
                "peak_gib": round(max(step["memory"] for step in logged) / 2**30, 2) if logged else None,
                "losses": [step["loss"] for step in logged],
                **{kind: next(iter(events(place, kind)), {}) for kind in ("data", "adapted", "loaded", "trainer")},
                "exported": [event["report"] for event in events(place, "exported")],
            }  # fmt: skip
            print(json.dumps({k: v for k, v in entry.items() if k not in {"losses", "data", "trainer"}}), flush=True)
            yield entry


def labels(work: Path) -> str:
    """Return a row as ``forge data`` shows it: what is in the loss stands between « and »."""
    place = min(path for path in work.iterdir() if (path / "job.toml").is_file())
    (place / "forge.txt").unlink()
    forge("data", "job.toml", "--rows", "1", folder=place)
    return (place / "forge.txt").read_text(encoding="utf-8").split("\n\n")[0]


def table(found: list[dict[str, Any]]) -> str:
    """Return the measurements as Markdown."""
    lines = [
        "| model | mode | backend | ms a step | peak GiB | loss, step 1 | last | same rows | mean difference |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in found:
        if entry.get("resume"):
            lines.append(f"| {entry['arch']} | resumed | {entry['backend']} | {json.dumps(entry['resume'])} |")
            continue
        if entry["error"]:
            lines.append(f"| {entry['arch']} | {entry['mode']} | {entry['backend']} | {entry['error'][:200]} |")
            continue
        other = next((each for each in found if each["backend"] == "huggingface" and each.get("losses")
                      and (each["arch"], each["mode"]) == (entry["arch"], entry["mode"])), None)  # fmt: skip
        gap = difference(entry, other) if other and other is not entry else {}
        same, mean = gap.get("same_digest", ""), f"{gap['mean']:.4f}" if gap else ""
        lines.append(
            f"| {entry['arch']} | {entry['mode']} | {entry['backend']} | {entry['ms']} | {entry['peak_gib']} "
            f"| {entry['losses'][0]:.4f} | {entry['losses'][-1]:.4f} | {same} | {mean} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archs", nargs="+", default=["qwen2_5_vl", "qwen3_vl"])
    parser.add_argument("--size", default="medium", choices=SIZES)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--backends", nargs="+", default=["unsloth", "huggingface"])
    parser.add_argument("--modes", nargs="+", default=["16 bit", "4 bit"], choices=MODES)
    parser.add_argument("--out", type=Path, default=Path("gpu-vision"))
    parser.add_argument("--work", type=Path, default=Path("/tmp/gpu-vision"))
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    asked.out.mkdir(parents=True, exist_ok=True)
    make_rows(asked.work)
    found: list[dict[str, Any]] = []
    for arch in asked.archs:
        for entry in runs(arch, asked.size, asked.work, asked.steps, asked.backends, asked.modes):
            found.append(entry)
            (asked.out / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
            (asked.out / "table.md").write_text(table(found), encoding="utf-8")
    text = f"{table(found)}\n```\n{labels(asked.work)}\n```\n"
    (asked.out / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

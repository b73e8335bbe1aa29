"""forge against a plain TRL script: the same model, rows, batches and seed.

    python benchmarks/trl_parity.py [--pairs 5] [--steps 6] [--model FOLDER | --tiny] [--full] [--no-probe]

Both sides run in fresh processes with one environment, in turn (forge first in one pair, TRL first in the next), on
rows of the quick start. forge gets a job file; TRL gets ``plain_trl.py``, which renders and tokenises the same rows
itself. They must agree on the loss of every step (1e-6), on tokens a second (0.95) and on peak memory (+50 MB); what
does not is named, and the exit code is 1. ``parity.json`` and ``parity.md`` hold the result.

How it is measured. Loss: as both trainers log it, unrounded. Tokens a second: the tokens of steps 2..N over the time
from the end of step 1 to the end of step N, so loading, the probe and saving are no part of it. Memory: the process's
own maximum when the last step is logged, and, with saving, what the system says of the process when it has ended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent / "examples" / "quickstart"
MOST_LOSS, LEAST_SPEED, MOST_MEMORY = 1e-6, 0.95, 50e6
BUSY = 0.1  # of the processor time used: more of it by other programs, and speeds say little
LIBRARIES = ("forge-train", "trl", "transformers", "peft", "accelerate", "datasets", "torch")
FIGURES = ("tokens_per_second", "cpu", "peak", "peak_first_step", "peak_whole")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def settings(options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the arguments for ``SFTConfig`` and ``LoraConfig`` that both sides get."""
    train = {
        "max_steps": options.steps,
        "per_device_train_batch_size": options.batch,
        "learning_rate": 2e-5 if options.full else 2e-4,
        "lr_scheduler_type": "linear",
        "seed": options.seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "gradient_checkpointing": options.gradient_checkpointing,
        "bf16": False,  # TRL's default is true, also on a CPU
        "use_cpu": True,
    }
    lora = {"r": 16, "lora_alpha": 32, "lora_dropout": options.dropout, "target_modules": LINEAR}
    return train, None if options.full else lora


def write_rows(path: Path, count: int) -> None:
    """Write rows as TRL wants them: a prompt and a completion, each a list of messages."""
    source = QUICKSTART / "data" / "train.jsonl"
    if source.exists():
        rows = [json.loads(line)["messages"] for line in source.read_text(encoding="utf-8").splitlines()]
    else:  # a clone before prepare.py; enough for --tiny
        names = ("Peru", "Estonia", "Kuwait", "Rwanda", "Japan", "Saint Kitts and Nevis", "Chad")
        rows = [
            [
                {"role": "user", "content": f"Give the country card of {name}, number {number}."},
                {"role": "assistant", "content": json.dumps({"country": name, "number": number})},
            ]
            for number, name in enumerate(islice(cycle(names), 40))
        ]
    lines = (json.dumps({"prompt": row[:-1], "completion": row[-1:]}, ensure_ascii=False) for row in rows[:count])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


TINY = """
import sys
from pathlib import Path
from support.tiny import make_model
from transformers import AutoTokenizer

folder = make_model(Path(sys.argv[1]))
tokenizer = AutoTokenizer.from_pretrained(folder)
tokenizer.eos_token = "<|im_end|>"  # else forge would add </s> to each answer, which TRL leaves to the template
tokenizer.save_pretrained(folder)
"""


def tiny_model(folder: Path, environment: Mapping[str, str]) -> Path:
    """Write a random model whose end token is the one that its template writes."""
    # In a process of its own, for the same reason as in `tensors`.
    path = os.pathsep.join(filter(None, (str(HERE.parent / "tests"), environment.get("PYTHONPATH"))))
    command = [sys.executable, "-c", TINY, str(folder)]
    spawn(command, folder.with_name("model.log"), {**environment, "PYTHONPATH": path})
    return folder


def spawn(command: list[str], log: Path, environment: Mapping[str, str]) -> dict[str, float]:
    """Run a program and return what it and the processes that it waited for took.

    Returns:
        ``peak_whole``, the most memory of one of them in bytes, and ``cpu``, the processor seconds of all.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=dict(environment))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}; the end of {log}:\n{tail}")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_whole": peak, "cpu": usage.ru_utime + usage.ru_stime}


def run_trl(out: Path, model: Path, rows: Path, options: argparse.Namespace, environment: Mapping[str, str]) -> Any:
    """Train with the plain script."""
    train, lora = settings(options)
    train |= {"max_length": options.max_length, "completion_only_loss": True}
    config = {
        "model": str(model),
        "data": str(rows),
        "out": str(out),
        "dtype": "float32",
        "args": train,
        "lora": lora and {"task_type": "CAUSAL_LM", **lora},
    }
    path = out / "config.json"
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")
    whole = spawn([sys.executable, str(HERE / "plain_trl.py"), str(path)], out / "log.txt", environment)
    steps = json.loads((out / "result.json").read_text(encoding="utf-8"))["steps"]
    return side(steps, whole, out / "weights", options.steps)


def run_forge(out: Path, model: Path, rows: Path, options: argparse.Namespace, environment: Mapping[str, str]) -> Any:
    """Train with ``forge run``."""
    train, lora = settings(options)
    job = {
        "name": "parity",
        "model": {"id": str(model), "max_seq_length": options.max_length, "dtype": "float32"},
        "adapter": {"type": "lora", **lora} if lora else {"type": "none"},
        "data": {"path": str(rows), "train_on": "completion"},
        "train": {"method": "sft", "probe": options.probe, **train},
    }
    path = out / "job.toml"
    path.write_text(tomli_w.dumps(job), encoding="utf-8")
    command = [sys.executable, "-m", "forge", "run", str(path), "--runs-dir", str(out / "runs")]
    whole = spawn(command, out / "log.txt", environment)
    folder = next((out / "runs" / "parity").iterdir())
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    steps = [event for event in events if event["kind"] == "step"]
    found = side(steps, whole, folder / ("model" if options.full else "adapter"), options.steps)
    probe = next((event for event in events if event["kind"] == "probe"), None)
    return found | {"probe": probe}


def side(steps: list[dict[str, Any]], whole: dict[str, float], weights: Path, count: int) -> dict[str, Any]:
    """Return the figures of one run, worked out the same way for both sides."""
    if [step["step"] for step in steps] != list(range(1, count + 1)):
        raise SystemExit(f"{count} steps were asked for, and these were logged: {[step['step'] for step in steps]}")
    first, last = steps[0], steps[-1]
    tokens = last["num_tokens"] - first["num_tokens"]
    return {
        "losses": [step["loss"] for step in steps],
        "gradients": [step["grad_norm"] for step in steps],
        "tokens": [step["num_tokens"] for step in steps],
        "tokens_per_second": tokens / (last["time"] - first["time"]),
        "peak": last["memory"],
        "peak_first_step": first["memory"],
        "weights": str(weights),
        **whole,
    }


def weights_equal(one: Path, other: Path) -> bool:
    """Whether two folders hold the same tensors, bit for bit."""
    first, second = tensors(one), tensors(other)
    return bool(first) and first == second


def tensors(folder: Path) -> dict[str, tuple[str, str]]:
    """Return type and shape, and a digest, of each tensor in a folder.

    They are read one at a time: what this process takes, Linux counts as its children's too.
    """
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                file.seek(start + begin)
                digest = hashlib.sha256(file.read(end - begin)).hexdigest()
                found[name] = (f"{entry['dtype']} {entry['shape']}", digest)
    return found


def compare(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what came of all pairs together."""

    def middle(name: str, key: str) -> float:
        return float(statistics.median(pair[name][key] for pair in pairs))

    def furthest(key: str) -> float:
        return float(
            max(
                abs(ours - theirs)
                for pair in pairs
                for ours, theirs in zip(pair["forge"][key], pair["trl"][key], strict=True)
            )
        )

    found: dict[str, Any] = {
        "loss_difference": furthest("losses"),
        "gradient_difference": furthest("gradients"),
        "token_difference": furthest("tokens"),
        "weights_equal": all(pair["weights_equal"] for pair in pairs),
        "speed_ratio": middle("forge", "tokens_per_second") / middle("trl", "tokens_per_second"),
        "pair_ratios": [pair["forge"]["tokens_per_second"] / pair["trl"]["tokens_per_second"] for pair in pairs],
        "cpu_ratio": middle("forge", "cpu") / middle("trl", "cpu"),
        "memory_difference": middle("forge", "peak") - middle("trl", "peak"),
        "memory_difference_whole": middle("forge", "peak_whole") - middle("trl", "peak_whole"),
    }
    for name in ("forge", "trl"):
        found[name] = {key: middle(name, key) for key in FIGURES}
    found["failures"] = [
        text
        for text, wrong in {
            f"the loss differs by {found['loss_difference']:.2e}": not found["loss_difference"] <= MOST_LOSS,
            f"forge has {found['speed_ratio']:.3f} of TRL's speed": found["speed_ratio"] < LEAST_SPEED,
            f"forge takes {found['memory_difference'] / 1e6:+.0f} MB": found["memory_difference"] > MOST_MEMORY,
        }.items()
        if wrong
    ]
    return found


def table(found: Mapping[str, Any], about: Mapping[str, Any], pairs: list[dict[str, Any]]) -> str:
    """Return the result as Markdown."""
    ours, theirs = found["forge"], found["trl"]

    def memory(key: str) -> str:
        both = [f"{side[key] / 1e6:,.0f} MB" for side in (ours, theirs)]
        return f"{both[0]} | {both[1]} | {(ours[key] - theirs[key]) / 1e6:+.0f} MB"

    others = "" if about["others"] is None else f"; other programs had {about['others']:.0%} of the processor time used"
    doubt = "; the speed is no judgement, since other programs were at work" if (about["others"] or 0) > BUSY else ""
    speed = f"{ours['tokens_per_second']:,.1f} | {theirs['tokens_per_second']:,.1f} | {found['speed_ratio']:.3f}"
    each = ", ".join(f"{ratio:.3f}" for ratio in found["pair_ratios"])
    first, last = (pairs[0]["forge"]["losses"][index] for index in (0, -1))
    first_trl, last_trl = (pairs[0]["trl"]["losses"][index] for index in (0, -1))
    return "\n".join(
        [
            f"`{about['command']}`",
            "",
            f"{about['what']}; {', '.join(f'{name} {number}' for name, number in about['versions'].items())}; "
            f"Python {about['python']}, {about['threads']} threads{others}",
            "",
            "| | forge | plain TRL | forge against TRL | must be |",
            "|---|---|---|---|---|",
            f"| largest difference of a step's loss | | | {found['loss_difference']:.1e} | ≤ 1e-6 |",
            f"| loss, first step | {first:.9f} | {first_trl:.9f} | {first - first_trl:.1e} | |",
            f"| loss, last step | {last:.9f} | {last_trl:.9f} | {last - last_trl:.1e} | |",
            f"| largest difference of a gradient norm | | | {found['gradient_difference']:.1e} | |",
            f"| trained weights | | | {'identical' if found['weights_equal'] else 'not identical'} | |",
            f"| tokens/s, median of {len(pairs)} | {speed} | ≥ 0.95 |",
            f"| tokens/s, each pair | | | {each} | |",
            f"| processor time, whole run | {ours['cpu']:.1f} s | {theirs['cpu']:.1f} s | {found['cpu_ratio']:.3f} | |",
            f"| peak memory in training | {memory('peak')} | ≤ +50 MB |",
            f"| peak memory up to step 1 | {memory('peak_first_step')} | |",
            f"| peak memory with saving | {memory('peak_whole')} | |",
            "",
            f"**{'; '.join(found['failures']) or 'forge is level with plain TRL'}{doubt}**",
        ]
    )


def busy_seconds() -> float | None:
    """Return the processor seconds that all programs of the machine have used, or None where nothing counts them."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    user, nice, system = (int(word) for word in path.read_text(encoding="ascii").split()[1:4])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def shown(folder: Path) -> str:
    """Return a folder's path as a reader knows it."""
    return str(folder.relative_to(HERE.parent)) if folder.is_relative_to(HERE.parent) else str(folder)


def main() -> int:
    """Run the pairs and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--model", type=Path, default=QUICKSTART / "model", help="folder of the model")
    model.add_argument("--tiny", action="store_true", help="a random tiny model instead: seconds, and no fair timing")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--dropout", type=float, default=0.05, help="LoRA dropout")
    parser.add_argument("--full", action="store_true", help="train every weight instead of LoRA")
    parser.add_argument("--probe", action=argparse.BooleanOptionalAction, default=True, help="forge's [train] probe")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of both sides")
    parser.add_argument("--out", type=Path, default=None, help="folder for parity.json, parity.md and all runs")
    options = parser.parse_args()
    if options.steps < 2 or options.pairs < 1:
        parser.error("--steps must be at least 2 (the first is not timed), and --pairs 1")
    if not options.tiny and not (options.model / "config.json").exists():
        parser.error(f"{options.model} has no model; make it with: python {QUICKSTART / 'prepare.py'}")

    work = Path(tempfile.mkdtemp(prefix="trl-parity-"))
    out = options.out or work
    out.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(options.threads),
        "TOKENIZERS_PARALLELISM": "true",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONUNBUFFERED": "1",
    }
    folder = tiny_model(work / "model", environment) if options.tiny else options.model.resolve()
    rows = work / "rows.jsonl"
    write_rows(rows, 1000)
    busy = busy_seconds()
    kind = "every weight" if options.full else f"LoRA r 16, dropout {options.dropout:g}"
    about: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/trl_parity.py", *sys.argv[1:]]),
        "what": f"{'a random tiny model' if options.tiny else shown(folder)}, {kind}, float32 on {platform.machine()}, "
        f"{options.steps} steps of {options.batch} rows, probe {'on' if options.probe else 'off'}",
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "threads": options.threads,
    }
    pairs: list[dict[str, Any]] = []
    for number in range(1, options.pairs + 1):
        pair: dict[str, Any] = {}
        sides = [("forge", run_forge), ("trl", run_trl)]
        for name, run in sides if number % 2 else reversed(sides):
            place = work / f"{number}-{name}"
            place.mkdir()
            pair[name] = run(place, folder, rows, options, environment)
            figures = f"{pair[name]['tokens_per_second']:,.1f} tokens/s, {pair[name]['peak'] / 1e6:,.0f} MB"
            print(
                f"pair {number} of {options.pairs}: {name:5} {figures}, last loss {pair[name]['losses'][-1]:.9f}",
                flush=True,
            )
        pair["weights_equal"] = weights_equal(Path(pair["forge"]["weights"]), Path(pair["trl"]["weights"]))
        pairs.append(pair)
        ours = sum(pair[name]["cpu"] for pair in pairs for name, _ in sides)
        now = busy_seconds()
        about["others"] = None if busy is None or now is None else max(0.0, 1 - ours / (now - busy))
        # After each pair: what an interrupted run has found is not lost.
        found = compare(pairs)
        text = table(found, about, pairs)
        result = json.dumps({**found, "about": about, "pairs": pairs}, indent=1)
        (out / "parity.json").write_text(result, encoding="utf-8")
        (out / "parity.md").write_text(text + "\n", encoding="utf-8")
    print(f"\n{text}\n\n{out / 'parity.json'}, {out / 'parity.md'}")
    if options.out:
        shutil.rmtree(work)
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""Two GPUs of one machine: the same training as one, its speed and memory, and what a killed process does to it.

    python benchmarks/gpu_ranks.py --parts same kill 1b 8b 8b-4bit full-8b [--rounds 2] [--out FOLDER] [--work FOLDER]

Needs two NVIDIA GPUs and what ``gpu.py`` needs. Random weights in real shapes; every run is a process tree of its own.

- ``same``: jobs of a small model in one process and in two, several jobs at a time: losses side by side.
- ``kill``: a process of two is killed with SIGKILL in the middle of a step: how long until the command has ended, what
  it says, whether anything is left, and whether ``forge resume`` goes on. Beside it, which GPU each process had.
- ``1b``, ``8b``, ``8b-4bit``: LoRA on rows of 2048 tokens as forge takes them, on one GPU and on two, in turn.
- ``full-8b``: every weight of 8B, sharded, forge's and TRL's plain script by torchrun with Liger.

Tokens a second are those of all GPUs: the tokens of a step over the median time of a step behind the warm ones.
``ranks.json`` holds all that was found.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w
from gpu_jobs import FULL, HF, ONLINE, UNSLOTH, Tables, method, train
from gpu_methods import write_rows
from rig.compare import decided
from rig.forge import events, failure, forge, job
from rig.models import LENGTH, RATE, SEED, build, make_rows
from rig.rounds import send, tree
from rig.runs import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PARTS = ("same", "kill", "1b", "8b", "8b-4bit", "full-8b")
SHARDED: Tables = {"launch": {"shard": "full"}}
FOUR: Tables = {"model": {"load_in_4bit": True}}
SAME: Mapping[str, tuple[Tables, ...]] = {
    "sft": (HF,),
    "sft, every weight": (HF, FULL),
    "sft, every weight, FSDP2": (HF, FULL, SHARDED),
    "sft, FSDP2": (HF, SHARDED),
    "sft, packed": (HF, {"data": {"packing": True}}),
    "sft, 4 bit": (HF, FOUR),
    "sft, 4 bit, FSDP2": (HF, FOUR, SHARDED),
    "sft, Unsloth": (UNSLOTH,),
    "sft, held-out rows": (HF, {"data": {"eval_size": 16}}, train(eval_strategy="steps", eval_steps=3)),
    "dpo": (HF, method("dpo")),
    "dpo, FSDP2": (HF, method("dpo"), SHARDED),
    "dpo, Unsloth": (UNSLOTH, method("dpo")),
    "kto": (HF, method("kto")),
    "reward": (HF, method("reward")),
    "grpo": (HF, method("grpo", **ONLINE)),
    "sdpo": (HF, method("sdpo", **ONLINE)),
}
"""Jobs of the part ``same``, over the defaults of :func:`rig.forge.job` and two batches a step."""

SPEED: Mapping[str, Mapping[str, Any]] = {
    "1b": {"shape": "1b", "bits": 16, "batch": 4, "steps": 14, "warm": 4},
    "8b": {"shape": "8b", "bits": 16, "batch": 2, "steps": 8, "warm": 2},
    "8b-4bit": {"shape": "8b", "bits": 4, "batch": 2, "steps": 8, "warm": 2},
}
LOG = 5
"""Steps between two logs of what is timed; a log waits for the GPUs."""

ACCUMULATION = 2
"""Batches of a step: both on one GPU, or one on each of two."""

FULL_SIDES = ("forge", "forge-again", "trl")
"""Sides of the part ``full-8b``; the second makes all layers again in the backward pass, as TRL's script does."""

FULL_8B: Mapping[str, int] = {"batch": 2, "steps": 10, "warm": 4}


def losses(place: Path) -> list[float]:
    """Return the losses of the newest run below a folder."""
    return [step["loss"] for step in events(place, "step") if step.get("loss") is not None]


def one_and_two(name: str, tables: tuple[Tables, ...], work: Path, model: Path) -> dict[str, Any]:
    """Train a small job in one process and in two."""
    found: dict[str, Any] = {"job": name}
    for count in (1, 2):
        place = work / f"{''.join(c if c.isalnum() else '-' for c in name)}-{count}"
        merged: Tables = {}
        few = train(max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=ACCUMULATION)
        for each in (few, *tables, {"launch": {"processes": count}}):
            for key, values in each.items():
                merged[key] = {**merged.get(key, {}), **values}
        if count == 1:
            merged["launch"].pop("shard", None)
        data = merged.setdefault("data", {})
        data["path"] = str(work / data.get("path", "chat.jsonl"))
        job(place, model, Path(data["path"]), merged.pop("use")["backend"], **merged)
        code = forge("run", "job.toml", folder=place).returncode
        found[str(count)] = {"code": code, "losses": losses(place), "error": failure(place) if code else None}
        trainer = next(iter(events(place, "trainer")), {})
        found[str(count)] |= {"trainer": trainer.get("trainer"), "kernels": trainer.get("kernels")}
        found[str(count)]["eval"] = [each.get("eval_loss") for each in events(place, "eval")]
    apart = [abs(a - b) for a, b in zip(found["1"]["losses"], found["2"]["losses"], strict=False)]
    found["apart"] = max(apart) if apart else None
    print(json.dumps(found), flush=True)
    return found


def workers(process: subprocess.Popen[Any]) -> dict[int, int]:
    """Return the workers that a command has started, by their rank."""
    found: dict[int, int] = {}
    for pid in tree(process.pid):
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        ranks = [each.partition(b"=")[2] for each in environ if each.startswith(b"RANK=")]
        if ranks and b"forge.worker" in command:
            found.setdefault(int(ranks[0]), pid)
    return found


def killed(work: Path, model: Path) -> dict[str, Any]:
    """Kill process 1 of 2 between two steps of a long training, and go on from its checkpoint."""
    place = work / "kill"
    options = {"max_steps": 4000, "per_device_train_batch_size": 2, "gradient_accumulation_steps": ACCUMULATION}
    saving = {"save_strategy": "steps", "save_steps": 5}
    launch = {"processes": 2}
    job(place, model, work / "chat.jsonl", "huggingface", train={**options, **saving}, launch=launch)
    process = forge("run", "job.toml", folder=place, wait=False)
    end = time.time() + 150
    while len(events(place, "step")) < 12 and process.poll() is None and time.time() < end:
        time.sleep(0.02)
    every, pids = tree(process.pid), workers(process)
    query = ["nvidia-smi", "--query-compute-apps=pid,gpu_uuid,used_memory", "--format=csv,noheader"]
    cards = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split("\n")
    if process.poll() is None:
        os.kill(pids[1], signal.SIGKILL)
    began = time.time()
    process.wait()
    seconds = time.time() - began
    time.sleep(0.3)
    left = [pid for pid in every if _alive(pid)]
    found: dict[str, Any] = {"seconds": round(seconds, 2), "code": process.returncode, "left": left, "pids": pids}
    found["cards"] = [line for line in cards if any(line.startswith(f"{pid},") for pid in pids.values())] or cards
    found["said"] = (place / "forge.txt").read_text(encoding="utf-8")[-700:]
    (folder,) = place.glob("runs/*/*/events.jsonl")
    before = len(losses(place))
    again = forge("resume", str(folder.parent), folder=place, wait=False)
    while len(losses(place)) < before + 3 and again.poll() is None and time.time() < end + 60:
        time.sleep(0.05)
    found["went_on"] = len(losses(place)) - before
    found["resumed"] = [event.get("step") for event in events(place, "step")][before : before + 3]
    send(again, signal.SIGKILL)
    again.wait()
    print(json.dumps(found), flush=True)
    return found


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pace(steps: list[dict[str, Any]], warm: int, tokens: int, began: float) -> dict[str, Any]:
    """Return tokens a second, memory, start-up and losses of the steps that were logged."""
    times = [step["time"] for step in steps][warm - 1 :]
    found: dict[str, Any] = {"losses": [step["loss"] for step in steps][:: max(1, len(steps) // 4)]}
    if len(times) > 1:
        numbers = [step["step"] for step in steps][warm - 1 :]
        gaps = zip(itertools.pairwise(times), itertools.pairwise(numbers), strict=True)
        each = [(later - now) / (after - before) for (now, later), (before, after) in gaps]
        found["tokens_per_second"] = round(tokens / statistics.median(each))
    if steps:
        found["start"] = round(steps[0]["time"] - began, 1)
        found["peak_gib"] = round(max(step["memory"] for step in steps) / 2**30, 2)
    return found


def alone(process: subprocess.Popen[Any], count: int, steps: Callable[[], list[dict[str, Any]]], limit: float) -> None:
    """Let a run make so many steps, then end it and all that it has started."""
    end = time.time() + limit
    while len(steps()) < count and process.poll() is None and time.time() < end:
        time.sleep(0.05)
    send(process, signal.SIGKILL)
    process.wait()


def speed(part: str, work: Path, models: Path, rounds: int) -> list[dict[str, Any]]:
    """Train on one GPU and on two, in turn; each run ends once its steps are counted."""
    setting, found = SPEED[part], []
    tokens = setting["batch"] * ACCUMULATION * LENGTH
    for number in range(rounds):
        for count in (1, 2) if number % 2 == 0 else (2, 1):
            place = work / f"{part}-{number}-{count}"
            place.mkdir()
            options = {"max_steps": 500, "per_device_train_batch_size": setting["batch"]}
            options |= {"gradient_accumulation_steps": ACCUMULATION, "logging_steps": LOG, "save_strategy": "no"}
            bits = {"load_in_4bit": True} if setting["bits"] == 4 else {}
            tables = {
                "model": {"id": str(models / setting["shape"]), "max_seq_length": LENGTH, **bits},
                "data": {"path": str(work / "full.jsonl")},
                "train": options,
                "launch": {"processes": count},
                "use": {"backend": "huggingface"},
            }
            (place / "job.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
            began = time.time()
            process = forge("run", "job.toml", folder=place, wait=False)
            alone(process, setting["steps"], partial(events, place, "step"), 120)
            entry = {"part": part, "round": number, "gpus": count}
            entry |= pace(events(place, "step"), setting["warm"], tokens, began)
            entry["seconds"] = round(time.time() - began, 1)
            if len(events(place, "step")) < setting["steps"]:
                entry["error"] = failure(place)
            print(json.dumps(entry), flush=True)
            found.append({**entry, "decided": decided(place)})
    return found


def full(work: Path, models: Path, only: list[str]) -> list[dict[str, Any]]:
    """Train every weight of 8B on two GPUs: forge as it comes, with checkpointing, and TRL's plain script."""
    found, tokens = [], 2 * FULL_8B["batch"] * LENGTH
    options = {
        "max_steps": 100, "per_device_train_batch_size": FULL_8B["batch"], "learning_rate": 1e-5, "logging_steps": 1,
        "save_strategy": "no", "seed": SEED,
    }  # fmt: skip
    for side in [side for side in FULL_SIDES if not only or side in only]:
        place = work / f"full-{side}"
        place.mkdir()
        began = time.time()
        process: subprocess.Popen[Any]
        read: Callable[[], list[dict[str, Any]]]
        if side != "trl":
            again = {"gradient_checkpointing": True} if side == "forge-again" else {}
            tables = {
                "model": {"id": str(models / "8b"), "max_seq_length": LENGTH},
                "adapter": {"type": "none"},
                "data": {"path": str(work / "full.jsonl")},
                "train": {**options, **again, "gradient_accumulation_steps": 2},
                "launch": {"processes": 2},
            }
            (place / "job.toml").write_text(tomli_w.dumps(tables), encoding="utf-8")
            process = forge("run", "job.toml", folder=place, wait=False)
            read = partial(events, place, "step")
        else:
            setting = {"model": str(models / "8b"), "rows": str(work / "full.jsonl"), "out": str(place / "steps.jsonl")}
            (place / "setting.json").write_text(json.dumps({**setting, "arguments": options}), encoding="utf-8")
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            with (place / "forge.txt").open("w", encoding="utf-8") as file:
                process = subprocess.Popen(
                    [*command, __file__, "plain", str(place / "setting.json")], stdout=file, stderr=subprocess.STDOUT
                )
            read = partial(lines, place / "steps.jsonl")
        alone(process, FULL_8B["steps"], read, 170)
        entry = {"part": "full-8b", "side": side, **pace(read(), FULL_8B["warm"], tokens, began)}
        if len(read()) < FULL_8B["steps"]:
            entry["error"] = (place / "forge.txt").read_text(encoding="utf-8")[-1500:]
        print(json.dumps(entry), flush=True)
        found.append({**entry, "decided": decided(place)})
    return found


def plain(setting: Path) -> None:
    """Train every weight as TRL's documentation shows it for FSDP2, with Liger's loss; started by torchrun."""
    import torch
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    tokenizer: Any = AutoTokenizer
    asked = json.loads(setting.read_text(encoding="utf-8"))

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if "loss" in logs and state.is_world_process_zero:
                memory = torch.cuda.max_memory_allocated()
                step = {"step": state.global_step, "time": time.time(), "loss": logs["loss"], "memory": memory}
                with Path(asked["out"]).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(step) + "\n")

    config = SFTConfig(
        output_dir=f"{asked['out']}.checkpoints",
        **asked["arguments"],
        bf16=True,
        report_to="none",
        max_length=LENGTH,
        lr_scheduler_type="constant",
        gradient_checkpointing=True,
        use_liger_kernel=True,
        loss_type="nll",
        fsdp="full_shard auto_wrap",
        fsdp_config={"version": 2},
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.bfloat16),
        args=config,
        train_dataset=load_dataset("json", data_files=asked["rows"], split="train", cache_dir=f"{asked['out']}.cache"),
        processing_class=tokenizer.from_pretrained(asked["model"]),
        callbacks=[Clock()],
    )
    trainer.train()


def main() -> int:
    """Run the parts and write what was found."""
    if sys.argv[1:2] == ["plain"]:
        plain(Path(sys.argv[2]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--only", nargs="+", default=[], help="jobs of the part same, sides of full-8b")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of what is timed")
    parser.add_argument("--at-once", type=int, default=6, help="jobs side by side where nothing is timed")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    parser.add_argument("--work", type=Path, default=None)
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="gpu-ranks-"))
    models = work / "models"
    for folder in (work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    make_rows(work)
    found: dict[str, Any] = {"rate": RATE}
    for part in options.parts:
        began = time.time()
        if part in {"same", "kill"}:
            model = build(models, "small")
            write_rows(work, 20, 30)
        if part == "same":
            chosen = {name: tables for name, tables in SAME.items() if not options.only or name in options.only}
            with ThreadPoolExecutor(options.at_once) as pool:
                each = [pool.submit(one_and_two, name, tables, work, model) for name, tables in chosen.items()]
                found[part] = [future.result() for future in each]
        elif part == "kill":
            found[part] = killed(work, model)
        elif part in SPEED:
            build(models, str(SPEED[part]["shape"]))
            found[part] = speed(part, work, models, options.rounds)
        else:
            build(models, "8b")
            found[part] = full(work, models, options.only)
        found.setdefault("seconds", {})[part] = round(time.time() - began, 1)
        (options.out / "ranks.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(found["seconds"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""forge against plain scripts on one GPU, with Unsloth and without: speed, memory, losses, resume, merged weights.

    python benchmarks/gpu.py --parts 1b 8b small [--out FOLDER] [--work FOLDER]

Needs one NVIDIA GPU, forge with its extras ``huggingface`` and ``unsloth``, and no network: models are random weights
in real shapes, with a tokenizer made on the spot. Every run is a process of its own, one after another.

- ``1b``, ``8b``: LoRA r 16 on all seven projections, every row fills 2048 tokens, gradient checkpointing, 16 bit and 4
  bit, four sides: Unsloth's plain script, forge on Unsloth, TRL's plain script, forge on huggingface.
- ``small``: what needs no timing, on a small model, several at once: the same job on both backends for each key of
  ``[adapter]`` and each way to load; resume after SIGKILL; the merged model against the adapter's.
- ``families``: other architectures on both backends, in 16 and in 4 bit.

``--only`` takes some of what the parts hold: names of variants, of families, of sides (``4-forge-huggingface``), and
``resume`` and ``merged`` of the part ``small``.

Tokens a second: the tokens of a step over the median time of a step, averaged over windows of five steps, after the
warm ones. Memory: the most that torch held (``torch.cuda.max_memory_allocated``). Start-up: from the start of the
process to the end of step 1. ``results.json`` and ``table.md`` hold the result.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "small": {"hidden": 512, "inner": 1536, "layers": 6, "heads": 8, "kv": 4, "vocab": 8192, "tied": False},
    "1b": {"hidden": 2048, "inner": 8192, "layers": 16, "heads": 32, "kv": 8, "vocab": 128256, "tied": True},
    "8b": {"hidden": 4096, "inner": 14336, "layers": 32, "heads": 32, "kv": 8, "vocab": 128256, "tied": False},
}
TIMED: Mapping[str, Mapping[str, int]] = {
    "1b": {"batch": 4, "steps": 50, "warm": 10},
    "8b": {"batch": 2, "steps": 50, "warm": 6},
    "small": {"batch": 4, "steps": 12, "warm": 4},
}
LENGTH, RATE, SEED, WINDOW = 2048, 2e-4, 42, 5
SIDES = ("unsloth", "forge-unsloth", "trl", "forge-huggingface")
LIBRARIES = ("forge-train", "unsloth", "torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 64}),
    "mistral": ("Mistral", {"head_dim": 64, "sliding_window": None}),
    "gemma2": ("Gemma2", {"head_dim": 64}),
    "phi3": ("Phi3", {"original_max_position_embeddings": 4096}),
    "granite": ("Granite", {}),
    "olmo2": ("Olmo2", {}),
    "gemma3_text": ("Gemma3", {"head_dim": 64}),
    "gemma": ("Gemma", {"head_dim": 64}),
    "smollm3": ("SmolLM3", {}),
}


# Models and rows.


def words(rng: random.Random, count: int) -> list[str]:
    """Return random words of a small vocabulary."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 9))) for _ in range(3000)]
    return [rng.choice(known) for _ in range(count)]


def make_tokenizer(folder: Path) -> Any:
    """Train a byte-level BPE tokenizer and write it into ``folder``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng, special = random.Random(0), ["<pad>", "<s>", "<|im_start|>", "<|im_end|>"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    inner.train_from_iterator([" ".join(words(rng, 200)) for _ in range(150)] + ["user assistant system"] * 50, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="<|im_end|>",
        pad_token="<pad>",
        additional_special_tokens=["<|im_start|>"],
        model_max_length=8192,
    )
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_model(folder: Path, shape: str, family: str | None = None) -> None:
    """Write random weights, bf16, and a tokenizer."""
    import torch
    import transformers

    tokenizer, size = make_tokenizer(folder), SHAPES[shape]
    name, extra = FAMILIES[family] if family else ("Llama", {"head_dim": size["hidden"] // size["heads"]})
    suffix = "TextConfig" if family == "gemma3_text" else "Config"
    config = getattr(transformers, name + suffix)(
        vocab_size=size["vocab"],
        hidden_size=size["hidden"],
        intermediate_size=size["inner"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["kv"],
        max_position_embeddings=8192,
        tie_word_embeddings=size["tied"],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **extra,
    )
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = getattr(transformers, f"{name}ForCausalLM")(config)
    torch.set_default_dtype(torch.float32)
    model.to(torch.bfloat16).save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()) / 1e9:.3f} G parameters", flush=True)


def make_rows(folder: Path) -> None:
    """Write ``full.jsonl``, whose rows fill 2048 tokens, and ``chat.jsonl``, whose rows are of all lengths."""
    rng = random.Random(1)
    with (folder / "full.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(256):
            file.write(json.dumps({"text": " ".join(words(rng, LENGTH))}) + "\n")
    with (folder / "chat.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(128):
            said = [" ".join(words(rng, rng.randint(5, 120))) for _ in range(4)]
            roles = ("user", "assistant", "user", "assistant")
            messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
            file.write(json.dumps({"messages": messages}) + "\n")


# The plain scripts: what a user of Unsloth or TRL would write. Run in processes of their own.


def plain(side: str, bits: int, model: str, rows: str, part: str, out: str) -> None:
    """Train as Unsloth's or TRL's documentation shows, and write what was measured to ``out``."""
    began = time.time()
    unsloth = side == "unsloth"
    if unsloth:
        from unsloth import FastLanguageModel
    import torch
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    setting = TIMED[part]
    lora: dict[str, Any] = {"r": 16, "lora_alpha": 16, "lora_dropout": 0.0, "bias": "none"}
    if unsloth:
        network, tokenizer = FastLanguageModel.from_pretrained(
            model, max_seq_length=LENGTH, load_in_4bit=bits == 4, load_in_16bit=bits == 16, local_files_only=True
        )
        network = FastLanguageModel.get_peft_model(
            network,
            **lora,
            target_modules=PROJECTIONS,
            use_gradient_checkpointing="unsloth",
            random_state=SEED,
        )
        config = None
    else:
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=torch.bfloat16,
            device_map={"": 0},
            attn_implementation="sdpa",
            quantization_config=quantization if bits == 4 else None,
        )
        config = LoraConfig(**lora, target_modules=PROJECTIONS, task_type="CAUSAL_LM")
    arguments = SFTConfig(
        output_dir=f"{out}.checkpoints",
        per_device_train_batch_size=setting["batch"],
        gradient_accumulation_steps=1,
        max_steps=setting["steps"],
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        optim="adamw_torch_fused",
        logging_steps=1,
        bf16=True,
        report_to="none",
        save_strategy="no",
        seed=SEED,
        max_length=LENGTH,
        gradient_checkpointing=True,
    )
    steps: list[dict[str, Any]] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if "loss" in logs:
                memory = torch.cuda.max_memory_allocated()
                steps.append({"step": state.global_step, "time": time.time(), "loss": logs["loss"], "memory": memory})

    trainer = SFTTrainer(
        model=network,
        args=arguments,
        train_dataset=load_dataset("json", data_files=rows, split="train", cache_dir=f"{out}.cache"),
        processing_class=tokenizer,
        peft_config=config,
        callbacks=[Clock()],
    )
    trainer.train()
    Path(out).write_text(json.dumps({"began": began, "steps": steps}), encoding="utf-8")


# forge.


def job(folder: Path, base: Path, rows: Path, backend: str, **changes: Mapping[str, Any]) -> Path:
    """Write a job file for the benchmark's training."""
    tables: dict[str, Any] = {
        "model": {"id": str(base), "max_seq_length": LENGTH},
        "adapter": {"r": 16, "lora_alpha": 16, "target_modules": PROJECTIONS},
        "data": {"path": str(rows)},
        "train": {
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "seed": SEED,
            "gradient_checkpointing": True,
        },
        "use": {"backend": backend},
    }
    for name, table in changes.items():
        tables[name] = table if isinstance(table, list) else {**tables.get(name, {}), **table}
        if isinstance(tables[name], dict):
            tables[name] = {key: value for key, value in tables[name].items() if value is not None}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return path


def forge(*arguments: str, folder: Path, wait: bool = True) -> subprocess.Popen[str]:
    """Start ``forge`` in a folder; its output goes to ``forge.txt`` there."""
    with (folder / "forge.txt").open("a", encoding="utf-8") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "forge", *arguments], cwd=folder, stdout=file, stderr=subprocess.STDOUT, text=True
        )
    if wait:
        process.wait()
    return process


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return the events of a kind of the newest run below a folder."""
    paths = sorted(folder.glob("runs/*/*/events.jsonl"))
    lines = paths[-1].read_text(encoding="utf-8").splitlines() if paths else []
    # The last line may still be being written.
    return [event for event in (json.loads(line) for line in lines if line.endswith("}")) if event["kind"] == kind]


def failure(folder: Path) -> str | None:
    """Return why the newest run below a folder failed, or None."""
    failed = events(folder, "failed")
    if failed:
        return ": ".join(str(failed[-1]["error"][key]) for key in ("what", "why"))
    return None if events(folder, "done") else (folder / "forge.txt").read_text(encoding="utf-8")[-2000:]


# The parts.


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
            out = place / "result.json"
            command = [sys.executable, __file__, "plain", side, str(bits), str(models / part)]
            command += [str(work / "full.jsonl"), part, str(out)]
            with (place / "log.txt").open("w", encoding="utf-8") as file:
                process = subprocess.run(command, cwd=place, stdout=file, stderr=subprocess.STDOUT, check=False)
            steps = json.loads(out.read_text(encoding="utf-8"))["steps"] if out.exists() else []
            if process.returncode:
                entry["error"] = (place / "log.txt").read_text(encoding="utf-8")[-2000:]
        entry |= measures(steps, began, setting) | {"seconds": round(time.time() - began, 1)}
        print(json.dumps({k: v for k, v in entry.items() if k not in {"losses", "data", "trainer"}}), flush=True)
        yield entry


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


# The report.


def heading(about: Mapping[str, Any]) -> list[str]:
    """Return what every table begins with: the command, and on what it ran."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    return [f"`{about['command']}`", "", f"{about['gpu']}; {versions}; Python {about['python']}; {about['date']}"]


def table(results: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = heading(results["about"])
    runs = {(run["part"], run["bits"], run["side"]): run for run in results.get("timed", [])}
    if runs:
        lines += ["", "| model, batch | side | tokens/s | against plain | peak GiB | start-up s | loss 1 | last loss |"]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for (part, bits, side), run in runs.items():
            if "tokens_per_second" not in run:
                lines.append(f"| {part}, {bits} bit | {side} | failed | | | | | |")
                continue
            base = runs.get((part, bits, {"forge-unsloth": "unsloth", "forge-huggingface": "trl"}.get(side, "")))
            ratio = ""
            if base and "tokens_per_second" in base:
                ratio = f"{run['tokens_per_second'] / base['tokens_per_second']:.3f}"
            lines.append(
                f"| {part}, {TIMED[part]['batch']} x {LENGTH}, {bits} bit | {side} | {run['tokens_per_second']:,} | "
                f"{ratio} | {run['peak_gib']:.2f} | {run['startup']:.1f} | {run['losses'][0]:.4f} | "
                f"{run['losses'][-1]:.4f} |"
            )
        lines += parity(runs)
    for name in ("variants", "families"):
        if results.get(name):
            lines += ["", f"| {name} | trained | rows | first loss, rel. | mean | max | fall | held out |"]
            lines += ["|---|---|---|---|---|---|---|---|"]
            lines += [_row(entry) for entry in results[name]]
    for name in ("resume", "merged"):
        if results.get(name):
            lines += ["", f"{name}: `{json.dumps(results[name])}`"]
    return "\n".join(lines) + "\n"


def parity(runs: Mapping[tuple[str, int, str], Mapping[str, Any]]) -> list[str]:
    """Return the lines that compare forge's two backends with each other."""
    lines = ["", "| forge on Unsloth against forge on huggingface | rows | first loss, rel. | mean | max | steps |"]
    lines += ["|---|---|---|---|---|---|"]
    for part, bits in dict.fromkeys((part, bits) for part, bits, _ in runs):
        sides = [runs.get((part, bits, f"forge-{name}")) for name in ("unsloth", "huggingface")]
        if not all(side and side.get("data") for side in sides):
            continue
        ours, theirs = (dict(side or {}) for side in sides)
        found = difference(ours, theirs)
        if found:
            rows = "same digest" if found["same_digest"] else "OTHERS"
            lines.append(
                f"| {part}, {bits} bit | {rows} | {found['first']:.1e} | {found['mean']:.4f} | {found['max']:.4f} | "
                f"{found['steps'][0]} |"
            )
    return lines


def _row(entry: Mapping[str, Any]) -> str:
    if "mean" not in entry:
        return f"| {entry['variant']} | failed: {str(entry['error'])[:200]} | | | | | | |"
    ours, theirs = entry["trainable"]
    count = f"{ours:,}" if ours == theirs else f"{ours:,} / {theirs:,}"
    rows = "same" if entry["same_digest"] else "OTHERS"
    held = f"{entry['eval_max']:.4f}" if "eval_max" in entry else ""
    numbers = f"{entry['first']:.1e} | {entry['mean']:.4f} | {entry['max']:.4f} | {entry['fall']:.2f} | {held}"
    return f"| {entry['variant']} | {count} | {rows} | {numbers} |"


def about() -> dict[str, Any]:
    """Say what this was measured with."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    gpu = "no GPU"
    with contextlib.suppress(OSError):
        gpu = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip() or gpu
    return {
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "gpu": gpu,
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "python": sys.version.split()[0],
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def build(models: Path, name: str, family: str | None = None) -> Path:
    """Make a model in a process of its own, so that this one holds no GPU memory."""
    folder = models / (family or name)
    if not (folder / "config.json").exists():
        command = [sys.executable, __file__, "model", str(folder), name, *([family] if family else [])]
        subprocess.run(command, check=True)
    return folder


def main() -> int:
    """Run the parts and write the results."""
    if sys.argv[1:2] == ["plain"]:
        side, bits, *rest = sys.argv[2:]
        plain(side, int(bits), *rest)
        return 0
    if sys.argv[1:2] == ["model"]:
        make_model(Path(sys.argv[2]), sys.argv[3], *sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["1b", "8b", "small", "families", "smoke"]
    parser.add_argument("--parts", nargs="+", default=["1b", "8b", "small"], choices=names)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    parser.add_argument("--work", type=Path, default=Path("/tmp/forge-gpu"))
    parser.add_argument("--only", nargs="+", default=[], help="only these variants, families or sides")
    parser.add_argument("--at-once", type=int, default=6, help="runs side by side where nothing is timed")
    options = parser.parse_args()
    work, models = options.work / time.strftime("%H%M%S"), options.work / "models"
    work.mkdir(parents=True)
    models.mkdir(exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    make_rows(work)
    results: dict[str, Any] = {"about": about()}

    def keep() -> None:
        (options.out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (options.out / "table.md").write_text(table(results), encoding="utf-8")

    for part in options.parts:
        began = time.time()
        if part in {"1b", "8b", "smoke"}:
            shape = "small" if part == "smoke" else part
            build(models, shape)
            for entry in timed(shape, work, models, options.only):
                results.setdefault("timed", []).append(entry)
                keep()
        elif part == "small":
            model = build(models, "small")
            wanted = options.only or [*VARIANTS, "resume", "merged"]
            with ThreadPoolExecutor(3) as pool:
                killed = pool.submit(resume, work, model) if "resume" in wanted else None
                exports = [pool.submit(merged, work, model, bits) for bits in (16, 4) if "merged" in wanted]
                names = [name for name in VARIANTS if name in wanted]
                results["variants"] = both(work, lambda _, small=model: small, names, options.at_once)
                results["resume"] = killed.result() if killed else None
                results["merged"] = [each.result() for each in exports]
        elif part == "families":
            families = [name for name in FAMILIES if name in (options.only or FAMILIES)]
            with ThreadPoolExecutor(options.at_once) as pool:
                list(pool.map(lambda family: build(models, "small", family), families))
            names = [f"{family}, {mode}" for family in families for mode in ("16 bit", "4 bit")]
            results["families"] = both(work, lambda name: models / name.partition(", ")[0], names, options.at_once)
        results.setdefault("seconds", {})[part] = round(time.time() - began, 1)
        keep()
    print((options.out / "table.md").read_text(encoding="utf-8"), results["seconds"])
    return 0


if __name__ == "__main__":
    sys.exit(main())

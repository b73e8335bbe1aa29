"""Rows of unequal length on a GPU: are the gradients right, does a step wait, and how many real tokens a second are it.

    python benchmarks/ragged.py                 all three, a random Llama of 1B shape
    python benchmarks/ragged.py --layers 2 --hidden 256 --vocab 1000 --rows 16 --rounds 1
                                                a small one, to see that it runs; on a CPU too, but for the kernel

It calls the parts alone, without a job: attention, batches, a plain loop. ``benchmarks/gpu.py`` measures whole runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from forge_huggingface.batches.tokens import COUNT, TokenCollator
from forge_huggingface.data.packing import joined, pack
from forge_huggingface.kernels import attention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def rows_of(count: int, shortest: int, longest: int, vocab: int) -> list[dict[str, Any]]:
    """Return rows of random tokens and lengths."""
    rng = np.random.default_rng(0)
    made = (rng.integers(3, vocab, rng.integers(shortest, longest + 1)).tolist() for _ in range(count))
    return [{"input_ids": ids, "labels": ids} for ids in made]


def exactness() -> None:
    """Compare the kernel's results and gradients, and those of plain attention in 16 bit, with float32 row by row."""
    torch.manual_seed(0)
    for window, heads in ((None, 8), (None, 32), (256, 8)):
        lengths = [30, 1999, 512, 1, 733, 64]
        starts = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
        shapes = ((32, 64), (heads, 64), (heads, 64))
        exact = [torch.randn(sum(lengths), *shape, device=DEVICE) for shape in shapes]
        weight = torch.randn(sum(lengths), 32, 64, device=DEVICE)

        def run(kernel: Any, dtype: torch.dtype) -> list[torch.Tensor]:
            inputs = [each.detach().to(dtype, copy=True).requires_grad_() for each in exact]  # noqa: B023
            found = kernel(*inputs, starts.to(DEVICE), max(lengths), None, window)  # noqa: B023
            (found.float() * weight).sum().backward()  # noqa: B023
            return [found.detach().float(), *(each.grad.float() for each in inputs)]

        exact = [each.bfloat16().float() for each in exact]
        wanted = run(attention.row_by_row, torch.float32)
        for name, kernel in (("kernel", attention.by_kernel), ("row by row", attention.row_by_row)):
            if kernel is attention.by_kernel and DEVICE == "cpu":
                continue
            found = run(kernel, torch.bfloat16)
            errors = [float((one - other).norm() / other.norm()) for one, other in zip(found, wanted, strict=True)]
            print(f"window {window}, {heads} heads of keys, {name} in bfloat16:", *(f"{each:.2e}" for each in errors))


def model_of(layers: int, hidden: int, name: str, vocab: int) -> Any:
    """Return a random Llama of 1B shape with LoRA."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    attention.register()
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 256),
        head_dim=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=name, dtype=torch.bfloat16)
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear")).train()


def step_of(model: Any, optimizer: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Take a step without asking the device for anything."""
    inputs = {
        name: value.pin_memory().to(DEVICE, non_blocking=True) if torch.is_tensor(value) and DEVICE == "cuda" else value
        for name, value in batch.items()
        if name not in {COUNT, "labels"}
    }
    hidden = model.get_base_model().model(**inputs, use_cache=False).last_hidden_state
    hidden.float().square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return hidden


def speed(given: argparse.Namespace) -> None:
    """Time the decoder, forward and backward, on padded, padding-free and packed batches in turn, and count waits."""
    rows = rows_of(given.rows, 30, 2000, given.vocab)
    packs = [joined([rows[index] for index in chosen]) for chosen in pack([len(r["input_ids"]) for r in rows], 8192)]
    plain = TokenCollator(0, rounded=True, counted=True)
    bounded = replace(plain, boundaries=True, mask=attention.KNOWN_HERE)
    forms = {
        "padded, sdpa": ("sdpa", plain, rows, given.batch),
        "end to end, sdpa": ("sdpa", replace(plain, flat=True), rows, given.batch),
        "end to end, varlen": ("varlen", replace(bounded, flat=True), rows, given.batch),
        "packs, varlen": ("varlen", bounded, packs, 1),
    }
    made: dict[str, tuple[list[dict[str, Any]], float]] = {}
    for name, (_, collator, source, size) in forms.items():
        batches, took = [], []
        for start in range(0, len(source), size):
            began = time.perf_counter()
            batches.append(collator(source[start : start + size]))
            took.append(time.perf_counter() - began)
        made[name] = batches, statistics.median(took)
    found: dict[str, list[tuple[float, int, float]]] = {name: [] for name in forms}
    for _ in range(given.rounds):
        for name, (kind, *_rest) in forms.items():
            found[name].append(timed(model_of(given.layers, given.hidden, kind, given.vocab), made[name][0]))
    print(f"\nmedians of {given.rounds} rounds in turn\n")
    print("| form | real tokens/s | steps | shapes | waits a step | GiB | ms to make a batch |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, (batches, making) in made.items():
        rate, waits, memory = (statistics.median(each) for each in zip(*found[name], strict=True))
        shapes = len({tuple(batch["input_ids"].shape) for batch in batches})
        row = [f"{rate:,.0f}", len(batches), shapes, f"{waits:g}", f"{memory:.1f}", f"{1000 * making:.2f}"]
        print(f"| {' | '.join(map(str, [name, *row]))} |")


def timed(model: Any, batches: list[dict[str, Any]]) -> tuple[float, int, float]:
    """Return real tokens a second, waits of a step, and GiB at the peak."""
    optimizer = torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), fused=DEVICE == "cuda")
    for batch in batches[:3]:
        step_of(model, optimizer, batch)
    waits = 0
    if DEVICE == "cuda":
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            step_of(model, optimizer, batches[3 % len(batches)])
            torch.cuda.set_sync_debug_mode("default")
        waits = sum("synchroni" in str(each.message) for each in seen)
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    began = time.perf_counter()
    for batch in batches:
        step_of(model, optimizer, batch)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    memory = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else 0.0
    return sum(batch[COUNT] for batch in batches) / seconds, waits, memory


def main() -> None:
    """Check and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048, help="a multiple of 256")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--vocab", type=int, default=128256)
    given = parser.parse_args()
    print(torch.cuda.get_device_name() if DEVICE == "cuda" else "CPU", torch.__version__)
    exactness()
    speed(given)


if __name__ == "__main__":
    main()

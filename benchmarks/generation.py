"""Answers a second: forge's ``[eval]`` and ``grpo`` beside transformers' plain ``generate`` and TRL's trainer.

    python benchmarks/generation.py [--shape 1b] [--rows 200] [--tokens 128] [--steps 3] [--work FOLDER]

Runs on a GPU and on a CPU (``--shape small --tokens 32``), in one process, with no network: the model is random weights
in a real shape and answers never end by themselves, so that all of them have the same length.

- ``eval``: greedy answers to rows of 10 to 100 words. Plain: ``generate`` with 8 rows at a time in the order of the
  file, as many rows as there is time for. forge: what ``[eval]`` calls, all rows.
- ``adapter``: the same with a LoRA adapter of rank 16 in float32.
- ``ended``: drawn answers of a large batch whose rows end one after another. Plain: they stay in the batch, decoded by
  the same graph. forge: they leave it. On a CPU both are the same.
- ``grpo``: steps of 8 answers to one prompt with that adapter. Plain: ``trl.GRPOTrainer``. forge: its own trainer. The
  first step of each is not counted.

The limit on paper is the time that the weights need to be read once a token: their bytes over the memory's bandwidth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rig.models import SHAPES, build, words

from forge_huggingface.model import narrowing
from forge_huggingface.model.decoding import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable

BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12, "A100": 2.0e12, "L40S": 0.864e12, "4090": 1.008e12}
"""Bytes a second, by the makers' data sheets."""
PLAIN = 8
"""Rows at a time of plain generate, and answers of a step of grpo."""


def prompts(count: int) -> list[str]:
    """Return texts of different lengths."""
    rng = random.Random(4)
    return [" ".join(words(rng, rng.randint(10, 100))) for _ in range(min(count, 16))] * (-(-count // 16))


def load(folder: Path, *, adapter: bool) -> tuple[Any, Any]:
    """Return the model in bfloat16 (on a CPU in float32) and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(kind).eval()
    model.generation_config = GenerationConfig()
    if adapter:
        every = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=every)).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model, AutoTokenizer.from_pretrained(folder)


def synchronized() -> float:
    """Return the time when all that was asked of the device is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def plain_eval(model: Any, tokenizer: Any, texts: list[str], tokens: int, seconds: float) -> float:
    """Return tokens a second of plain ``generate``, of at least one batch behind a short one to warm up."""
    import torch
    from transformers import GenerationConfig

    def batch(at: int, length: int) -> int:
        inputs = tokenizer(texts[at : at + PLAIN], return_tensors="pt", padding=True, padding_side="left")
        known = {name: inputs[name].to(model.device) for name in ("input_ids", "attention_mask")}
        config = GenerationConfig(max_new_tokens=length, do_sample=False, pad_token_id=0, eos_token_id=[10**6])
        with torch.inference_mode():
            return int(model.generate(**known, generation_config=config)[:, known["input_ids"].shape[1] :].numel())

    batch(0, 4)
    start, done, at = synchronized(), 0, 0
    while at < len(texts) and (at == 0 or time.perf_counter() - start < seconds):
        done += batch(at, tokens)
        at += PLAIN
    return done / (synchronized() - start)


def forge_eval(model: Any, tokenizer: Any, texts: list[str], tokens: int, say: Callable[[str], None]) -> float:
    """Return tokens a second of what ``[eval]`` calls, all of it counted."""
    from forge.api import Prompt, Sampling
    from forge_huggingface.generation.generator import ModelGenerator, Settings

    settings = Settings(
        stops=frozenset({10**6}),
        sampling=Sampling(),
        advice="",
        context=None,
        positions=None,
        fixed={},
        shares_base=False,
    )
    run: Any = SimpleNamespace(emit=lambda event: say(event.message))
    renderer: Any = SimpleNamespace(sees=False)
    generator = ModelGenerator(model, tokenizer, renderer, settings, run)
    sampling = Sampling(max_new_tokens=tokens)
    start, done = synchronized(), 0
    for _, answers in generator.complete([Prompt(text=text) for text in texts], sampling):
        done += sum(answer.tokens for answer in answers)
    return done / (synchronized() - start)


def grpo(trainer: type, folder: Path, tokens: int, steps: int, work: Path, **more: Any) -> dict[str, float]:
    """Return the seconds of a step and of its answers, the median of the steps after the first."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig

    took: list[float] = []
    ends: list[float] = []

    class Timed(trainer):  # type: ignore[misc]
        def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
            start = synchronized()
            found = super()._generate_single_turn(*arguments, **named)
            took.append(synchronized() - start)
            return found

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(synchronized())

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [sum(ids) % 7 / 7 for ids in completion_ids]

    model, tokenizer = load(folder, adapter=True)
    rows = [{"prompt": text} for text in prompts(64)]
    gpu = torch.cuda.is_available()
    config = GRPOConfig(
        output_dir=str(work / "out"),
        per_device_train_batch_size=PLAIN,
        num_generations=PLAIN,
        max_completion_length=tokens,
        max_steps=steps + 1,
        save_strategy="no",
        report_to="none",
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=False,
        logging_steps=1,
        disable_tqdm=True,
        seed=7,
    )
    made = Timed(
        model=model,
        args=config,
        reward_funcs=[reward],
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[Clock()],
        **more,
    )
    made.train()
    each = [after - before for before, after in itertools.pairwise(ends)]
    return {"step": statistics.median(each), "answers": statistics.median(took[1:])}


def limit(folder: Path) -> float | None:
    """Return the fewest seconds a token: all weights read once."""
    import torch

    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    found = next((rate for card, rate in BANDWIDTH.items() if card in name), None)
    return (folder / "model.safetensors").stat().st_size / found if found else None


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="1b")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="for each measurement of plain generate")
    parser.add_argument("--work", type=Path, help="where the model is kept; default a folder that is removed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256, help="rows of the part ended")
    parser.add_argument("--parts", nargs="+", default=["eval", "adapter", "ended", "grpo"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        results = measure(options, build(work, options.shape), work)
    print(json.dumps(results))


def measure(options: argparse.Namespace, folder: Path, work: Path) -> dict[str, Any]:
    """Return what all parts took: of each the rounds of both sides in turn. Print a table of their medians."""
    import torch

    said: list[str] = []
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    results: dict[str, Any] = {"device": device}
    for part in ("eval", "adapter", "ended"):
        if part in options.parts:
            model, tokenizer = load(folder, adapter=part == "adapter")
            texts = prompts(options.rows)[: options.rows]
            sides: dict[str, Callable[[], float]] = {
                "before": partial(plain_eval, model, tokenizer, texts, options.tokens, options.seconds),
                "forge": partial(forge_eval, model, tokenizer, texts, options.tokens, said.append),
            }
            if part == "ended":
                sides = {
                    "before": partial(ended, model, options, said.append, math.inf),
                    "forge": partial(ended, model, options, said.append, narrowing.COST),
                }
            results[part] = in_turn(sides, options.rounds)
            del model, sides
    if "grpo" in options.parts:
        from trl import GRPOTrainer

        from forge_huggingface.training.recipes.online import ResumableGRPO

        theirs = partial(grpo, GRPOTrainer, folder, options.tokens, options.steps, work)
        mine = partial(grpo, ResumableGRPO, folder, options.tokens, options.steps, work, decoder=Decoder(said.append))
        rounds = in_turn({"before": theirs, "forge": mine}, options.rounds)
        for name in ("step", "answers"):
            results[f"grpo, {name}"] = {side: [1 / each[name] for each in found] for side, found in rounds.items()}
    results["said"] = list(dict.fromkeys(said))
    print(f"\n{device}, {options.shape}, {options.tokens} new tokens, medians of {options.rounds} rounds in turn")
    if least := limit(folder):
        print(f"limit: {least * 1e3:.2f} ms a token, {PLAIN / least:,.0f} tokens/s with {PLAIN} rows")
    print("\n| part | plain | forge | times |\n| --- | --- | --- | --- |")
    for part, found in results.items():
        if isinstance(found, dict):
            plain, ours = (statistics.median(found[side]) for side in ("before", "forge"))
            unit = "{:.2f} a second" if part.startswith("grpo") else "{:,.0f} tokens/s"
            print(f"| {part} | {unit.format(plain)} | {unit.format(ours)} | {ours / plain:.2f} |")
    print("\n".join(["", *results["said"]]), flush=True)
    return results


def in_turn(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Return what each side gave in each round; one round of all sides comes after another."""
    found: dict[str, list[Any]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return found


def ended(model: Any, options: argparse.Namespace, say: Callable[[str], None], cost: float) -> float:
    """Return tokens a second of a drawn batch whose rows end everywhere between its first token and its last.

    Args:
        model: The model.
        options: The command's.
        say: Is told how answers are decoded.
        cost: What :data:`narrowing.COST` is for it; infinite where ended rows stay in the batch.
    """
    import torch
    from transformers import GenerationConfig

    vocab = model.config.vocab_size
    ids = torch.randint(vocab // 2, vocab, (options.batch, 64), device=model.device)
    stops = [*range(4, 4 + max(1, 4 * vocab // options.tokens))]
    config = GenerationConfig(
        max_new_tokens=options.tokens, do_sample=True, top_k=0, pad_token_id=0, eos_token_id=stops
    )
    kept, narrowing.COST = narrowing.COST, cost  # type: ignore[assignment]  # which may be infinite
    try:
        torch.manual_seed(3)
        start = synchronized()
        with torch.inference_mode(), Decoder(say).around(model):
            output = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
        return int((output[:, 64:] != 0).sum()) / (synchronized() - start)
    finally:
        narrowing.COST = kept


if __name__ == "__main__":
    main()

"""What making rows costs: `forge data` on many conversations, beside the tokenizer alone and another checkout's forge.

python examples/quickstart/prepare.py                              # once: makes the model with its real tokenizer
python benchmarks/rows.py
python benchmarks/rows.py --against ../other-checkout --rounds 3

Processor time, not seconds of the clock: the tokenizer works on several cores. Whole processes, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
MODEL = HERE / "examples" / "quickstart" / "model"
TEXT = """
the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you
were all her she there would their we him been has when who will no more if out so up said what its about than into them
can only other time new some could these two may first then do any like my now over such our man me even
"""

ALONE = """
import json, sys
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
texts = [tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in open(sys.argv[2])]
for start in range(0, len(texts), 512):
    tokenizer(texts[start : start + 512], add_special_tokens=False)
"""
"""The least that can be done: each conversation rendered once by its template, and tokenised in batches."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--against", type=Path, metavar="DIR", help="another checkout, measured in turn with this one")
    parser.add_argument("--rows", type=int, default=30_000, help="how many conversations; default 30,000")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side is measured; default 3")
    parser.add_argument("--model", type=Path, default=MODEL, help="whose tokenizer; default that of the quick start")
    options = parser.parse_args()
    model = options.model.resolve()
    if not model.is_dir():
        parser.error(f"there is no {model}; run examples/quickstart/prepare.py first")
    sides = {"tokenizer alone": None, "forge data": HERE}
    if options.against:
        sides[f"forge data of {options.against.name}"] = options.against.resolve()
    took: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", options.rows)
        (folder / "job.toml").write_text(
            f'[model]\nid = {json.dumps(str(model))}\nmax_seq_length = 4096\n[data]\npath = "rows.jsonl"\n',
            encoding="utf-8",
        )
        for _ in range(options.rounds):
            for side, checkout in sides.items():
                took[side].append(seconds(folder, model, checkout))
    first = statistics.median(took["tokenizer alone"])
    print(f"| {options.rows:,} conversations | processor time, s | beside the tokenizer |\n| --- | --- | --- |")
    for side, times in took.items():
        middle = statistics.median(times)
        print(f"| {side} | {middle:.1f} ({min(times):.1f} to {max(times):.1f}) | {middle / first:.2f} |")


def write_rows(path: Path, count: int) -> None:
    """Write conversations of one to three questions, some with a system message; always the same."""
    words = TEXT.split()
    rng = random.Random(0)  # the same rows each time

    def said(least: int, most: int) -> str:
        return " ".join(rng.choices(words, k=rng.randint(least, most))).capitalize() + "."

    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            messages = [{"role": "system", "content": said(12, 12)}] if rng.random() < 0.3 else []
            for _ in range(rng.choice((1, 1, 2, 2, 3))):
                messages.append({"role": "user", "content": said(10, 60)})
                messages.append({"role": "assistant", "content": said(30, 190)})
            file.write(json.dumps({"messages": messages}) + "\n")


def seconds(folder: Path, model: Path, checkout: Path | None) -> float:
    """Return the processor time of one process."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if checkout is None:
        command = [sys.executable, "-c", ALONE, str(model), str(folder / "rows.jsonl")]
    else:
        environment["PYTHONPATH"] = os.pathsep.join(str(checkout / part) for part in ("core", "plugins"))
        command = [sys.executable, "-m", "forge", "data", str(folder / "job.toml"), "--rows", "1"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()

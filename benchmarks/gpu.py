"""forge against plain scripts on one GPU, with Unsloth and without: speed, memory, losses, resume, merged weights.

    python benchmarks/gpu.py --parts 1b 8b small [--out FOLDER] [--work FOLDER]

Needs one NVIDIA GPU, forge with its extras ``huggingface`` and ``unsloth``, and no network: models are random weights
in real shapes, with a tokenizer made on the spot. Every run is a process of its own, one after another.

- ``1b``, ``8b``: LoRA r 16 on all seven projections, every row fills 2048 tokens, gradient checkpointing, 16 bit and 4
  bit, four sides: Unsloth's plain script, forge on Unsloth, TRL's plain script, forge on huggingface.
- ``small``: what needs no timing, on a small model, several at once: the same job on both backends for each key of
  ``[adapter]`` and each way to load; resume after SIGKILL; the merged model against the adapter's.
- ``default``, ``default-8b``, ``default-8b-4bit``: full rows again, with what forge takes by itself for a job of model,
  rows and batch, in interleaved rounds (``rig/rounds.py``): medians, ratios within a round.
- ``card``: 8B in 4 bit on a card of which another process leaves 24 GiB; whole runs, one after another.
- ``ragged``: rows of 30 to 2,000 tokens, batch 8, in the same way; and whole commands on 320 rows.
- ``families``: other architectures on both backends, in 16 and in 4 bit.

``--only`` takes some of what the parts hold: names of variants, of families, of sides (``4-forge-huggingface``), and
``resume`` and ``merged`` of the part ``small``.

Tokens a second: the tokens of a step over the median time of a step, averaged over windows of five steps, after the
warm ones. Memory: the most that torch held (``torch.cuda.max_memory_allocated``). Start-up: from the start of the
process to the end of step 1. ``results.json`` and ``table.md`` hold the result.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rig.compare import CARD, DEFAULT, RAGGED, card, compare, ragged
from rig.models import FAMILIES, build, make_model, make_rows
from rig.plain import plain
from rig.runs import VARIANTS, both, merged, resume, timed
from rig.tables import about, table


def main() -> int:
    """Run the parts and write the results."""
    if sys.argv[1:2] == ["plain"]:
        plain(Path(sys.argv[2]))
        return 0
    if sys.argv[1:2] == ["model"]:
        make_model(Path(sys.argv[2]), sys.argv[3], *sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ["1b", "8b", "small", "families", "smoke", *DEFAULT, "card", "ragged"]
    parser.add_argument("--parts", nargs="+", default=["1b", "8b", "small"], choices=names)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "gpu-results")))
    parser.add_argument("--work", type=Path, default=Path("/tmp/forge-gpu"))
    parser.add_argument("--only", nargs="+", default=[], help="only these variants, families or sides")
    parser.add_argument("--at-once", type=int, default=6, help="runs side by side where nothing is timed")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of default, card and ragged")
    parser.add_argument("--commands", type=int, default=3, help="whole commands of each side in the part ragged")
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
        elif part in {*DEFAULT, "card", "ragged"}:
            build(models, {**DEFAULT, "card": CARD, "ragged": RAGGED}[part]["shape"])
            if part in DEFAULT:
                entries = compare(part, work, models, options.only, options.rounds)
            elif part == "card":
                entries = card(work, models, options.only, options.rounds)
            else:
                entries = ragged(work, models, options.only, options.rounds, options.commands)
            results.setdefault("compared", []).extend(entries)
            keep()
        elif part == "small":
            model = build(models, "small")
            wanted = options.only or [*VARIANTS, "resume", "merged"]
            with ThreadPoolExecutor(3) as pool:
                killed = pool.submit(resume, work, model) if "resume" in wanted else None
                exports = [pool.submit(merged, work, model, bits) for bits in (16, 4) if "merged" in wanted]
                names = [name for name in VARIANTS if name in wanted]
                results["variants"] = both(work, dict.fromkeys(names, model).__getitem__, names, options.at_once)
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

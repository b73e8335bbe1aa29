"""Score the encoder-decoder model of ``t5.toml`` on the held-out facts, before and after training.

    python examples/methods/score.py RUN

``[eval]`` asks decoder-only models for now; this asks greedily, counts as forge's metrics do, and writes ``score.json``
into the run folder, where ``table.py`` finds it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from forge_huggingface.evaluation.metrics import exact_match, rouge_l

HERE = Path(__file__).resolve().parent


@torch.inference_mode()
def score(folder: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the mean scores of a model's greedy answers, and the first of them."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    batch = tokenizer([row["input"] for row in rows], padding=True, return_tensors="pt")
    ids = model.generate(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=40, do_sample=False
    )
    said = tokenizer.batch_decode(ids, skip_special_tokens=True)
    pairs = [(answer, row["output"]) for answer, row in zip(said, rows, strict=True)]
    means = {
        name: sum(judge(*pair) for pair in pairs) / len(pairs)
        for name, judge in (("exact-match", exact_match), ("rouge-L", rouge_l))
    }
    return {**means, "said": said[:3]}


def main() -> None:
    """Score a run and write it down."""
    parser = argparse.ArgumentParser(description="Score a run of t5.toml before and after training.")
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    rows = [json.loads(line) for line in (HERE / "data" / "facts-eval.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {"rows": len(rows), "base": score(HERE / "t5", rows), "tuned": score(run / "model", rows)}
    (run / "score.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()

"""Show what the quickstart's training changed: the held-out countries, before and after.

    python examples/quickstart/score.py [RUN_OR_MODEL ...] [--json]

Takes run folders of forge, adapter folders and whole models, and scores each beside the base model that it came from.
Without any it takes the newest run under ``runs/quickstart/``. The model answers all questions of ``data/eval.jsonl``
greedily, and three things are counted:

card     the answer is one JSON object with exactly the card's keys, in their order, and nothing else
region   the region is right: in its field if the answer is a card, named anywhere if it is not
capital  the capital is right, in the same sense
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
RUNS = Path("runs/quickstart")
CARD_KEYS = ("capital", "region", "currency")
MEASURES = ("card", "region", "capital")


def parse_card(text: str) -> dict[str, str] | None:
    """Return the card if the text is one and nothing else: a JSON object with the card's keys, in order, once each."""
    try:
        pairs = json.loads(text, object_pairs_hook=tuple)
    except ValueError:
        return None
    if not isinstance(pairs, tuple) or tuple(key for key, _ in pairs) != CARD_KEYS:
        return None
    card = dict(pairs)
    return card if all(isinstance(value, str) for value in card.values()) else None


def judge(text: str, facts: dict[str, str]) -> dict[str, bool]:
    """Judge one answer by the measures that the module's docstring names."""
    card = parse_card(text)

    def right(key: str) -> bool:
        if card is not None:
            return card[key].casefold() == facts[key].casefold()
        return re.search(rf"(?<!\w){re.escape(facts[key])}(?!\w)", text, re.IGNORECASE) is not None

    return {"card": card is not None, "region": right("region"), "capital": right("capital")}


class Subject(NamedTuple):
    """What to score: a model, and an adapter to lay over it, if any."""

    name: str
    model: Path
    adapter: Path | None = None


def resolve(given: Path, default_base: Path) -> tuple[Subject, Path]:
    """Return what a folder holds, and the base model that it came from.

    Args:
        given: A run folder (with ``trained.json``), an adapter folder or a whole model.
        default_base: The base to take where the folder does not name one that is on this machine.
    """
    name, weights, bases = given.as_posix(), given, []
    if (given / "trained.json").is_file():
        trained = json.loads((given / "trained.json").read_text(encoding="utf-8"))
        weights = given / trained["weights"]
        bases = [trained["base"].get("path"), trained["base"].get("id")]
    if (weights / "adapter_config.json").is_file():
        config = json.loads((weights / "adapter_config.json").read_text(encoding="utf-8"))
        bases.append(config.get("base_model_name_or_path"))
    elif not (weights / "config.json").is_file():
        raise SystemExit(f"score.py: {given} is neither a finished run (no trained.json) nor an adapter or a model")
    base = next((Path(text) for text in bases if text and Path(text, "config.json").is_file()), default_base)
    if not (base / "config.json").is_file():
        raise SystemExit(f"score.py: no base model at {base}; make it with prepare.py, or name one with --base")
    adapted = (weights / "adapter_config.json").is_file()
    return (Subject(name, base, weights) if adapted else Subject(name, weights)), base


def newest_run() -> Path:
    """Return the newest finished run under ``runs/quickstart/``: their names sort by time."""
    runs = sorted(path.parent for path in RUNS.glob("*/trained.json"))
    if not runs:
        raise SystemExit(f"score.py: no finished run under {RUNS.resolve()}; name a run, an adapter or a model")
    return runs[-1]


def answers(subject: Subject, prompts: list[list[dict[str, str]]], max_new_tokens: int) -> list[str]:
    """Let the model answer all prompts greedily, in one batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(subject.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(subject.model, dtype=torch.float32)
    if subject.adapter:
        from peft import PeftModel

        # Merged in memory: one matrix product a layer instead of three.
        model = PeftModel.from_pretrained(model, subject.adapter).merge_and_unload()
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    batch = tokenizer.apply_chat_template(
        prompts, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    output = model.generate(
        **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
    )
    return tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def score(subject: Subject, rows: list[dict[str, Any]], max_new_tokens: int) -> dict[str, Any]:
    """Return the shares of each measure, the seconds it took and every answer."""
    started = time.perf_counter()
    texts = answers(subject, [row["messages"][:-1] for row in rows], max_new_tokens)
    facts = [json.loads(row["messages"][-1]["content"]) for row in rows]
    judged = [judge(text, truth) for text, truth in zip(texts, facts, strict=True)]
    shares = {measure: sum(one[measure] for one in judged) / len(rows) for measure in MEASURES}
    return {"name": subject.name, **shares, "seconds": round(time.perf_counter() - started, 1), "answers": texts}


def show(results: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Print the table, then the first held-out country with every model's answer."""
    width = max(len(result["name"]) for result in results)
    print(f"{'':{width}}  {'valid card':>10}  {'region':>6}  {'capital':>7}  {'seconds':>7}")
    for result in results:
        print(
            f"{result['name']:{width}}  {result['card']:>10.0%}  {result['region']:>6.0%}  {result['capital']:>7.0%}"
            f"  {result['seconds']:>7.1f}"
        )
    question, truth = rows[0]["messages"][-2:]
    print(f"\n{'question':{width}}  {question['content']}\n{'held out':{width}}  {truth['content']}")
    for result in results:
        text = " ".join(result["answers"][0].split())
        print(f"{result['name']:{width}}  {text if len(text) <= 100 else text[:99] + '…'}")


def main() -> None:
    """Score what was named, each after its base model."""
    parser = argparse.ArgumentParser(description="Score the quickstart's held-out countries, before and after.")
    parser.add_argument("folders", nargs="*", type=Path, metavar="RUN_OR_MODEL", help="default: the newest run")
    parser.add_argument("--base", type=Path, default=HERE / "model", help="base model, where a folder names none")
    parser.add_argument("--data", type=Path, default=HERE / "data" / "eval.jsonl", help="rows to ask and compare with")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="longest answer; cards have 20 to 26 tokens")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, all answers too")
    args = parser.parse_args()
    if not args.data.is_file():
        raise SystemExit(f"score.py: no rows at {args.data}; make them with prepare.py")
    rows = [json.loads(line) for line in args.data.read_text(encoding="utf-8").splitlines()]
    subjects: dict[Path, Subject] = {}  # by folder: two runs of one base show that base once
    for folder in args.folders or [newest_run()]:
        subject, base = resolve(folder, args.base)
        subjects.setdefault(base.resolve(), Subject("base", base))
        subjects.setdefault(folder.resolve(), subject)

    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    warnings.simplefilter("ignore", FutureWarning)  # peft still uses names that transformers 5.23 calls old
    results = [score(subject, rows, args.max_new_tokens) for subject in subjects.values()]
    if args.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        show(results, rows)


if __name__ == "__main__":
    main()

"""Make what the jobs of this folder read: ``data/``, ``t5/``, and what they share with the quick start.

    python examples/methods/prepare.py [--force] [--teacher RUN]

The quick start's model and rows are made too, if they are not there. All rows but the sums are facts of the package
``countryinfo``, and the countries that the quick start holds out are held out here as well. Nothing is drawn at random
that another machine would draw otherwise: the files are the same everywhere. With ``--teacher``, a run of the quick
start, its merged model becomes ``teacher/``, which ``distill.toml`` needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent / "quickstart"
SUMS = 64
"""Sums that are held out."""

ORDERS = 8
"""How often a country's facts are listed, each time in another order, for the encoder-decoder model to sum up."""

SIZES = {1_000_000: "huge", 100_000: "large", 10_000: "middling", 0: "small"}
"""What a country of at least this area, in square kilometres, is called."""

VOCABULARY = 512


def quickstart() -> ModuleType:
    """Return the quick start's ``prepare.py``."""
    spec = spec_from_file_location("quickstart_prepare", QUICKSTART / "prepare.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked(text: str) -> list[dict[str, str]]:
    """Return a prompt of one question."""
    return [{"role": "user", "content": text}]


def said(text: str) -> list[dict[str, str]]:
    """Return an answer."""
    return [{"role": "assistant", "content": text}]


# Country cards: one line of JSON is the better answer, a sentence with the same facts the worse one.


def question(name: str) -> list[dict[str, str]]:
    """Return what the quick start asks about a country."""
    return asked(f"Give the country card of {name}.")


def line(card: dict[str, str]) -> str:
    """Return a card as the quick start writes it."""
    return json.dumps(card, ensure_ascii=False)


def prose(name: str, card: dict[str, str]) -> str:
    """Return the same facts as a sentence."""
    return f"{name} is in {card['region']}. Its capital is {card['capital']}, its currency {card['currency']}."


def pair(name: str, card: dict[str, str]) -> dict[str, Any]:
    """Return a row for dpo, orpo and cpo."""
    return {"prompt": question(name), "chosen": said(line(card)), "rejected": said(prose(name, card))}


def rating(name: str, card: dict[str, str], *, good: bool) -> dict[str, Any]:
    """Return a row for kto, which never sees two answers to one question."""
    return {"prompt": question(name), "completion": said(line(card) if good else prose(name, card)), "label": good}


def flawed(name: str, card: dict[str, str]) -> Iterator[str]:
    """Yield answers that are worse than a card, for the reward model: in prose, a key short, out of order, too long."""
    keys = list(card)
    yield prose(name, card)
    yield line({key: card[key] for key in keys[:2]})
    yield line({key: card[key] for key in reversed(keys)})
    yield f"{line(card)} That is the card of {name}."


def placed(name: str, card: dict[str, str]) -> dict[str, str]:
    """Return a row for classification: what a country is called, and the region that it is in."""
    return {"text": f"{name}, whose capital is {card['capital']}", "label": card["region"]}


# Sums


def sums() -> list[tuple[int, int]]:
    """Return all sums of two numbers of two digits, in an order that looks shuffled and never changes."""
    every = [(first, second) for first in range(10, 100) for second in range(10, 100)]
    return sorted(every, key=lambda one: hashlib.sha256(f"{one[0]} + {one[1]}".encode()).digest())


def sum_row(first: int, second: int) -> dict[str, str]:
    """Return a row for grpo and rloo: a plain text, with one solved sum before it that shows the form."""
    return {"prompt": f"24 + 13 = 37\n{first} + {second} =", "answer": str(first + second)}


# Facts to sum up


def records() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and facts of every country of the quick start whose area and population the package has."""
    spec = find_spec("countryinfo")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    cards = dict(quickstart().countries())
    for path in sorted(Path(spec.submodule_search_locations[0]).glob("data/*.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        if cards.pop(raw["name"], None) and raw.get("area") and raw.get("population"):
            facts = {
                "region": raw["region"],
                "subregion": raw.get("subregion") or raw["region"],
                "area": str(round(raw["area"])),
                "population": str(raw["population"]),
                "borders": ", ".join(raw.get("borders") or ["none"]),
            }
            yield raw["name"], facts


def summary(name: str, facts: dict[str, str], order: int) -> dict[str, str]:
    """Return a row for t5: facts in one of many orders, and what is to be said of them in a sentence."""
    listed = [f"{key}: {value}" for key, value in facts.items()]
    random.Random(f"{name} {order}").shuffle(listed)
    size = next(word for least, word in SIZES.items() if int(facts["area"]) >= least)
    borders = 0 if facts["borders"] == "none" else facts["borders"].count(",") + 1
    said = f"A {size} country in {facts['subregion']} with {borders or 'no'} neighbour{'' if borders == 1 else 's'}."
    return {"input": "; ".join(listed), "output": said}


def make_data(out: Path) -> str:
    """Write all rows and return what to say about them."""
    start = quickstart()
    cards = dict(start.countries())
    facts = dict(records())
    everything = sums()
    split = {"train": everything[SUMS:], "eval": everything[:SUMS]}
    for part, names in zip(("train", "eval"), start.split(cards), strict=True):
        known = [(name, cards[name]) for name in names]
        write(out / f"pairs-{part}.jsonl", (pair(*each) for each in known))
        ranked = ({**pair(*each), "rejected": said(worse)} for each in known for worse in flawed(*each))
        write(out / f"ranked-{part}.jsonl", ranked)
        write(out / f"regions-{part}.jsonl", (placed(*each) for each in known))
        write(out / f"sums-{part}.jsonl", (sum_row(*each) for each in split[part]))
        listed = [(name, facts[name]) for name in names if name in facts]
        orders = range(ORDERS if part == "train" else 2)
        write(out / f"facts-{part}.jsonl", (summary(*each, order) for order in orders for each in listed))
        if part == "train":  # what these learn is judged by the quick start's own held-out rows
            write(out / "rated-train.jsonl", (rating(*each, good=at % 2 == 0) for at, each in enumerate(known)))
            write(out / "cards-train.jsonl", ({"prompt": question(name)} for name in names))
    return f"seven sets of rows; {start.HELD_OUT} countries and {SUMS} sums held out"


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSONL."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def make_t5(out: Path, data: Path = HERE / "data") -> str:
    """Write a T5 with random weights, and a tokenizer made of the training rows; return what to say about it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    inner = Tokenizer(models.BPE())
    digits, text = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([digits, text])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    lines = (data / "facts-train.jsonl").read_text(encoding="utf-8").splitlines()
    inner.train_from_iterator((text for row in lines for text in json.loads(row).values()), trainer)
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<pad>", model_max_length=256,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    config = T5Config(
        vocab_size=VOCABULARY, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0,
        feed_forward_proj="gated-gelu", pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(config)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return f"T5's shape with {model.num_parameters():,} random parameters"


def copy_merged(run: Path, out: Path) -> str:
    """Copy the merged model that a run left, and return what to say about it."""
    found = sorted(run.glob("exports/*-merged"))
    if not found:
        raise SystemExit(f"prepare.py: {run} has no merged model; run the quick start, or `forge export {run}`")
    shutil.copytree(found[-1], out, dirs_exist_ok=True)
    return f"the merged model of {run}"


def main() -> None:
    """Make all folders, or say what is missing."""
    parser = argparse.ArgumentParser(description="Make data/ and t5/ of the methods' examples.")
    parser.add_argument("--force", action="store_true", help="make them even if they are there")
    parser.add_argument("--teacher", type=Path, metavar="RUN", help="a run whose merged model is to teach distill.toml")
    options = parser.parse_args()
    force, start = options.force, quickstart()
    if missing := [requirement for module, requirement in start.REQUIRED.items() if find_spec(module) is None]:
        raise SystemExit(f"prepare.py: something is not installed; run: pip install {' '.join(missing)}")
    start.make(QUICKSTART / "data", "eval.jsonl", start.make_data, force=False)
    start.make(QUICKSTART / "model", "model.safetensors", start.make_model, force=False)
    start.make(HERE / "data", "sums-eval.jsonl", make_data, force=force)
    start.make(HERE / "t5", "model.safetensors", make_t5, force=force)
    if options.teacher:
        start.make(HERE / "teacher", "model.safetensors", lambda out: copy_merged(options.teacher, out), force=True)


if __name__ == "__main__":
    main()

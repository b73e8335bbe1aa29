"""What can be said about the tokens that ``[model]`` adds or names, before anything is imported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import did_you_mean
from forge_huggingface.facts.shape import EMBEDDINGS
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
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
        return f"add_tokens: the teacher of {method.name} has no such tokens, and both must have the same"
    if job.adapter.type == "layers":
        whole = {name.rpartition(".")[2] for name in job.adapter.modules_to_save or ()}
        do = 'write modules_to_save = ["embed_tokens", "lm_head"]'
        return None if whole & EMBEDDINGS else f'add_tokens: type = "layers" leaves the embedding frozen; {do}'
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

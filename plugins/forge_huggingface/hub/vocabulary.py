"""A model's folder with another tokenizer: tokens added, and those named that pad and end rows.

Each new token gets a row of the embedding, and of the output layer where that is not the same. A row begins as the mean
of those that the tokenizer had tokens for (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models",
2021), without noise: so the folder is the same wherever it is made again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, Noted, did_you_mean
from forge.disk.files import write_text
from forge_huggingface.facts.folder import TOKENIZER, keep_legacy, read_object, reading
from forge_huggingface.facts.safetensors import read_folder
from forge_huggingface.facts.shape import is_of_words, vocabulary_of, with_vocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forge.api import Job, Run

GENERATION = "generation_config.json"
REWRITTEN = ("added_tokens.json", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", GENERATION)
"""Files that are not those of the model's folder any more."""

ENDS = ("pad_token", "eos_token")


def name_tokens(folder: Path, part: Path, job: Job, run: Run) -> tuple[dict[str, int], int]:
    """Write the small files of a folder with the tokenizer that ``[model]`` asks for.

    Args:
        folder: The model's folder.
        part: Where to; ``config.json`` is there already.
        job: The job.
        run: The run.

    Returns:
        The ids of the new tokens, and how many the tokenizer had.

    Raises:
        ModelError: A token that is to pad or end is none of the tokenizer's; the model has no row for it.
    """
    from transformers import AddedToken, AutoTokenizer

    table = job.model
    with reading(f"the tokenizer of {table.id} cannot be loaded", folder, TOKENIZER):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=table.trust_remote_code)
        keep_legacy(tokenizer)
        known = tokenizer.get_vocab()
    there = [token for token in table.new_tokens if token in known]
    if there:
        what = f"{table.id} has {', '.join(there)} already: {'it is' if len(there) == 1 else 'they are'} not added"
        run.emit(Noted(f"{what}, and no row is trained for {'it' if len(there) == 1 else 'them'}"))
    for tokens, special in ((table.add_tokens, False), (table.add_special_tokens, True)):
        new = [AddedToken(token, normalized=False, special=special) for token in tokens if token not in known]
        tokenizer.add_tokens(new, special_tokens=special)
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in table.new_tokens if token not in known}
    config = read_object(part / "config.json")
    count = vocabulary_of(config) or 0
    count = max([count, *(number + 1 for number in ids.values())])
    named = {key: named_id(tokenizer, key, token, count) for key in ENDS if (token := getattr(table, key))}
    for key in named:
        setattr(tokenizer, key, getattr(table, key))
    tokenizer.save_pretrained(part)
    if ids:
        config = with_vocabulary(config, count)
    if "eos_token" in named:
        config["eos_token_id"] = named["eos_token"]
    write_text(part / "config.json", json.dumps(config, indent=2) + "\n")
    write_text(part / GENERATION, json.dumps(_generation(folder, named), indent=2) + "\n")
    return ids, len(known)


def named_id(tokenizer: Any, key: str, token: str, count: int) -> int:
    """Return the id of a token that the job names. Raises :class:`ModelError` if it has none, or no row."""
    known = tokenizer.get_vocab()
    what = f"[model] {key}: {token} cannot be it"
    if token not in known:
        special = [each for each in tokenizer.all_special_tokens if each in known]
        do = did_you_mean(token, special, "name it in add_special_tokens too to make it new")
        raise ModelError(what, "the tokenizer has no such token", do)
    if known[token] >= count:
        raise ModelError(what, f"its id is {known[token]}, and the model has rows for {count}", "name another one")
    return int(known[token])


def _generation(folder: Path, named: dict[str, int]) -> dict[str, Any]:
    """Return the settings of generation: answers end at the named token, and where the model's own end."""
    found: dict[str, Any] = read_object(folder / GENERATION) if (folder / GENERATION).is_file() else {}
    if "pad_token" in named:
        found["pad_token_id"] = named["pad_token"]
    if "eos_token" in named:
        own = found.get("eos_token_id", read_object(folder / "config.json").get("eos_token_id"))
        ends = [named["eos_token"], *(own if isinstance(own, list) else [] if own is None else [own])]
        found["eos_token_id"] = list(dict.fromkeys(ends))
    return found


def widen(folder: Path, part: Path, ids: Sequence[int], known: int) -> None:
    """Write the weight files whose tensors get rows for new tokens; the others are left out.

    Args:
        folder: The model's folder, with its weights.
        part: The folder with the config that has the new number of tokens.
        ids: Those of the new tokens.
        known: How many tokens the tokenizer had.

    Raises:
        ModelError: The model has tables by token that forge does not know.
    """
    import torch
    from safetensors.torch import load_file, save_file

    config = read_object(folder / "config.json")
    before, after = vocabulary_of(config), vocabulary_of(read_object(part / "config.json"))
    for header in read_folder(folder):
        wide = [name for name, extents in header.shapes.items() if extents and extents[0] == before]
        inside = [name for name in wide if any(part.isdigit() for part in name.split("."))]  # of a block: by chance
        if strange := [name for name in wide if not is_of_words(name) and name not in inside]:
            what = f"[model] add_tokens: {strange[0]} may be a table by token beside the embedding"
            raise ModelError(what, f"it has {before} rows", "take another model, or leave add_tokens out")
        wide = [name for name in wide if is_of_words(name)]
        if not wide:
            continue
        tensors = load_file(folder / header.name)
        for name in wide:
            old = tensors[name]
            mean = old[: min(known, old.shape[0])].mean(dim=0, dtype=torch.float64)
            new = torch.cat([old, old.new_empty((int(after or 0) - old.shape[0], *old.shape[1:]))])
            new[old.shape[0] :] = mean.to(old.dtype)
            new[list(ids)] = mean.to(old.dtype)
            tensors[name] = new
        save_file(tensors, part / header.name, metadata={"format": "pt"})

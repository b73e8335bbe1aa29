"""A model's folder with other values in its ``config.json``, ``[model] config``, or with another tokenizer.

It lies in the run's folder and has links to the model's other files. So all that reads a model reads the same config:
training, its reference, evaluation, and what is merged or converted.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, did_you_mean
from forge.disk.files import write_text
from forge_huggingface.facts.folder import read_object
from forge_huggingface.hub.vocabulary import REWRITTEN, name_tokens, widen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import Job, Run

FOLDER = "base"
"""Its name in a run's folder."""

MADE = "made.json"
"""The file in it that says what it was made from, and which ids the new tokens have."""


def reconfigured(folder: Path, job: Job, run: Run, *, weights: bool = True) -> Path:
    """Return a model's folder, or one like it with the values of ``[model] config``, and the tokens that it names.

    Args:
        folder: The model's folder.
        job: The job.
        run: The run.
        weights: Whether the weights are needed: those with rows for new tokens are written, which takes their room.

    Raises:
        ModelError: The model's config has no such value; a token cannot be what the job says.
    """
    table = job.model
    if not table.config and not table.changes_tokenizer:
        return folder
    place = run.folder / FOLDER
    names = ("config", "add_tokens", "add_special_tokens", "pad_token", "eos_token")
    asked = {"folder": str(folder), **{name: getattr(table, name) for name in names}}
    if _serves(place, folder, asked, weights=weights):
        return place
    part = place.with_name(f"{FOLDER}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        made: dict[str, Any] = {"asked": asked, "new_tokens": {}}
        text = json.dumps(changed(read_object(folder / "config.json"), table.config), indent=2) + "\n"
        write_text(part / "config.json", text)
        if table.changes_tokenizer:
            made["new_tokens"], known = name_tokens(folder, part, job, run)
            if made["new_tokens"] and weights and any(folder.glob("*.safetensors")):
                widen(folder, part, list(made["new_tokens"].values()), known)
        for path in folder.iterdir():
            stale = table.changes_tokenizer and path.name in REWRITTEN
            stale |= bool(made["new_tokens"]) and not weights and path.suffix == ".safetensors"
            if path.is_file() and not stale and not (part / path.name).exists():
                _link(path.resolve(), part / path.name)
        refuse_unknown(folder, job)
        write_text(part / MADE, json.dumps(made))
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if _serves(place, folder, asked, weights=weights):  # another process of the same run was first
        shutil.rmtree(part, ignore_errors=True)
        return place
    shutil.rmtree(place, ignore_errors=True)
    try:
        part.rename(place)
    except OSError:
        if not _serves(place, folder, asked, weights=weights):
            raise
        shutil.rmtree(part, ignore_errors=True)
    return place


def new_token_ids(run: Run) -> list[int]:
    """Return the ids of the tokens that the run's job adds to its model's."""
    place = run.folder / FOLDER / MADE
    return sorted(read_object(place)["new_tokens"].values()) if place.is_file() else []


def changed(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with other values; a table goes into the one that is there.

    >>> changed({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 4}})
    {'a': 1, 'b': {'c': 4, 'd': 3}}
    """
    found = dict(config)
    for key, value in values.items():
        # transformers 5 writes rope_parameters, with the base frequency in it, and reads rope_scaling of older models.
        name = "rope_parameters" if key == "rope_scaling" and "rope_parameters" in found else key
        there = found.get(name)
        found[name] = changed(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return found


def refuse_unknown(folder: Path, job: Job) -> None:
    """Raise :class:`ModelError` for a value that the model's config does not have: nothing would read it."""
    from transformers import AutoConfig

    options: dict[str, Any] = {"trust_remote_code": job.model.trust_remote_code, "local_files_only": True}
    known = AutoConfig.from_pretrained(folder, **options)
    there = {*vars(known), *known.to_dict(), "rope_scaling"}
    for key in job.model.config:
        if key not in there and not hasattr(known, key):
            say = did_you_mean(key, sorted(there), "see its config.json")
            raise ModelError(f"[model] config: {key} is no value of {job.model.id}'s config", None, say)


def _serves(place: Path, folder: Path, asked: dict[str, Any], *, weights: bool) -> bool:
    """Whether a folder was made from another as it is asked for, and is whole."""
    if not (place / MADE).is_file() or read_object(place / MADE).get("asked") != asked:
        return False
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name not in REWRITTEN]
    return all((place / name).is_file() for name in names if weights or not name.endswith(".safetensors"))


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # a system, or a disk, without links
        shutil.copyfile(source, target)

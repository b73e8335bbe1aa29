"""A model's folder with other values in its ``config.json``: ``[model] config``.

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

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import Job, Run

FOLDER = "base"
"""Its name in a run's folder."""


def reconfigured(folder: Path, job: Job, run: Run) -> Path:
    """Return a model's folder, or one like it with the values of ``[model] config``.

    Raises:
        ModelError: The model's config has no such value.
    """
    if not job.model.config:
        return folder
    before = read_object(folder / "config.json")
    text = json.dumps(changed(before, job.model.config), indent=2) + "\n"
    place = run.folder / FOLDER
    if _is_whole(place, folder) and (place / "config.json").read_text(encoding="utf-8") == text:
        return place
    part = place.with_name(f"{FOLDER}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file() and path.name != "config.json":
            _link(path.resolve(), part / path.name)
    write_text(part / "config.json", text)
    refuse_unknown(folder, part, job)
    shutil.rmtree(place, ignore_errors=True)
    try:
        part.rename(place)
    except OSError:  # another process of the same run was first
        if not _is_whole(place, folder):
            raise
        shutil.rmtree(part, ignore_errors=True)
    return place


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


def refuse_unknown(folder: Path, part: Path, job: Job) -> None:
    """Raise :class:`ModelError` for a value that the model's config does not have: nothing would read it."""
    from transformers import AutoConfig

    options: dict[str, Any] = {"trust_remote_code": job.model.trust_remote_code, "local_files_only": True}
    known = AutoConfig.from_pretrained(folder, **options)
    there = {*vars(known), *known.to_dict(), "rope_scaling"}
    for key in job.model.config:
        if key not in there and not hasattr(known, key):
            shutil.rmtree(part, ignore_errors=True)
            say = did_you_mean(key, sorted(there), "see its config.json")
            raise ModelError(f"[model] config: {key} is no value of {job.model.id}'s config", None, say)


def _is_whole(place: Path, folder: Path) -> bool:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return place.is_dir() and all((place / name).is_file() for name in names)


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source)
    except OSError:  # a system, or a disk, without links
        shutil.copyfile(source, target)

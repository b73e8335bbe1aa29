"""The adapter that a training goes on from, ``[adapter] from``, from files alone: a run's, a folder's, or the hub's."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, RunError
from forge.disk.folder import RunFolder
from forge_huggingface.facts import folder as files
from forge_huggingface.facts import lookup as hub
from forge_huggingface.facts.describe import digest, is_path
from forge_huggingface.facts.safetensors import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import Job, ModelFacts
    from forge_huggingface.facts.safetensors import Header

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_NAME = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<which>A|B)(?:\.default)?\.weight")


@dataclass(frozen=True, slots=True)
class Start:
    """An adapter to go on from.

    Attributes:
        config: The content of ``adapter_config.json``.
        about: Which one it is, for people.
        folder: Its folder; None while it is on the hub only.
        revision: The commit on the hub.
        header: That of its weights, where they are here.
        digest: sha256 over its config and its weights' header and ends.
        base: What its run says of the model that it was trained on: ``id``, ``digest``.
    """

    config: Mapping[str, Any]
    about: str
    folder: Path | None = None
    revision: str | None = None
    header: Header | None = None
    digest: str | None = None
    base: Mapping[str, Any] = field(default_factory=dict)


def runs_folder() -> Path:
    """Return the folder in which runs are looked for by their names, as the commands do."""
    return Path(os.environ.get("FORGE_RUNS") or "runs")


def start_of(job: Job) -> Start | None:
    """Return the adapter that a job goes on from, or None if it begins a new one.

    Raises:
        ModelError: It is not there, or no adapter that can be read.
    """
    if job.adapter.from_ is None or job.adapter.leaves_model:
        return None
    name = job.adapter.from_
    path = job.path(name)
    with files.reachable(path):
        if path.is_dir():
            if job.adapter.revision:
                raise ModelError(f"{name} is a folder", "only the hub has revisions", "remove [adapter] revision")
            return _of_folder(path.resolve(), name)
    if path.is_file() or is_path(name):
        why = "that is a file" if path.is_file() else f"there is no folder {path}"
        raise ModelError(
            f"there is no adapter {name}", why, "name a run, a folder with adapter_config.json, or a hub id"
        )
    if job.adapter.revision is None and (run := run_of(name)) is not None:
        return _of_folder(run.path.resolve(), name)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        why = "it is neither a run, nor a folder, nor a name as the hub has them, `owner/name`"
        raise ModelError(f"{name!r} names no adapter", why, "check the spelling; `forge runs` lists the runs")
    return _of_hub(name, job.adapter.revision)


def run_of(name: str) -> RunFolder | None:
    """Return the run of a name, the newest; None if there is none. Raises :class:`ModelError` if it fits several."""
    try:
        return RunFolder.find(name, runs_folder())
    except RunError as error:
        if "several" in error.what:
            raise ModelError(error.what, error.why, error.do) from error
        return None


def _of_folder(path: Path, name: str) -> Start:
    if (path / CONFIG).is_file():
        return _of_files(path, f"the adapter in {path}")
    if not (path / "plan.json").is_file() and (inside := newest_in(path)) is not None:
        path = inside
    if (path / "trained.json").is_file():
        trained = files.read_object(path / "trained.json")
        if trained.get("kind") != "adapter":
            folder = path / str(trained.get("weights"))
            raise ModelError(
                f"the run {name} has no adapter", "it trained every weight", f"name {folder} in [model] id"
            )
        return _of_files(path / str(trained["weights"]), f"the adapter of the run {path}")
    if (path / "plan.json").is_file():
        what, why = f"the run {path} has left no adapter yet", "it has not ended, or failed"
        raise ModelError(what, why, f"end it with `forge resume {path}`, or name the folder of a checkpoint")
    if (path / "config.json").is_file():
        raise ModelError(f"{name} holds a whole model and no adapter", None, "name it in [model] id")
    raise ModelError(f"{name} is no adapter", f"there is no {CONFIG} in {path}", "name a folder that peft wrote")


def newest_in(path: Path) -> Path | None:
    """Return the newest run of those in a folder."""
    found = sorted(each.parent for each in path.glob("*/plan.json"))
    return found[-1] if found else None


def _of_hub(name: str, revision: str | None) -> Start:
    if (snapshot := hub.cached(name, revision, file=CONFIG)) is not None:
        if (snapshot / WEIGHTS).is_file():
            found = _of_files(snapshot, f"the adapter {name} of the hub")
            return Start(found.config, found.about, snapshot, snapshot.name, found.header, found.digest)
        config = files.read_object(snapshot / CONFIG)
        return Start(config, f"the adapter {name} of the hub", revision=snapshot.name)
    why = f"there is no such run in {runs_folder().resolve()}, no such folder, and none in the cache of the hub"
    do = "check the spelling; `forge runs` lists the runs"
    if hub.is_offline():
        raise ModelError(f"the adapter {name} cannot be had", f"{why}, and forge is offline", do)
    try:
        config, commit = hub.fetch_config(name, revision, file=CONFIG)
    except hub.Unreachable as error:
        raise ModelError(f"the adapter {name} cannot be had", f"{why}; {error}", do) from error
    return Start(config, f"the adapter {name} of the hub", revision=commit)


def _of_files(path: Path, about: str) -> Start:
    file, weights = path / CONFIG, path / WEIGHTS
    config = files.read_object(file)
    if not weights.is_file():
        pickled = (path / "adapter_model.bin").is_file()
        why = "forge loads safetensors only, and adapter_model.bin may run code" if pickled else f"it has no {WEIGHTS}"
        raise ModelError(f"{path} holds no weights of an adapter", why, "save it again with a newer peft")
    header = read_header(weights)
    record = path.parent / "trained.json"
    trained = files.read_object(record) if record.is_file() else {}
    base = trained.get("base") if trained.get("weights") == path.name else None
    return Start(config, about, path, None, header, digest(path, file.read_bytes(), (header,)), base or {})


def misfit(start: Start, facts: ModelFacts) -> str | None:
    """Return why an adapter is none for a model, as its run and the shapes of its weights tell, or None."""
    known, here = start.base.get("digest"), facts.digest
    if known and here and known != here:
        return f"{start.about} was trained on {start.base.get('id')}, which was another model (its digest differs)"
    shape = facts.shape
    if start.header is None or shape is None or not shape.exact:
        return None
    widths: dict[str, set[tuple[int, int]]] = {}
    for linear in shape.linears:
        if linear.part != "experts":
            widths.setdefault(linear.name, set()).update(
                {(linear.inputs, linear.outputs), (linear.outputs, linear.inputs)}
            )
    pairs: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, extents in start.header.shapes.items():
        if (match := _NAME.fullmatch(name)) is not None and len(extents) == 2:
            pairs.setdefault(match["module"], {})[match["which"]] = extents
    for module, pair in pairs.items():
        there = widths.get(module.rpartition(".")[2])
        if there is None or len(pair) < 2:
            continue  # a name that the model's files do not have; loading tells
        found = (pair["A"][1], pair["B"][0])
        if found not in there:
            widest = " or ".join(sorted({f"{one} to {other}" for one, other in there}))
            of = start.config.get("base_model_name_or_path")
            made = f", and was made for {of}" if of else ""
            return f"{start.about} has {module} from {found[0]} to {found[1]}, the model has {widest}{made}"
        layer = next((int(part) for part in module.split(".") if part.isdigit()), 0)
        if layer >= shape.layers and facts.task != "vision":
            return f"{start.about} has a layer {layer}, and the model's layers are 0 to {shape.layers - 1}"
    return None

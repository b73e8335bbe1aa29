"""A reward model that a job names, ``[[train.reward]] model``, from files alone: a run's, a folder's, or the hub's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError
from forge_huggingface.facts import folder as files
from forge_huggingface.facts.adapter import CONFIG, WEIGHTS, newest_in, run_of
from forge_huggingface.facts.describe import describe, is_path
from forge_huggingface.facts.safetensors import read_header

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import ModelFacts

HEAD = "ForSequenceClassification"
"""How transformers' classes are called that give numbers for a text."""

KIND = 'a run of method = "reward", a folder, or a hub id'


@dataclass(frozen=True, slots=True)
class JudgeFacts:
    """A reward model.

    Attributes:
        name: What the job calls it.
        about: Which one it is, for people.
        facts: Of its weights: the model's own, or those of the base of its adapter.
        folder: Its folder, with its tokenizer; None while it is on the hub only.
        adapter: The folder of its adapter, if it is one.
    """

    name: str
    about: str
    facts: ModelFacts
    folder: Path | None = None
    adapter: Path | None = None


def judge_of(name: str, revision: str | None, folder: Path) -> JudgeFacts:
    """Find out about a reward model.

    Args:
        name: A folder, a run, or the name of a model on the hub.
        revision: Branch, tag or commit on the hub.
        folder: Where relative paths start: the job's.

    Raises:
        ModelError: It is not there, or gives no single number for a text.
    """
    try:
        path = folder / Path(name).expanduser()
    except RuntimeError as error:  # nobody can tell where ~ is
        raise ModelError(f"there is no reward model {name}", str(error), "write the whole path") from error
    with files.reachable(path):
        if path.is_dir():
            return _of_folder(path.resolve(), name, folder)
    if not is_path(name) and revision is None and (run := run_of(name)) is not None:
        return _of_folder(run.path.resolve(), name, folder)
    if is_path(name) or path.exists():
        raise ModelError(f"there is no reward model {name}", f"there is no folder {path}", f"name {KIND}")
    facts = describe(name, revision, folder)
    if facts.source == "unknown":
        why = f"there is no such run, no such folder, and {facts.note}"
        raise ModelError(f"the reward model {name} cannot be had", why, f"name {KIND}")
    where = Path(facts.path) if facts.path else None
    return _whole(name, f"the reward model {name} of the hub", facts, where)


def _of_folder(path: Path, name: str, folder: Path) -> JudgeFacts:
    if not any((path / each).is_file() for each in ("config.json", CONFIG, "plan.json")):
        path = newest_in(path) or path
    if (path / "plan.json").is_file():
        if not (path / "trained.json").is_file():
            what = f"the run {path} has left no reward model yet"
            raise ModelError(what, "it has not ended, or failed", f"end it with `forge resume {path}`")
        trained = files.read_object(path / "trained.json")
        if (task := trained.get("task")) != "reward":
            what = f"the run {name} has trained no reward model"
            why = "it trained a classifier" if task == "classification" else "what it trained writes text"
            raise ModelError(what, why, 'name a run of method = "reward"')
        weights = path / str(trained["weights"])
        about = f"the reward model of the run {path}"
        if trained["kind"] == "adapter":
            return _adapter(weights, name, about, folder, trained["base"])
        return _whole(name, about, describe(str(weights), None, folder), weights)
    if (path / CONFIG).is_file() and not (path / "config.json").is_file():
        return _adapter(path, name, f"the reward model in {path}", folder, {})
    return _whole(name, f"the reward model in {path}", describe(str(path), None, folder), path)


def _adapter(path: Path, name: str, about: str, folder: Path, base: Mapping[str, Any]) -> JudgeFacts:
    record = path.parent / "trained.json"
    if not base and record.is_file() and (trained := files.read_object(record)).get("weights") == path.name:
        base = trained["base"]
    config = files.read_object(path / CONFIG)
    if config.get("task_type") != "SEQ_CLS":
        raise ModelError(f"{about} gives no number for a text", "its adapter is for another task", f"name {KIND}")
    if not (path / WEIGHTS).is_file():
        raise ModelError(f"{path} holds no weights of an adapter", f"it has no {WEIGHTS}", "name another folder")
    if not any({"score", "classifier"} & {*shape.split(".")} for shape in read_header(path / WEIGHTS).shapes):
        what = f"{about} lacks its head, which gives the number"
        raise ModelError(what, "its head would start at random", "save it with modules_to_save, as forge does")
    if config.get("trainable_token_indices"):
        what = f"{about} has rows of tokens that its base does not have"
        raise ModelError(what, None, "export it merged, and name that folder")
    where = str(base.get("path") or base.get("id") or config.get("base_model_name_or_path"))
    facts = describe(where, base.get("revision") if where == base.get("id") else None, folder)
    if facts.source == "unknown":
        raise ModelError(f"the base of {about} cannot be had", facts.note, f"get {where}, or name a merged model")
    known = base.get("digest")
    if known and facts.digest and known != facts.digest:
        what = f"{about} was trained on {base.get('id')}, which was another model (its digest differs)"
        raise ModelError(what, None, "restore it, or name a merged model")
    return JudgeFacts(name, about, facts, path, path)


def _whole(name: str, about: str, facts: ModelFacts, folder: Path | None) -> JudgeFacts:
    kind = next(iter(facts.architectures), "no architecture")
    if not kind.endswith(HEAD):
        why = f"its config.json names {kind}, and a reward model is some {HEAD.removeprefix('For')} with one number"
        raise ModelError(f"{about} gives no number for a text", why, f"name {KIND}")
    config = files.read_object(folder / "config.json") if folder else {}
    if folder and (count := numbers(config)) != 1:
        raise ModelError(f"{about} gives {count} numbers for a text", "a reward is one", f"name {KIND}")
    return JudgeFacts(name, about, facts, folder)


def numbers(config: Mapping[str, Any]) -> int:
    """Return how many numbers a classifier gives, by its config.json: transformers writes labels, two if none."""
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, dict) else int(config.get("num_labels") or 2)


def size(name: str, revision: str | None, folder: Path) -> int | None:
    """Return the bytes of a reward model's weights, or None if nobody knows; arguments as of :func:`judge_of`."""
    path = folder / name
    return _size(name, revision, folder, path.stat().st_mtime_ns if path.is_dir() else 0)


@lru_cache(maxsize=16)  # memory is counted for many settings of one job
def _size(name: str, revision: str | None, folder: Path, stamp: int) -> int | None:  # noqa: ARG001 - it makes it anew
    try:
        return judge_of(name, revision, folder).facts.weight_bytes
    except ModelError:
        return None

"""How a model is meant to answer, and what transformers needs to do so.

Who wins: the job's ``[generation]``, then the model's own ``generation_config.json``, then what its family's authors
recommend (``families.toml``). Where nobody says anything the answer is greedy: forge makes no values up.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli

from forge.api import Sampling
from forge_huggingface.facts.folder import damaged, read_object
from forge_huggingface.rendering.tokenizers import stop_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge.api import Job


KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "max_new_tokens")
"""What a recommendation may hold, by transformers' names; ``presence_penalty`` is vLLM's and OpenAI's."""

FOREIGN = frozenset({"presence_penalty"})
"""Keys that transformers' ``GenerationConfig`` does not know, so that an export cannot hold them."""

_THINKS = re.compile(r"think|reason", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Family:
    """One entry of ``families.toml``."""

    name: str
    model_type: tuple[str, ...]
    sampling: Mapping[str, Any]
    source: str
    id: str | None = None
    thinking: bool = False

    def fits(self, model_type: str | None, name: str, *, thinking: bool) -> bool:
        """Whether a model belongs to it."""
        if model_type not in self.model_type or (self.thinking and not thinking):
            return False
        return self.id is None or re.search(self.id, name, re.IGNORECASE) is not None


@cache
def families() -> tuple[Family, ...]:
    """Return the table, in its order."""
    text = (Path(__file__).parent / "families.toml").read_text(encoding="utf-8")
    return tuple(Family(**{**entry, "model_type": tuple(entry["model_type"])}) for entry in tomli.loads(text)["family"])


def family(model_type: str | None, name: str, template: str | None) -> Family | None:
    """Return the family of a model, or None.

    Args:
        model_type: As ``config.json`` says.
        name: The model's id or folder.
        template: Its chat template, which shows whether it reasons unless told otherwise, as Qwen3's does.
    """
    thinking = bool(_THINKS.search(name.rstrip("/").rpartition("/")[2])) or "enable_thinking" in (template or "")
    return next((each for each in families() if each.fits(model_type, name, thinking=thinking)), None)


@dataclass(frozen=True, slots=True)
class Recommended:
    """What a model's own file, its family and the job say.

    Attributes:
        own: The values of the model's ``generation_config.json``.
        family: The family's values, under those of the model itself.
        job: The values of ``[generation]``.
        name: The family's name.
    """

    own: Mapping[str, Any]
    family: Mapping[str, Any]
    job: Mapping[str, Any]
    name: str | None = None

    @property
    def values(self) -> dict[str, Any]:
        """All of them; the job wins over the model, the model over its family."""
        return {**self.family, **self.own, **self.job}

    @property
    def advice(self) -> str:
        """Where the values come from, as a phrase."""
        parts = [
            "[generation] of the job" if self.job else None,
            "the model's generation_config.json" if self.own else None,
            f"what is recommended for {self.name}" if set(self.family) - set(self.own) else None,
        ]
        return ", then ".join(part for part in parts if part) or "greedy, since nothing is recommended"

    def sampling(self) -> Sampling:
        """Return how the model is meant to answer."""
        return replace(Sampling(), **self.values)


def recommended(job: Job, folder: Path | None, model_type: str | None, template: str | None) -> Recommended:
    """Find out how a model is meant to answer.

    Args:
        job: The job, for ``[generation]`` and the model's name.
        folder: The base model's folder, with its own ``generation_config.json``, if it is here.
        model_type: As ``config.json`` says.
        template: The chat template.
    """
    own = own_values(read_config(folder)) if folder is not None else {}
    found = family(model_type, job.model.id, template)
    return Recommended(own, found.sampling if found else {}, job.generation.asked(), found.name if found else None)


def read_config(folder: Path) -> dict[str, Any]:
    """Return a folder's ``generation_config.json``, or nothing. Raises :class:`~forge.api.ModelError` for a bad one."""
    path = folder / "generation_config.json"
    found = read_object(path) if path.is_file() else {}
    for key in KEYS:
        value = found.get(key)
        if value is not None and (type(value) not in (int, float) or not -1e9 < value < 1e9):
            raise damaged(path, f"{key} is {value!r}, not a number")
    return found


def own_values(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a ``generation_config.json`` says about sampling.

    A file that says ``do_sample: false`` asks for greedy answers, whatever else it holds; one that says ``true`` and no
    temperature means transformers' default of 1.
    """
    values = {key: config[key] for key in KEYS if config.get(key) is not None}
    if config.get("do_sample") is False:
        values = {key: value for key, value in values.items() if key not in {"top_p", "top_k", "min_p"}}
        return values | {"temperature": 0.0}
    if config.get("do_sample") and "temperature" not in values:
        values["temperature"] = 1.0
    return values


def fixed(model: Any) -> dict[str, Any]:
    """Return what is no matter of taste: what a decoder begins and ends with, and tokens that are never written.

    Taken from the model's generation settings, else its config, by transformers' names.
    """
    found = {}
    for name in (
        "decoder_start_token_id",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "bad_words_ids",
        "suppress_tokens",
        "begin_suppress_tokens",
    ):
        value = getattr(model.generation_config, name, None)
        value = getattr(model.config, name, None) if value is None else value
        if value is not None:
            found[name] = value
    return found


def complete_config(folder: Path, found: Recommended, ends: Iterable[int]) -> dict[str, Any]:
    """Put into an export's ``generation_config.json`` what the model's own does not say, and return a report.

    Args:
        folder: The export.
        found: How the model is meant to answer.
        ends: Token ids at which its answers end; where the file says so of each already, it stays as it is.

    Returns:
        ``added``: the keys that were written. ``from``: who recommends them. ``left_out``: what the file cannot hold.
    """
    added = {key: value for key, value in {**found.family, **found.job}.items() if found.own.get(key) != value}
    added = {key: value for key, value in added.items() if key in found.job or key not in found.own}
    left_out = sorted(FOREIGN & {key for key, value in added.items() if value})
    added = {key: value for key, value in added.items() if key not in FOREIGN}
    config = read_config(folder)
    if added:
        config["do_sample"] = bool(found.values.get("temperature"))
    if set(ends) - stop_ids(folder):
        added["eos_token_id"] = sorted({*ends, *stop_ids(folder)})
    if not added:
        return {"added": {}, "from": found.advice, "left_out": left_out}
    config |= added
    if config.get("do_sample") is False:  # transformers refuses a file with both
        for key in ("temperature", "top_p", "top_k", "min_p"):
            config.pop(key, None)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {"added": added, "from": found.advice, "left_out": left_out}


def generation_config(
    sampling: Sampling, *, stops: Iterable[int], pad: int, bos: int | None, count: int = 1, **more: Any
) -> Any:
    """Return transformers' settings with every value that matters written out, so that no model's own slip in."""
    from transformers import GenerationConfig

    draws = sampling.temperature > 0
    drawing: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    if sampling.min_p:
        drawing["min_p"] = sampling.min_p
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        do_sample=draws,
        num_beams=1,
        repetition_penalty=sampling.repetition_penalty,
        num_return_sequences=count,
        eos_token_id=sorted(stops),
        pad_token_id=pad,
        bos_token_id=bos,
        use_cache=True,
        **(drawing if draws else {}),
        **more,
    )


def describe(sampling: Sampling) -> dict[str, Any]:
    """Return what differs from greedy answers, and the longest answer, for people and files."""
    neutral = asdict(Sampling())
    said = {key: value for key, value in asdict(sampling).items() if value != neutral[key] or key == "temperature"}
    return said | {"max_new_tokens": sampling.max_new_tokens}

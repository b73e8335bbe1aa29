"""The seam: what a plan decided of kernels, put into a model before its trainer is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import Noted
from forge_huggingface.arguments.options import lean_nll
from forge_huggingface.kernels import lora, loss, mask, mlp, norm, rope, seams
from forge_huggingface.kernels.check import differs
from forge_huggingface.rules.kernels import beside

if TYPE_CHECKING:
    from forge.api import Job, Run


def apply(job: Job, run: Run, model: Any, where: str) -> dict[str, str]:
    """Put the job's kernels into a model, and say of those that do not act why.

    A part that does not fit the model is left to the libraries, alone and with a word.

    Args:
        job: The job.
        run: The run.
        model: The model, wherever it lies now.
        where: torch's name of the device that trains.

    Returns:
        For each part that acts, on what.
    """
    seams.restore()
    parts = job.train.options.get("kernels")
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        return {}
    acts: dict[str, str] = {}
    for part in ("lora", "swiglu", "norm", "rope", "loss", "mask"):  # a feed-forward part holds adapted layers
        if part not in parts:
            continue
        why = unused(part, job, model) or differs(part, model, where)
        found = Installed(why=why) if why else install(part, model, job.train.method, tuple(parts))
        if found.on is None:
            run.emit(Noted(f"kernels: {part} is not used, {found.why}"))
        else:
            acts[part] = found.on
    return acts


def unused(part: str, job: Job, model: Any) -> str | None:
    """Return why nothing would call a part, or None."""
    if getattr(model.config, "is_encoder_decoder", False):
        return "the model has an encoder"
    if part == "lora":
        return beside(job.adapter)
    name = job.train.options.get("loss_type")
    if part == "loss" and job.train.method == "sft" and not lean_nll() and name != "chunked_nll":
        return f'this version of TRL makes all logits under loss_type = "{name}"'
    return None


@dataclass(frozen=True, slots=True)
class Installed:
    """What became of a part.

    Attributes:
        on: On what it acts; None if it does not.
        why: Why it does not act.
    """

    on: str | None = None
    why: str | None = None


def install(part: str, model: Any, method: str, parts: Sequence[str]) -> Installed:
    """Put one part in, and return what became of it."""
    if part in {"loss", "mask"}:
        why = loss.install(model, method) if part == "loss" else mask.install(model, method)
        return Installed(why=why) if why else Installed(on="every batch")
    if part == "lora":
        count, what = lora.install(model), "layers"
    elif part == "swiglu":
        count, what = mlp.install(model, lora="lora" in parts), "feed-forward parts"
    elif part == "norm":
        count, what = norm.install(model), "norms"
    else:
        count, what = rope.install(model), "attention layers"
    return Installed(on=f"{count} {what}") if count else Installed(why=f"the model has no {what} that it could serve")

"""What a run will take, told by a dry run: memory measured beside its estimate, and the disk."""

from __future__ import annotations

import math
import shutil
import sys
from typing import TYPE_CHECKING, Any, cast

from forge.api import Training, load_object
from forge_huggingface.memory.footprint import STATES

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api import Data, Estimate, Job, Run


def outlook(trainer: Any, job: Job, run: Run, data: Data, probed: dict[str, Any]) -> dict[str, Any]:
    """Return what a dry run knows beyond the probe, as JSON data.

    Returns:
        ``longest`` and ``tokens_in_all`` of the training rows; ``estimate``, for the longest row that is really there;
        ``measured``: bytes of ``weights``, ``gradients`` and ``optimizer`` as they lie in memory, of ``moving`` (the
        rest of the peak: activations and logits), the ``peak``, and on a GPU what torch's allocator ``reserved``;
        ``disk``: bytes of a ``checkpoint``, how many are ``kept``, ``weights``, ``exports``, ``total`` and what is
        ``free``.
    """
    estimate = estimate_again(job, run, data)
    return {
        "longest": data.summary.get("longest"),
        "tokens_in_all": data.summary.get("tokens"),
        "estimate": estimate.to_json() if estimate else None,
        "measured": measured(trainer, probed.get("memory")),
        "disk": disk(trainer, job, run),
    }


def estimate_again(job: Job, run: Run, data: Data | None) -> Estimate | None:
    """Return the plan's estimate, made anew for the longest row that is really there."""
    longest = data.summary.get("longest") if data else None
    before = run.plan.estimate if isinstance(run.plan, Training) else None
    reference = next((step.estimate for step in run.plan.steps if step.estimate), None)
    if reference is None or not longest or before is None:  # what could not be told then cannot be now
        return before
    function = cast("Callable[..., Estimate | None]", load_object(reference))
    return function(run.plan.machine, job, run.plan.facts, longest=longest)


def measured(trainer: Any, peak: int | None) -> dict[str, int | None]:
    """Return what lies in memory, in bytes, counted tensor by tensor."""
    weights, gradients, states = in_memory(trainer.model, trainer.optimizer_name)
    moving = None
    on_gpu = trainer.args.device.type == "cuda"
    if peak is not None and on_gpu:  # on a CPU the peak is the process's, libraries and rows included
        moving = max(0, peak - weights - states)
    reserved = int(sys.modules["torch"].cuda.max_memory_reserved()) if on_gpu else None
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": states,
        "moving": moving,
        "peak": peak,
        "reserved": reserved,
    }


def in_memory(model: Any, optim: str) -> tuple[int, int, int]:
    """Return the bytes of a model's weights and buffers, of its gradients, and of Adam's states or the like."""
    tensors = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in model.buffers()}
    trained = 0
    values = states = 0.0
    each, size = STATES.get(optim, (2, 0))
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        extra = sum(
            tensor.numel() * tensor.element_size()
            for part in (state, getattr(state, "state2", None))
            for tensor in (getattr(part, "absmax", None), getattr(part, "code", None))
            if tensor is not None
        )
        tensors[parameter.data_ptr()] = parameter.numel() * parameter.element_size() + extra
        if parameter.requires_grad:
            trained += parameter.numel() * parameter.element_size()
            values += parameter.numel()
            states += each * parameter.numel() * (size or parameter.element_size())
    return sum(tensors.values()), trained, 0 if optim.startswith("paged_") else round(states)


def disk(trainer: Any, job: Job, run: Run) -> dict[str, Any]:
    """Return what checkpoints, weights and exports will take on disk, in bytes."""
    weights, trained, states = in_memory(trainer.model, trainer.optimizer_name)
    options = job.train.options
    whole = job.adapter.leaves_model
    saved = weights if whole else trained
    checkpoint = saved + states
    strategy = str(options.get("save_strategy") or "steps")
    # Old ones go after a new one is whole, so that for a moment there is one more; a stop saves one in any case.
    limit = int(options.get("save_total_limit") or 2) + 1
    every = options.get("save_steps") or 500
    every = every if every >= 1 else every * trainer.state.max_steps
    most = math.ceil(trainer.state.max_steps / max(1, every)) if strategy == "steps" else limit
    kept = min(limit, max(1, most)) if strategy != "no" else 1
    base = run.plan.facts.weight_bytes or weights
    exports = sum(base if export.format == "merged" else saved for export in job.export)
    return {
        "checkpoint": checkpoint,
        "kept": kept,
        "weights": saved,
        "exports": exports,
        "total": checkpoint * kept + saved + exports,
        "free": shutil.disk_usage(run.folder).free,
    }

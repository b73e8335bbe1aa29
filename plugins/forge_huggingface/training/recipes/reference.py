"""The reference model of preference methods: what the model was before it is trained.

With a new adapter it costs nothing, since the trainer switches the adapter off. With one that goes on from another the
reference is the adapter as it was, of which the trainer keeps a copy (:mod:`forge_huggingface.model.start`). Where all
weights are trained, a second copy of the model is needed. TRL would load it by itself from the model's name, in float32
under 1.14; this way it is the same model, from the same folder, in the same type, on every version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Noted
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.model.device import planned_device
from forge_huggingface.model.load import read_model

if TYPE_CHECKING:
    from forge.api import Job, Run


def reference(job: Job, run: Run) -> Any:
    """Return the model that the trained one is compared with, or None where the trainer needs no second one."""
    if not job.adapter.leaves_model or job.train.options.get("precompute_ref_log_probs"):
        return None
    model = read_model(job, run, str(snapshot(job, run, weights=True)), planned_device(job, run))
    run.emit(Noted("all weights are trained, so the reference is a second copy of the model"))
    return model.requires_grad_(requires_grad=False).eval()

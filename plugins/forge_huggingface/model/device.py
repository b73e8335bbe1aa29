"""The device that a model is on, and its memory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from forge.api import ModelError
from forge_huggingface.rules.placement import device, through_main_memory

if TYPE_CHECKING:
    from forge.api import Job, Run


def planned_device(job: Job, run: Run) -> str:
    """Return torch's name of the device that the plan is for. Raises :class:`ModelError` if torch does not see it."""
    import torch

    kind = device(run.plan.machine, job)
    if kind in {"cuda", "rocm"}:
        if not torch.cuda.is_available():
            raise ModelError(
                "the plan is for a GPU that torch cannot use",
                f"torch {torch.__version__} sees none",
                "see `forge doctor`",
            )
        return "cuda:0"
    return "mps" if kind == "mps" else "cpu"


def reading_device(job: Job, run: Run) -> str:
    """Return torch's name of the device that weights are read onto: the CPU's where they go through main memory.

    Raises:
        ModelError: As :func:`planned_device`.
    """
    return "cpu" if through_main_memory(run.plan.machine, job, run.plan.facts) else planned_device(job, run)


def peak() -> int | None:
    """Return the most memory in use so far, in bytes: the GPU's if there is one, else this process's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or in the machine."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "not enough memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)

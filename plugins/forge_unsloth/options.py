"""The keys of ``[plugins.unsloth-text]``."""

from __future__ import annotations

from pydantic import Field

from forge.api import Table


class TextOptions(Table):
    """What only Unsloth can do; everything else of it has its place in the other tables."""

    fast_inference: bool = Field(False, description="Keep a vLLM engine beside the model, for generation. Needs vllm.")
    gpu_memory_utilization: float = Field(
        0.5, gt=0, le=1, description="The share of the GPU's memory that fast_inference may take."
    )

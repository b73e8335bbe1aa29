"""The keys of ``[plugins.unsloth-text]``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TextOptions(BaseModel):
    """What only Unsloth can do; everything else of it has its place in the other tables."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    fast_inference: bool = Field(False, description="Keep a vLLM engine beside the model, for generation. Needs vllm.")
    gpu_memory_utilization: float = Field(
        0.5, gt=0, le=1, description="The share of the GPU's memory that fast_inference may take."
    )

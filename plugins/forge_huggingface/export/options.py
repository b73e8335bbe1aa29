"""The keys that ``format = "merged"`` adds to ``[[export]]``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class MergedOptions(BaseModel):
    """What a whole model is asked for."""

    model_config = ConfigDict(extra="forbid")

    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="Type of the weights that are written; `auto` takes the base model's own."
    )
    base_model: str | None = Field(
        None,
        min_length=1,
        description="The 16-bit model that a base stored in 4 or 8 bit was made from, as a hub id or folder: the "
        "adapter is merged into it.",
    )

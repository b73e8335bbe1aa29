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

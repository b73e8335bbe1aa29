"""The keys of ``[plugins.lm-eval]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from forge.api import NonEmpty, Table


class Options(Table):
    """How the lm-evaluation-harness asks. Named and meant as its own options are."""

    limit: float | None = Field(
        None, gt=0, description="Ask only so many questions of each task, the first ones; below 1, this share of them."
    )
    num_fewshot: int | None = Field(
        None, ge=0, description="How many examples stand before a question; as the task says if left out."
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="Questions at a time; `auto` finds out how many fit on a GPU, and takes 8 on a CPU."
    )
    apply_chat_template: bool | Literal["auto"] = Field(
        "auto",
        description="Put questions into the chat template. `auto`: where the model brings one of its own, so that a "
        "base model is not asked in a form that it has never seen.",
    )
    include_path: NonEmpty | list[NonEmpty] | None = Field(
        None, description="Folders with tasks of your own, as YAML. Python that they name is run."
    )

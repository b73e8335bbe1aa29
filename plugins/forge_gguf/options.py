"""The keys that ``format = "gguf"`` adds to ``[[export]]``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from forge.api import Mistake, Mistakes
from forge_gguf.file.quants import KINDS

ADAPTER_KINDS = ("f16", "f32", "bf16", "q8_0")


class GgufOptions(BaseModel):
    """What a GGUF export is asked for."""

    model_config = ConfigDict(extra="forbid")

    types: list[str] | None = Field(
        None,
        description="Files to write, by type: `q4_k_m`, `q8_0`, `f16`, …; `q4_k_m` if unset, `f16` for an adapter.",
    )
    adapter: bool = Field(False, description="Write the LoRA adapter alone, to be laid over the base's own GGUF file.")
    converter: str | None = Field(
        None, description="Folder of a llama.cpp tree, whose converter writes what forge cannot; or FORGE_LLAMA_CPP."
    )

    @field_validator("types")
    @classmethod
    def _known(cls, types: list[str] | None) -> list[str] | None:
        if types is None:
            return None
        if not types:
            raise ValueError("types is empty; name one, such as q4_k_m")
        lower = [name.lower() for name in types]
        if unknown := [name for name in lower if name not in KINDS]:
            raise ValueError(f"types has {unknown[0]}, which is none of {', '.join(KINDS)}")
        return list(dict.fromkeys(lower))

    @model_validator(mode="after")
    def _consistent(self) -> GgufOptions:
        if self.types is None:
            self.types = ["f16"] if self.adapter else ["q4_k_m"]
        elif self.adapter and (other := [name for name in self.types if name not in ADAPTER_KINDS]):
            what = f"types has {other[0]}, and an adapter is written as one of {', '.join(ADAPTER_KINDS)}"
            raise Mistakes(Mistake(what, ("types",)))
        return self

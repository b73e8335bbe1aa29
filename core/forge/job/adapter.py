"""``[adapter]``: which parameters are trained, and how an adapter of them begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from forge.errors import Mistake
from forge.job.elsewhere import ADAPTER_KEYS, ADAPTERS, BEGINNINGS, advice, folded
from forge.job.keys import keys_of
from forge.job.table import Extensible, Hint, NonEmpty

Beginning = Literal["gaussian", "olora", "orthogonal", "pissa", "pissa_niter_4", "pissa_niter_16"]
"""peft's words for how LoRA begins; ``niter`` counts the steps of a faster, random decomposition."""

OF_LAYERS = frozenset({"type", "layers_to_transform", "target_modules", "modules_to_save"})
"""The keys of ``[adapter]`` that choose layers to train whole."""


class AdapterTable(Extensible):
    """``[adapter]``: which parameters to train. The keys are peft's."""

    type: NonEmpty = Field(
        "lora", description="`lora`, `none` to train every weight, or `layers` to train chosen ones whole."
    )
    from_: NonEmpty | None = Field(
        None,
        alias="from",
        description="Go on from this adapter: a run, a folder with `adapter_config.json`, or a hub id. "
        "It brings the other keys of this table.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit of `from` on the hub. The lock pins it.")
    digest: str | None = Field(
        None, description="Refuse another adapter in `from` than this. Written by forge into the lock."
    )
    r: int = Field(16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: int = Field(32, ge=1, description="LoRA scale: the update is multiplied by `lora_alpha / r`.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    target_modules: str | list[str] = Field(
        "auto",
        description="`auto` (attention and MLP projections), `all-linear`, names of modules, as they end, or a regular "
        "expression for whole names.",
    )
    target_parameters: list[str] | None = Field(
        None,
        description="Parameters to adapt beside these, as their names end; `experts` stands for all of a mixture of "
        "experts, and `[]` leaves them as they are.",
    )
    exclude_modules: list[str] | None = Field(None, description="Names of modules to leave out.")
    modules_to_save: list[str] | None = Field(
        None, description="Modules to train whole and save, beside LoRA or beside the chosen layers."
    )
    ensure_weight_tying: bool = Field(
        False,
        description="Train embedding and output layer as one, where the model has one for both and `modules_to_save` "
        "names it; else what is trained parts from the other.",
    )
    finetune_vision_layers: bool | None = Field(
        None, description="Vision models: adapt the vision tower; with `none`, `false` freezes it. On if unset."
    )
    finetune_language_layers: bool | None = Field(
        None, description="Vision models: adapt the language model. On if unset."
    )
    finetune_attention_modules: bool | None = Field(
        None, description="Vision models: adapt the attention layers. On if unset."
    )
    finetune_mlp_modules: bool | None = Field(None, description="Vision models: adapt the MLP layers. On if unset.")
    layers_to_transform: list[int] | None = Field(
        None, description="Indices of the layers to adapt, or to train whole; of these, -1 is the last one."
    )
    rank_pattern: dict[str, int] = Field(default_factory=dict, description="Other ranks for some modules.")
    alpha_pattern: dict[str, int] = Field(default_factory=dict, description="Other alphas for some modules.")
    bias: Literal["none", "all", "lora_only"] = Field("none", description="Which biases to train.")
    use_rslora: bool = Field(False, description="Scale by `lora_alpha / sqrt(r)` (rank-stabilised LoRA).")
    use_dora: bool = Field(False, description="Weight-decomposed LoRA (DoRA).")
    init_lora_weights: bool | Beginning = Field(
        True,
        description="How to initialise LoRA, as in peft. `olora` and `pissa` begin with a part of the base; what they "
        "leave is a plain LoRA of twice the rank.",
    )

    @field_validator("init_lora_weights", mode="before")
    @classmethod
    def _known_beginning(cls, value: Any) -> Any:
        """Say why forge does not have a beginning that other tools have."""
        if isinstance(value, str) and (why := BEGINNINGS.get(folded(value))):
            raise ValueError(why)
        return value

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:
        """Say what a key of another tool is called here."""
        said = advice(key, ADAPTER_KEYS)
        return Hint(*said) if said else None

    @classmethod
    def forge_word(cls, word: str) -> str | None:
        """Say what to write for a type of another tool."""
        return ADAPTERS.get(folded(word))

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys of this table contradict each other in."""
        if isinstance(self.target_modules, str) and (fault := _fault(self.target_modules)):
            yield Mistake(f"target_modules is no regular expression: {fault}", ("target_modules",))
        if self.target_parameters:
            for name in ("lora_dropout", "use_dora", "layers_to_transform"):
                if getattr(self, name):
                    yield Mistake(f"{name} is not for target_parameters in peft; leave it out", (name,))
            if self.init_lora_weights == "orthogonal":
                what = 'init_lora_weights = "orthogonal" is not for target_parameters in peft; leave it out'
                yield Mistake(what, ("init_lora_weights",))
        words = {name.rpartition(".")[2] for name in self.modules_to_save or ()}
        if self.ensure_weight_tying and not words & {"embed_tokens", "lm_head", "wte", "shared"}:
            what = "ensure_weight_tying does nothing unless modules_to_save names the embedding; remove it"
            yield Mistake(what, ("ensure_weight_tying",))
        for one, other in (("vision_layers", "language_layers"), ("attention_modules", "mlp_modules")):
            both = (f"finetune_{one}", f"finetune_{other}")
            if all(self.parts.get(name) is False for name in both):
                yield Mistake(f"{' and '.join(both)} are both false, which leaves nothing to train", both)
        if self.init_lora_weights == "orthogonal" and any(rank % 2 for rank in (self.r, *self.rank_pattern.values())):
            yield Mistake('init_lora_weights = "orthogonal" needs even ranks', ("init_lora_weights", "r"))
        if self.use_dora and self.takes_from_the_base:
            begin = f'init_lora_weights = "{self.init_lora_weights}"'
            what = f"use_dora cannot be with {begin}: its magnitudes are those of the whole base"
            yield Mistake(what, ("use_dora", "init_lora_weights"))
        if self.takes_from_the_base and (self.from_ or self.target_parameters):
            other = "from" if self.from_ else "target_parameters"
            what = f'init_lora_weights = "{self.init_lora_weights}" cannot be with {other}'
            yield Mistake(what, ("init_lora_weights", other))
        if self.from_ is None and (alone := [name for name in ("revision", "digest") if getattr(self, name)]):
            yield Mistake(f"{' and '.join(alone)} without from does nothing; remove it", tuple(alone))
        if self.type == "layers":
            yield from self._of_layers()
        # A frozen vision tower is a way to train all the rest.
        extra = {key for key, name in keys_of(type(self)).items() if name in self.model_fields_set}
        extra -= {"type", "finetune_vision_layers"}
        if self.type == "none" and extra:
            names = ", ".join(sorted(extra))
            what = f'type = "none" trains every weight, so {names} would do nothing; remove them'
            yield Mistake(what, ("type",))

    def _of_layers(self) -> Iterator[Mistake]:
        """Yield what is wrong with the keys beside ``type = "layers"``."""
        if extra := {key for key, name in keys_of(type(self)).items() if name in self.model_fields_set - OF_LAYERS}:
            names = ", ".join(sorted(extra))
            yield Mistake(f'type = "layers" trains weights whole, so {names} would do nothing; remove them', ("type",))
        if not (self.layers_to_transform or self.modules_to_save or self.target_modules != "auto"):
            what = 'type = "layers" is without layers; name them in layers_to_transform, target_modules or '
            yield Mistake(f"{what}modules_to_save", ("type",))

    @property
    def leaves_model(self) -> bool:
        """Whether the model's own weights are trained, so that a whole model is left and no adapter."""
        return self.type in {"none", "layers"}

    @property
    def takes_from_the_base(self) -> bool:
        """Whether the adapter begins as a part of the base, which then lacks it."""
        return str(self.init_lora_weights).startswith(("olora", "pissa"))

    @property
    def parts(self) -> dict[str, bool]:
        """The ``finetune_…`` keys that the job sets."""
        return {
            name: value
            for name in type(self).model_fields
            if name.startswith("finetune_") and (value := getattr(self, name)) is not None
        }


def _fault(pattern: str) -> str | None:
    """Return what is wrong with a regular expression, or None."""
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None

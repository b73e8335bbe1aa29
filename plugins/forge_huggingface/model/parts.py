"""Which layers of a vision model to adapt: vision tower or language model, attention or MLP.

A vision model is two models in one, often with layers of the same names, so names of layers do not tell them apart.
The parts are those of Unsloth's ``get_peft_model``, by the same names, and both backends adapt the same layers: an
adapter of one is one of the other. What joins the two models (a projector, merger or connector) belongs to neither, and
is adapted only if ``target_modules`` names it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from forge.api import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forge.api import AdapterTable


_TOWER = re.compile(r"(^|[._])(vision|visual|vit|siglip|clip|image_encoder|image_tower)", re.IGNORECASE)
_JOINT = re.compile(r"(projector|connector|merger|aligner|resampler|embed_vision|img_projection)", re.IGNORECASE)
_ATTENTION = re.compile(r"(^|[._])(\w*attn|\w*attention|mixer)([._]|$)")
_MLP = re.compile(r"(^|[._])(\w*mlp|feed_forward|ffn|fc\d|experts?)([._]|$)")


def sees(model: Any) -> bool:
    """Whether a model takes images."""
    names = ("vision_config", "image_token_id", "image_token_index")
    return any(getattr(model.config, name, None) is not None for name in names)


def in_tower(name: str) -> bool:
    """Whether a module or parameter belongs to the vision tower."""
    return _TOWER.search(name) is not None


def targets(model: Any, table: AdapterTable, linear: Sequence[str], named: Iterable[str] | None) -> str | list[str]:
    """Return peft's ``target_modules`` for a vision model.

    Args:
        model: The model.
        table: ``[adapter]``.
        linear: Full names of its linear layers.
        named: The names in ``target_modules``; None for ``"auto"``.

    Raises:
        ModelError: Nothing is left.
    """
    if table.target_modules == "all-linear":
        able = list(linear)
    elif named is None:
        inside = [name for name in linear if _in_block(name) and not _JOINT.search(name)]
        able = [name for name in inside if _ATTENTION.search(name) or _MLP.search(name)]
    else:
        ends = tuple(named)
        able = [name for name in linear if any(name == end or name.endswith(f".{end}") for end in ends)]
    chosen = [name for name in able if _wanted(name, table)]
    if not chosen:
        asked = ", ".join(f"{key} = {str(value).lower()}" for key, value in table.parts.items()) or "target_modules"
        raise ModelError(
            "[adapter] leaves nothing to adapt",
            f"{asked} fits none of {len(linear)} linear layers",
            "change target_modules or the finetune_… keys",
        )
    if table.layers_to_transform is not None:  # peft takes it with names only
        return chosen
    pattern = "|".join(sorted({_any_layer(name) for name in chosen}))
    # A pattern stays readable in adapter_config.json; hundreds of names do not.
    matched = [name for name, _ in model.named_modules() if re.fullmatch(pattern, name)]
    return pattern if sorted(matched) == sorted(chosen) else chosen


def count(model: Any) -> dict[str, int]:
    """Return how many layers of each part have an adapter."""
    adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
    vision = sum(in_tower(name) for name in adapted)
    return {"vision": vision, "language": len(adapted) - vision}


def freeze_tower(model: Any) -> None:
    """Keep the vision tower out of training; what joins it to the language model is trained."""
    for name, parameter in model.named_parameters():
        if frozen(name):
            parameter.requires_grad_(requires_grad=False)


def frozen(name: str) -> bool:
    """Whether a parameter is left out where the vision tower is."""
    return in_tower(name) and _JOINT.search(name) is None


def _any_layer(name: str) -> str:
    """Return a pattern for a layer in every block: numbers may be others."""
    return r"\.".join(r"\d+" if part.isdigit() else re.escape(part) for part in name.split("."))


def _in_block(name: str) -> bool:
    return any(part.isdigit() for part in name.split(".")[:-1])


def _wanted(name: str, table: AdapterTable) -> bool:
    def off(key: str) -> bool:
        return table.parts.get(f"finetune_{key}") is False

    if _JOINT.search(name) is None:
        if off("vision_layers") and in_tower(name):
            return False
        if off("language_layers") and not in_tower(name):
            return False
    if off("attention_modules") and _ATTENTION.search(name):
        return False
    return not (off("mlp_modules") and _MLP.search(name))

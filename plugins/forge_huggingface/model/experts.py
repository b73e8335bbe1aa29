"""The experts of a mixture, as transformers keeps them: one parameter for all of a block, which peft adapts by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import ModelError
from forge_huggingface.rules.experts import EXPERTS

if TYPE_CHECKING:
    from collections.abc import Iterable


def expert_parameters(model: Any) -> list[str]:
    """Return the names of the parameters that hold a block's experts, without what stands before a block's number.

    Raises:
        ModelError: There are none.
    """
    every = model.named_parameters()
    found = sorted({inside(name) for name, value in every if value.dim() == 3 and "experts" in name.split(".")})
    if not found:
        what = '[adapter] target_parameters = ["experts"]: the model has no experts in one parameter'
        raise ModelError(what, "each may be a layer of its own there", "name the layers in target_modules")
    return found


def inside(name: str) -> str:
    """Return a parameter's name behind its block's number."""
    parts = name.split(".")
    numbers = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[0] + 1 :] if numbers else parts)


def taken_for_experts(model: Any, linear: Iterable[str]) -> set[str]:
    """Return the last names of layers that peft takes for a family's experts, whether the model has such or not.

    Before transformers 5 each expert was a layer, with the names that shared experts and dense blocks still have. peft
    turns such a target into the experts' parameter, so the layers of that name cannot be adapted, nor such an adapter
    be loaded (peft, ``utils/transformers_weight_conversion.py``).
    """
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    found = set()
    for leaf in {name.rpartition(".")[2] for name in linear} | EXPERTS:
        config = LoraConfig(target_modules=[leaf])
        try:
            convert_peft_config_for_transformers(config, model, None)
        except ValueError:  # it wants gate and up together
            found.add(leaf)
        else:
            if leaf not in (config.target_modules or ()):
                found.add(leaf)
    return found

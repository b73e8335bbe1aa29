"""A model's settings, every value written out, in the names that mlx-lm reads.

transformers 5 writes the angles of positions as ``rope_parameters``, which mlx-lm does not read, and leaves out what is
its own default; mlx-lm has other defaults. So transformers says them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forge.api import ModelError
from forge_huggingface.facts.folder import reading
from forge_mlx.families import FAMILIES, WINDOWED

LONG = "longrope"
"""transformers' name of angles that are others in long rows."""

_SLIDING, _FULL = "sliding_attention", "full_attention"


def settings_of(folder: Path, longest: int) -> dict[str, Any]:
    """Return the settings of a model for mlx-lm.

    Args:
        folder: The model's folder.
        longest: The longest row in tokens that will be trained on; -1 for the longest that the model takes.

    Raises:
        ModelError: MLX would compute something else than the settings say.
    """
    from transformers import AutoConfig

    with reading(f"cannot read the settings of {folder}", folder, ("config.json",)):
        found: dict[str, Any] = AutoConfig.from_pretrained(str(folder), local_files_only=True).to_dict()
    for name in ("quantization", "quantization_config"):  # mlx-lm takes these from the file itself
        found.pop(name, None)
    layers: list[str] = found.get("layer_types") or []
    rope: dict[str, Any] = found.get("rope_parameters") or {}
    if _FULL in rope:  # a set for each kind of layer
        found["rope_local_base_freq"] = rope[_SLIDING]["rope_theta"]
        rope = rope[_FULL]
    if rope:
        found["rope_theta"] = rope["rope_theta"]
        found["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else dict(rope)
        if rope.get("rope_type") == LONG:
            found["rope_scaling"] = _longrope(found["model_type"], rope, longest)
        if rope.get("partial_rotary_factor") is not None:
            found["partial_rotary_factor"] = rope["partial_rotary_factor"]
    kind, window = found["model_type"], found.get("sliding_window")
    activation = found.get("hidden_activation") or found.get("hidden_act")
    if FAMILIES.get(kind) != activation:
        there = f"MLX's has {FAMILIES[kind]}" if kind in FAMILIES else "forge has not compared MLX's with transformers'"
        what = f"MLX cannot compute this {kind}, whose activation is {activation}"
        raise ModelError(what, there, 'write [use] backend = "huggingface"')
    if kind in WINDOWED:
        found["sliding_window_pattern"] = _pattern(kind, layers)
    elif (
        window and found.get("use_sliding_window") is not False and not 0 < longest <= window and set(layers) != {_FULL}
    ):
        raise ModelError(
            f"MLX's {kind} looks back at all tokens, and this model at the last {window} only",
            f"rows of {'any length' if longest < 0 else f'up to {longest} tokens'} would be another model's",
            f'lower [model] max_seq_length to {window}, or write [use] backend = "huggingface"',
        )
    return found


def _longrope(kind: str, rope: dict[str, Any], longest: int) -> dict[str, Any]:
    """Return angles that differ with a row's length, as those of rows of one kind: MLX takes the long rows' for all."""
    limit, short = rope["original_max_position_embeddings"], rope["short_factor"]
    if rope.get("attention_factor") is not None:
        what = f"MLX's {kind} takes no attention_factor of its own"
        raise ModelError(what, "the model's config.json has one", 'write [use] backend = "huggingface"')
    if short != rope["long_factor"] and not 0 < longest <= limit:
        raise ModelError(
            f"MLX's {kind} cannot have this model's angles of positions",
            f"it has other angles for rows of more than {limit} tokens, and MLX one set for all rows",
            f'lower [model] max_seq_length to {limit}, or write [use] backend = "huggingface"',
        )
    return {**rope, "type": LONG, "long_factor": short}


def _pattern(kind: str, layers: list[str]) -> int:
    """Return every how many layers one looks back at all tokens, which is all that mlx-lm takes of it."""
    every = layers.index(_FULL) + 1 if _FULL in layers else 0
    asked = [_FULL if every and index % every == every - 1 else _SLIDING for index in range(len(layers))]
    if not every or asked != layers:
        raise ModelError(
            f"MLX's {kind} cannot have this model's layers",
            f"it looks back at all tokens in every n-th layer, and here are {', '.join(layers[:8])}",
            'write [use] backend = "huggingface"',
        )
    return every

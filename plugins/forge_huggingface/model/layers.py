"""Chosen layers that are trained whole, ``[adapter] type = "layers"``; all others stay as they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from forge.api import ModelError
from forge_huggingface.facts.targets import fits, is_pattern
from forge_huggingface.model import parts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.api import AdapterTable


HEADS = ("score", "classifier")
"""What models that give numbers call their head."""


def choose(model: Any, table: AdapterTable) -> list[str]:
    """Freeze a model but for what ``[adapter]`` chooses, and return in short what that is.

    Raises:
        ModelError: A layer or a name is not there.
    """
    names = chosen(model, table)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(requires_grad=name in names)
    layers = [f"layer {index}" for index in sorted(numbers(model, table) or ())]
    named = [table.target_modules] if isinstance(table.target_modules, str) else table.target_modules
    whole = [*(table.modules_to_save or ()), *(head for head in _new(model) if hasattr(model, head))]
    return [*layers, *(name for name in named if name != "auto"), *dict.fromkeys(whole)]


def chosen(model: Any, table: AdapterTable) -> set[str]:
    """Return the names of the parameters that ``[adapter]`` chooses, each under the first of its names.

    A module that is named stands for all in it. A tied output layer is the embedding.

    Raises:
        ModelError: A layer or a name is not there.
    """
    wanted = numbers(model, table)
    targets, whole = table.target_modules, table.modules_to_save or []
    new = _new(model)
    pattern = isinstance(targets, str) and is_pattern(targets)
    asked = [targets] if isinstance(targets, str) else targets
    found: set[str] = set()
    used: set[str] = set()
    first: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first.setdefault(id(parameter), name)
        there = list(_prefixes(name))
        if wanted is not None and (parts.in_tower(name) or layer_of(name) not in wanted):
            hits = set()
        elif asked == ["auto"]:
            hits = {"auto"} if wanted is not None else set()
        else:
            # A pattern is for the parameter alone: one that leaves names out would fit a module around them.
            places = there[:1] if pattern else there
            hits = {each for each in asked if any(fits(each if pattern else [each], place) for place in places)}
        hits |= {each for each in (*whole, *new) if any(fits([each], place) for place in there)}
        used |= hits
        if hits:
            found.add(first[id(parameter)])
    for name in [*asked, *whole]:
        if name != "auto" and name not in used:
            where = " in these layers" if wanted is not None and name in asked else ""
            leaves = sorted(
                {place.rpartition(".")[2] for each, _ in model.named_modules() for place in [each] if place}
            )
            what = f'[adapter] type = "layers": {name} fits nothing{where}'
            raise ModelError(what, f"there are {', '.join(each for each in leaves if not each.isdigit())}")
    return found


def _new(model: Any) -> tuple[str, ...]:
    """Return what a model's head may be called that begins at random, and so is trained always."""
    return HEADS if type(model).__name__.endswith("ForSequenceClassification") else ()


def numbers(model: Any, table: AdapterTable) -> set[int] | None:
    """Return the indices of the chosen layers, from 0; None for all. Raises :class:`ModelError` for one not there."""
    if table.layers_to_transform is None:
        return None
    count = 1 + max((layer_of(name) for name, _ in model.named_modules() if not parts.in_tower(name)), default=-1)
    for index in table.layers_to_transform:
        if not -count <= index < count:
            why = f"the layers are 0 to {count - 1}, or -1 for the last to {-count}"
            raise ModelError(f"[adapter] layers_to_transform: there is no layer {index}", why)
    return {index % count for index in table.layers_to_transform}


def layer_of(name: str) -> int:
    """Return the number of the block that a module or parameter is in; -1 outside.

    >>> layer_of("model.layers.3.mlp.experts.7.up_proj.weight"), layer_of("lm_head.weight")
    (3, -1)
    """
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(found[1]) if found else -1


def _prefixes(name: str) -> Iterator[str]:
    """Yield the name of a parameter and of all modules that it is in."""
    while name:
        yield name
        name = name.rpartition(".")[0]

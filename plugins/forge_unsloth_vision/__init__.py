"""The plugin ``unsloth-vision``: vision models through Unsloth, where machine, model and job allow it.

It loads and adapts; rows, trainer and exports are huggingface's. Unsloth's own image collator can be had by name
(``[use] collate = "unsloth-vision"``): it makes its batches itself, from the same rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Offer, Stage, hookimpl
from forge_huggingface.rules.experts import decide_experts
from forge_unsloth import ACCELERATORS, BEFORE, PATCHED, PATCHES, PLATFORMS, PRELOAD, REQUIRES, SHEDS
from forge_unsloth.environment import environment
from forge_unsloth.rules import decide
from forge_unsloth_vision import rules

if TYPE_CHECKING:
    from collections.abc import Iterable

NEEDS = (*REQUIRES, "pillow")


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer to load and to adapt, both or neither; and, for those who name it, Unsloth's collator."""
    yield Offer(
        stage=Stage.LOAD,
        impl="forge_unsloth_vision.load:load",
        supports=frozenset({"vision", "4bit", "8bit", "full", "ddp", "fsdp2"}),  # the probe says why not the last
        requires_dist=NEEDS,
        platforms=PLATFORMS,
        accelerators=ACCELERATORS,
        provides=frozenset({"hf-model", PATCHED}),
        preload=PRELOAD,
        before=BEFORE,
        patches=PATCHES,
        environment=environment(),
        sheds=SHEDS,
        priority=50,
        backend="unsloth",
        probe=rules.cannot_vision,
        decide=decide,
        estimate="forge_unsloth.estimate:estimate",
        fit="forge_unsloth.estimate:fit",
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="forge_unsloth_vision.adapt:adapt",
        serves=frozenset({"lora", "none"}),
        requires_dist=NEEDS,
        platforms=PLATFORMS,
        accelerators=ACCELERATORS,
        depends=frozenset({PATCHED}),
        priority=50,
        backend="unsloth",
        probe=rules.cannot_vision,
        decide=decide_experts,
    )
    yield Offer(
        stage=Stage.COLLATE,
        impl="forge_unsloth_vision.collate:collate",
        supports=frozenset({"vision", "tokens"}),
        requires_dist=NEEDS,
        platforms=PLATFORMS,
        accelerators=ACCELERATORS,
        # huggingface's loader conflicts with it: Unsloth is in the process then.
        provides=frozenset({"unsloth-batches"}),
        preload=PRELOAD,
        before=BEFORE,
        patches=PATCHES,
        environment=environment(),
        sheds=SHEDS,
        priority=-50,
        probe=rules.cannot_collate,
    )

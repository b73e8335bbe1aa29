"""The plugin ``unsloth-text``: text models through Unsloth's kernels, where machine, model and job allow it.

It loads and adapts. The rows, the trainer and the exports are huggingface's, so that a job gets the same training on
both: the trainer imports trl late, and then has Unsloth's classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Offer, Stage, hookimpl
from forge_huggingface.rules.experts import decide_experts
from forge_unsloth import ACCELERATORS, BEFORE, PATCHED, PATCHES, PLATFORMS, PRELOAD, REQUIRES, SHEDS, rules
from forge_unsloth.environment import environment

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer to load and to adapt: both or neither."""
    yield Offer(
        stage=Stage.LOAD,
        impl="forge_unsloth_text.load:load",
        supports=frozenset({"text", "4bit", "8bit", "full", "ddp", "fsdp2"}),  # the probe says why not the last
        requires_dist=REQUIRES,
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
        config="forge_unsloth.options:TextOptions",
        probe=rules.cannot_text,
        decide=rules.decide,
        estimate="forge_unsloth.estimate:estimate",
        fit="forge_unsloth.estimate:fit",
        pace="forge_unsloth.pace:pace",
        trial="forge_huggingface.speed.trial:write",
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="forge_unsloth_text.adapt:adapt",
        serves=frozenset({"lora", "none"}),
        supports=frozenset({"dora"}),
        requires_dist=REQUIRES,
        platforms=PLATFORMS,
        accelerators=ACCELERATORS,
        depends=frozenset({PATCHED}),
        priority=50,
        backend="unsloth",
        probe=rules.cannot_text,
        decide=decide_experts,
    )

"""The plugin `plain`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable
from typing import Any

from forge.api import Extension, Function, Offer, Stage, hookimpl

from forge_plain.rules import cannot, decide, decide_weights, problems

OWN = frozenset({"plain-model"})
"""What only this plugin's stages can rely on between loading and training: they come together, or not at all."""

TRAINED = frozenset({"hf-model"})
"""What a trained model is: files as transformers and peft write them, for everybody's exports, evaluations, chats."""


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: load, adapt and train models of text, on Linux without a GPU."""
    everywhere: dict[str, Any] = {
        "platforms": frozenset({"linux"}),  # so it competes with forge's own there, by its priority
        "priority": 100,  # made for just this: its probe refuses whatever is not
        "requires_dist": ("torch>=2.4", "transformers>=5.17,<6", "peft>=0.18"),
        "probe": cannot,
    }
    yield Offer(
        stage=Stage.LOAD,
        impl="forge_plain.model:load",
        supports=frozenset({"text", "full"}),
        provides=OWN,
        backend="plain",
        decide=decide_weights,
        estimate="forge_plain.memory:estimate",
        **everywhere,
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="forge_plain.model:adapt",
        serves=frozenset({"lora", "none"}),
        depends=OWN,
        backend="plain",
        **everywhere,
    )
    yield Offer(
        stage=Stage.TRAIN,
        impl="forge_plain.train:train",
        serves=frozenset({"sft"}),
        depends=OWN,
        removes=OWN,
        provides=TRAINED,
        options="forge_plain.options:Options",
        check=problems,
        decide=decide,
        **everywhere,
    )

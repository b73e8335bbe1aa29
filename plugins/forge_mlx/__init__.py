"""The plugin ``mlx``: trains and answers with Apple's MLX, from the same job, the same rows, to the same files.

Its rows, its learning rates, its first weights and its adapters are those of the plugin ``huggingface``; what computes
is another library. On Macs with Apple's own processors forge takes it by itself. MLX computes on Linux too, where it is
taken if the job names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Check, Offer, Stage, hookimpl
from forge_huggingface.distributions import DATASETS, MODELS, PEFT
from forge_huggingface.rules.export import export_problems
from forge_huggingface.rules.start import decide_start, start_problems
from forge_mlx.rules import cannot_adapt, cannot_export, cannot_generate, cannot_load, cannot_train
from forge_mlx.rules.deciding import decide_training, decide_weights
from forge_mlx.rules.problems import problems

if TYPE_CHECKING:
    from collections.abc import Iterable

OWN = frozenset({"mlx-model"})
"""What only this plugin's stages can rely on between loading and training: they come together, or not at all."""

TRAINED = frozenset({"hf-model"})
"""What it leaves: files as transformers and peft write them, for everybody's exports, evaluations and chats."""

MLX = ("mlx>=0.32", "mlx-lm>=0.32")
REQUIRES = (*MLX, *MODELS, PEFT)
"""MLX and its models; transformers tells a model's settings, and peft where an adapter goes."""


@hookimpl
def forge_checks() -> Iterable[Check]:
    """Bring what a Mac's owner must still try."""
    yield Check("untried", "What no Apple hardware has run yet.", "forge_mlx.checks:untried")


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer to load, adapt, train, answer, and export for mlx-lm."""
    everywhere: dict[str, Any] = {
        "requires_dist": REQUIRES,
        "platforms": frozenset({"darwin", "linux"}),
        "priority": 100,  # its probe refuses where it is not the best by itself
    }
    yield Offer(
        stage=Stage.LOAD,
        impl="forge_mlx.load:load",
        supports=frozenset({"text", "full", "4bit", "8bit"}),
        provides=OWN,
        backend="mlx",
        probe=cannot_load,
        decide=decide_weights,
        estimate="forge_mlx.memory:estimate",
        fit="forge_mlx.memory:fit",
        **everywhere,
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="forge_mlx.adapt:adapt",
        serves=frozenset({"lora", "none"}),
        supports=frozenset({"dora", "from"}),
        depends=OWN,
        backend="mlx",
        probe=cannot_adapt,
        check=start_problems,
        decide=decide_start,
        **everywhere,
    )
    for method, layout in (("sft", "tokens"), ("dpo", "pairs")):
        yield Offer(
            stage=Stage.TRAIN,
            impl="forge_mlx.training.train:train",
            serves=frozenset({method}),
            depends=OWN,
            removes=OWN,
            provides=TRAINED,
            asks={Stage.COLLATE: frozenset({layout})},
            options="forge_huggingface.arguments.options:train_options",
            probe=cannot_train,
            check=problems,
            decide=decide_training,
            **{**everywhere, "requires_dist": (*REQUIRES, DATASETS)},
        )
    yield Offer(
        stage=Stage.GENERATE,
        impl="forge_mlx.generate:generate",
        supports=frozenset({"text", "base", "adapter", "full"}),
        depends=TRAINED,
        probe=cannot_generate,
        decide=decide_weights,
        **everywhere,
    )
    yield Offer(
        stage=Stage.EXPORT,
        impl="forge_mlx.export:export",
        serves=frozenset({"mlx"}),
        supports=frozenset({"push"}),
        upload="forge_huggingface.hub.push:upload",
        depends=TRAINED,
        options="forge_mlx.options:MLXOptions",
        probe=cannot_export,
        check=export_problems,
        **{**everywhere, "requires_dist": (*REQUIRES, DATASETS)},
    )

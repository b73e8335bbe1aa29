"""The plugin ``sentence-transformers``: embedding models and rerankers, by the trainers of sentence-transformers.

Sources, adapters, checkpoints and events are those of the plugin ``huggingface``; what a row is, what a model is made
of, and what a loss compares is sentence-transformers'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import Offer, Stage, hookimpl
from forge_huggingface.distributions import DATASETS, MODELS, PEFT
from forge_huggingface.rules.loading import decide_weights
from forge_huggingface.rules.packages import TRAINING
from forge_sentence_transformers import rules

if TYPE_CHECKING:
    from collections.abc import Iterable

TRAITS = frozenset({"sentence-transformers-model"})
"""What only this plugin's stages can rely on: they come together, or not at all."""

ROWS, MODEL = "sentence-transformers/texts", "sentence-transformers/model"
"""Words that the methods ask of other stages, and that only this plugin has."""

LIBRARY = "sentence-transformers>=6.2,<7"  # 6.0 cannot read a reranker's adapter
REQUIRES = (LIBRARY, *MODELS, PEFT, DATASETS)


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer every stage of a training, and what follows it."""
    common: dict[str, Any] = {"requires_dist": REQUIRES, "backend": "sentence-transformers"}
    yield Offer(
        stage=Stage.COLLATE,
        impl="forge_sentence_transformers.collate:collate",
        supports=frozenset({"text", ROWS}),
        probe=rules.not_mine,
        **common,
    )
    yield Offer(
        stage=Stage.LOAD,
        impl="forge_sentence_transformers.model:load",
        supports=frozenset({"text", "full", "remote-code", MODEL}),
        provides=TRAITS,
        preload=("torch", "transformers.modeling_utils"),
        probe=rules.cannot_load,
        decide=decide_weights,
        **common,
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="forge_sentence_transformers.model:adapt",
        serves=frozenset({"lora", "none"}),
        supports=frozenset({"dora"}),
        depends=TRAITS,
        probe=rules.not_mine,
        **common,
    )
    yield Offer(
        stage=Stage.TRAIN,
        impl="forge_sentence_transformers.train:train",
        serves=rules.METHODS,
        packages=TRAINING,
        depends=TRAITS,
        asks={Stage.COLLATE: frozenset({ROWS}), Stage.LOAD: frozenset({MODEL})},
        preload=("transformers.trainer",),
        options="forge_sentence_transformers.options:keys",
        probe=rules.cannot_train,
        check=rules.problems,
        decide=rules.decide,
        preflight="forge_sentence_transformers.collate:findings",
        **common,
    )
    yield Offer(
        stage=Stage.GENERATE,
        impl="forge_sentence_transformers.evaluate:generate",
        supports=frozenset({"text", "base", "adapter", "full"}),
        depends=TRAITS,
        probe=rules.not_mine,
        **common,
    )
    yield Offer(
        stage=Stage.EVALUATE,
        impl="forge_sentence_transformers.evaluate:evaluate",
        supports=frozenset({"text"}),
        depends=TRAITS,
        priority=50,  # before the one that asks models for answers
        probe=rules.not_mine,
        check=rules.eval_problems,
        **common,
    )
    yield Offer(
        stage=Stage.EXPORT,
        impl="forge_sentence_transformers.export:export",
        serves=frozenset({"adapter", "merged"}),
        supports=frozenset({"push"}),
        upload="forge_huggingface.hub.push:upload",
        depends=TRAITS,
        probe=rules.not_mine,
        **common,
    )

"""The plugin ``huggingface``: transformers, peft and trl. It works everywhere, and serves every other plugin's models.

This module says what the plugin can do and imports nothing of it; the implementations are in modules named by stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Offer, Stage, hookimpl
from forge_huggingface.distributions import DATASETS, MODELS, PEFT, TRL
from forge_huggingface.evaluation.rules import problems as evaluation_problems
from forge_huggingface.methods import METHODS
from forge_huggingface.offering import method_offer
from forge_huggingface.rules.data import cannot_collate, data_problems, decide_rows
from forge_huggingface.rules.export import cannot_merge, export_problems
from forge_huggingface.rules.loading import cannot_adapt, cannot_generate, cannot_load, decide_weights
from forge_huggingface.rules.packages import LOADING, TRAINING
from forge_huggingface.rules.start import decide_start, start_problems
from forge_huggingface.rules.training import (
    cannot_train_seq2seq,
    decide_training,
    seq2seq_problems,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from forge.api import ModelFacts


__all__ = ["DATASETS", "MODELS", "PEFT", "TRL", "forge_describe", "forge_offers"]

ROWS_NEED = ("torch", "datasets", "transformers.models.auto.tokenization_auto")
MODELS_NEED = ("torch", "transformers.modeling_utils", "peft")
"""What every run imports sooner or later: at once, it takes a fifth less time, and what it takes is known."""


@hookimpl
def forge_describe(id: str, revision: str | None, folder: Path) -> ModelFacts:  # noqa: A002 - the hook's own name
    """Find out about a model in a local folder, in the download cache or on the hub."""
    from forge_huggingface.facts.describe import describe  # only who has a model to describe needs it

    return describe(id, revision, folder)


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer every stage."""
    yield Offer(
        stage=Stage.COLLATE,
        impl="forge_huggingface.data.collate:collate",
        supports=frozenset(
            {
                "text",
                "vision",
                "streaming",
                "packing",
                "tokens",
                "pairs",
                "rated",
                "ranked",
                "labelled",
                "prompts",
                "seq2seq",
                "ddp",
            }
        ),
        requires_dist=(*MODELS, DATASETS),
        preload=ROWS_NEED,
        probe=cannot_collate,
        check=data_problems,
        decide=decide_rows,
    )
    yield Offer(
        stage=Stage.LOAD,
        impl="forge_huggingface.model.load:load",
        supports=frozenset(
            {
                "text",
                "vision",
                "seq2seq",
                "reward-head",
                "classification-head",
                "4bit",
                "8bit",
                "full",
                "remote-code",
                "config",
                "dequantize",
                "named-tokens",
                "ddp",
                "fsdp2",
            }
        ),
        requires_dist=MODELS,
        packages=LOADING,
        provides=frozenset({"hf-model"}),
        conflicts=frozenset({"unsloth-batches"}),
        preload=MODELS_NEED,
        backend="huggingface",
        probe=cannot_load,
        decide=decide_weights,
        estimate="forge_huggingface.memory.estimate:estimate",
        fit="forge_huggingface.memory.fit:fit",
        pace="forge_huggingface.speed.pace:pace",
        trial="forge_huggingface.speed.trial:write",
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="forge_huggingface.model.adapt:adapt",
        serves=frozenset({"lora", "none", "layers"}),
        supports=frozenset({"dora", "from", "target_parameters"}),
        requires_dist=(*MODELS, PEFT),
        depends=frozenset({"hf-model"}),
        conflicts=frozenset({"unsloth-patched"}),  # Unsloth puts its kernels in where it makes the adapter
        backend="huggingface",
        probe=cannot_adapt,
        check=start_problems,
        decide=decide_start,
    )
    for method in METHODS.values():
        yield method_offer(method, "forge_huggingface.training.train:train")
    yield Offer(
        stage=Stage.TRAIN,
        impl="forge_huggingface.training.recipes.seq2seq:train",
        serves=frozenset({"sft"}),
        supports=frozenset({"seq2seq"}),
        requires_dist=(*MODELS, PEFT),
        packages=TRAINING,
        depends=frozenset({"hf-model"}),
        asks={Stage.COLLATE: frozenset({"seq2seq"})},
        options="forge_huggingface.arguments.options:train_options",
        probe=cannot_train_seq2seq,
        check=seq2seq_problems,
        decide=decide_training,
        fit="forge_huggingface.memory.fit:blind",
    )
    yield Offer(
        stage=Stage.GENERATE,
        impl="forge_huggingface.generation.load:generate",
        supports=frozenset({"text", "vision", "seq2seq", "base", "adapter", "full", "lender"}),
        requires_dist=(*MODELS, PEFT),
        packages=LOADING,
        depends=frozenset({"hf-model"}),
        preload=MODELS_NEED,
        probe=cannot_generate,
        decide=decide_weights,
    )
    yield Offer(
        stage=Stage.EVALUATE,
        impl="forge_huggingface.evaluation.evaluate:evaluate",
        supports=frozenset({"text", "vision", "seq2seq"}),
        requires_dist=(*MODELS, DATASETS),
        check=evaluation_problems,
        preflight="forge_huggingface.evaluation.preflight:preflight",
    )
    merged = "forge_huggingface.export.options:MergedOptions"
    for format_, options, probe in (("adapter", None, None), ("merged", merged, cannot_merge)):
        yield Offer(
            stage=Stage.EXPORT,
            impl="forge_huggingface.export.export:export",
            serves=frozenset({format_}),
            supports=frozenset({"push"}),
            upload="forge_huggingface.hub.push:upload",
            requires_dist=(*MODELS, PEFT),
            depends=frozenset({"hf-model"}),
            options=options,
            probe=probe,
            check=export_problems,
        )

"""The plugin ``huggingface``: transformers, peft and trl. It works everywhere, and serves every other plugin's models.

This module says what the plugin can do and imports nothing of it; the implementations are in modules named by stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Offer, Stage, hookimpl
from forge_huggingface import rules
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable

MODELS = ("torch>=2.4", "transformers>=5.17,<6", "accelerate>=1.10")
PEFT = "peft>=0.18"
TRL = "trl>=1.14.2,<1.17,!=1.15.*"  # 1.15.0 cannot train SFT on a CPU: its loss is a Triton kernel without a fallback
DATASETS = "datasets>=4.7,<6"


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer every stage."""
    yield Offer(
        stage=Stage.COLLATE,
        impl="forge_huggingface.collate:collate",
        supports=frozenset(
            {"text", "vision", "streaming", "packing", "tokens", "pairs", "rated", "ranked", "prompts", "seq2seq"}
        ),
        requires_dist=(*MODELS, DATASETS),
        probe=rules.cannot_collate,
        check=rules.data_problems,
        decide=rules.decide_rows,
    )
    yield Offer(
        stage=Stage.LOAD,
        impl="forge_huggingface.load:load",
        supports=frozenset({"text", "vision", "seq2seq", "reward-head", "4bit", "8bit", "full", "remote-code"}),
        requires_dist=MODELS,
        provides=frozenset({"hf-model"}),
        conflicts=frozenset({"unsloth-batches"}),
        backend="huggingface",
        probe=rules.cannot_load,
        decide=rules.decide_weights,
        estimate="forge_huggingface.estimate:estimate",
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="forge_huggingface.adapt:adapt",
        supports=frozenset({"lora", "none", "dora"}),
        requires_dist=(*MODELS, PEFT),
        depends=frozenset({"hf-model"}),
        conflicts=frozenset({"unsloth-patched"}),  # Unsloth puts its kernels in where it makes the adapter
        backend="huggingface",
        probe=rules.cannot_adapt,
    )
    for method in METHODS.values():
        yield Offer(
            stage=Stage.TRAIN,
            impl="forge_huggingface.train:train",
            supports=frozenset({method.name, "vision"} if method.name in {"sft", "dpo"} else {method.name}),
            requires_dist=(*MODELS, PEFT, TRL, DATASETS),
            depends=frozenset({"hf-model"}),
            asks={
                Stage.COLLATE: frozenset({method.layout}),
                Stage.LOAD: frozenset({"reward-head"} if method.head == "reward" else ()),
            },
            environment=method.environment or {},
            preflight="forge_huggingface.rewards.preflight:findings" if method.name in {"grpo", "rloo"} else None,
            options="forge_huggingface.options:train_options",
            probe=rules.cannot_train,
            check=rules.train_problems,
            decide=rules.decide_training,
        )
    yield Offer(
        stage=Stage.TRAIN,
        impl="forge_huggingface.recipes.seq2seq:train",
        supports=frozenset({"sft", "seq2seq"}),
        requires_dist=(*MODELS, PEFT),
        depends=frozenset({"hf-model"}),
        asks={Stage.COLLATE: frozenset({"seq2seq"})},
        options="forge_huggingface.options:train_options",
        probe=rules.cannot_train_seq2seq,
        check=rules.seq2seq_problems,
        decide=rules.decide_training,
    )
    yield Offer(
        stage=Stage.GENERATE,
        impl="forge_huggingface.generation.load:generate",
        supports=frozenset({"text", "vision", "seq2seq", "base", "adapter", "full"}),
        requires_dist=(*MODELS, PEFT),
        depends=frozenset({"hf-model"}),
        probe=rules.cannot_generate,
        decide=rules.decide_weights,
    )
    yield Offer(
        stage=Stage.EVALUATE,
        impl="forge_huggingface.evaluation.evaluate:evaluate",
        supports=frozenset({"text", "vision", "seq2seq"}),
        requires_dist=(*MODELS, DATASETS),
        check=rules.evaluation_problems,
        preflight="forge_huggingface.evaluation.rules:preflight",
    )
    for format_, probe in (("adapter", None), ("merged", rules.cannot_merge)):
        yield Offer(
            stage=Stage.EXPORT,
            impl="forge_huggingface.export:export",
            supports=frozenset({format_, "push"}),
            requires_dist=(*MODELS, PEFT),
            depends=frozenset({"hf-model"}),
            probe=probe,
            check=rules.export_problems,
        )

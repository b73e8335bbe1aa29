"""The stages of a run, and the words in which offers say what they can do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Stage(StrEnum):
    """The stages of a run, in the order in which they run. Generate and evaluate come where a job has ``[eval]``."""

    COLLATE = "collate"
    LOAD = "load"
    ADAPT = "adapt"
    TRAIN = "train"
    GENERATE = "generate"
    EVALUATE = "evaluate"
    EXPORT = "export"


NAMES: Mapping[Stage, frozenset[str]] = {
    Stage.ADAPT: frozenset({"lora", "none", "layers"}),
    Stage.TRAIN: frozenset(
        {
            "sft",
            "dpo",
            "kto",
            "orpo",
            "cpo",
            "reward",
            "classification",
            "grpo",
            "rloo",
            "distill",
            "sdpo",
            "embedding",
            "reranker",
        }
    ),
    Stage.EXPORT: frozenset({"adapter", "merged", "gguf", "mlx"}),
}
"""What a job can ask for by name, at the stages where it does: types of adapters, methods, formats.

They are published so that several plugins can serve the same word, and a typo in ``Offer.serves`` is a mistake that
disables the plugin, with that reason. A plugin adds its own as ``<plugin>/<word>``, and a job asks for them by that
name: ``method = "mlx/sft"``. forge itself does nothing by them."""

ABILITIES: Mapping[Stage, frozenset[str]] = {
    Stage.COLLATE: frozenset(
        {
            "text",
            "vision",
            "streaming",
            "packing",
            "tokens",
            "seq2seq",
            "pairs",
            "rated",
            "ranked",
            "labelled",
            "prompts",
            "ddp",
        }
    ),
    Stage.LOAD: frozenset(
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
    Stage.ADAPT: frozenset({"dora", "from", "target_parameters"}),
    Stage.TRAIN: frozenset({"vision", "seq2seq", "ddp", "fsdp2"}),
    Stage.GENERATE: frozenset({"text", "vision", "seq2seq", "base", "adapter", "full", "gguf", "lender"}),
    Stage.EVALUATE: frozenset({"text", "vision", "seq2seq", "metrics"}),
    Stage.EXPORT: frozenset({"push"}),
}
"""The words that ``Offer.supports`` may hold; a plugin adds its own as ``<plugin>/<word>``, for ``Offer.asks``.

``named-tokens`` says that a stage heeds ``[model] add_tokens``, ``add_special_tokens``, ``pad_token`` and
``eos_token``, ``from`` that it goes on from the adapter that ``[adapter] from`` names. ``ddp`` and ``fsdp2`` say that
it may run in several processes at once, each with the whole model or with a part of it: it heeds
:attr:`forge.api.Run.rank` and :attr:`forge.api.Run.group`. ``metrics`` says that an offer to evaluate brings questions
of its own, beside the held-out rows: ``[eval] metrics = ["<plugin>:<name>"]``; what answers is a ``lender`` then."""

"""The plugin ``gguf``: exports for llama.cpp, Ollama and LM Studio, offline, and checked against the trained model.

This module says what the plugin can do and imports nothing of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Offer, Stage, hookimpl
from forge_gguf import rules

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUIRES = (
    "torch>=2.4",
    "transformers>=5.17,<6",
    "peft>=0.18",
    "gguf>=0.19",
    "xllamacpp>=2026.10",
    "libggml-python>=0.20",
)


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer the format ``gguf``."""
    yield Offer(
        stage=Stage.EXPORT,
        impl="forge_gguf.export:export",
        serves=frozenset({"gguf"}),
        supports=frozenset({"push"}),
        requires_dist=REQUIRES,
        depends=frozenset({"hf-model"}),
        options="forge_gguf.options:GgufOptions",
        probe=rules.cannot_export,
        check=rules.problems,
        preflight="forge_gguf.trial.preflight:preflight",
        resumes=True,
        upload="forge_huggingface.hub.push:upload",
    )
    yield Offer(
        stage=Stage.GENERATE,
        impl="forge_gguf.llama.generate:generate",
        supports=frozenset({"text", "gguf"}),
        requires_dist=("xllamacpp>=2026.10",),
    )

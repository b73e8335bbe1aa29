"""Which models cannot be trained to write, told from config.json alone.

transformers' automatic classes go by the family and not by what the checkpoint is: of Whisper they load the decoder as
a language model without its encoder, of an encoder a language model whose head starts at random. So a model that was
made for something else is refused before it is loaded.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from forge.api import Job, ModelFacts


SPEECH = re.compile(
    r"asr|audio|bark|canary|clvp|codec|csm|^dia$|fastspeech|higgs|hubert|kokoro|kyutai|moonshine|musicgen|omni|"
    r"parakeet|pop2piano|seamless|sew|speech|vibevoice|vits|voice|voxtral|wav2vec|wavlm|whisper",
    re.IGNORECASE,
)
"""Families, and classes, that hear or speak."""

DIFFUSION = re.compile(r"diffus|dllm|llada|^dream|diffucoder|sdar|rnd1", re.IGNORECASE)
"""Language models that fill in masked text in several passes, instead of writing from left to right."""

ENCODERS = frozenset(
    {
        "albert",
        "bert",
        "big_bird",
        "camembert",
        "convbert",
        "data2vec-text",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "esm",
        "eurobert",
        "flaubert",
        "fnet",
        "funnel",
        "gte",
        "ibert",
        "layoutlm",
        "longformer",
        "luke",
        "megatron-bert",
        "mobilebert",
        "modernbert",
        "mpnet",
        "mra",
        "new",
        "nomic_bert",
        "nystromformer",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "roc_bert",
        "roformer",
        "squeezebert",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
        "yoso",
    }
)
"""Families whose models read a text in both directions, by transformers' names (MODEL_FOR_MASKED_LM_MAPPING_NAMES)."""

OTHER_HEADS = re.compile(
    r"For(SequenceClassification|TokenClassification|QuestionAnswering|MaskedLM|MultipleChoice|PreTraining|Reward\w*)$"
)
"""Classes with a head that gives no text."""

CLASSIFY = 'train it on texts with labels: [train] method = "classification"'
WRITE = "forge trains models that write text"

VECTORS = 'method = "embedding" or "reranker" trains it (extra sentence-transformers)'
"""What such models are trained by, if they are to give embeddings or scores."""


def no_language_model(job: Job, facts: ModelFacts) -> str | None:
    """Return why a model is none that a job can train, told from its class and family, or None."""
    if not facts.architectures:
        return None
    name, family = facts.architectures[0], facts.model_type or ""
    if SPEECH.search(family) or (facts.task == "other" and SPEECH.search(name)):
        return f"{name} hears or speaks, and {WRITE}; take a tool for audio models"
    if DIFFUSION.search(family) or (facts.task == "other" and DIFFUSION.search(name)):
        return f"{name} writes by diffusion, and {WRITE} from left to right; take the tool that its authors name"
    method = METHODS.get(job.train.method)
    reads = family in ENCODERS or (facts.task == "other" and name.endswith(("ForMaskedLM", "EncoderModel")))
    if method is not None and method.pooled and (facts.task != "other" or OTHER_HEADS.search(name) or reads):
        return None  # what gives numbers may read in both directions
    if reads:
        what = f"{name} is an encoder, which reads a text and writes none, and {job.train.method} trains what writes"
        return f"{what}; take a decoder, or {CLASSIFY}; {VECTORS}"
    if facts.task == "other" and OTHER_HEADS.search(name):
        what = f"{name} has a head for labels and none for text, and {job.train.method} trains what writes"
        return f"{what}; take the model that it was made from, or {CLASSIFY}"
    if facts.path is not None and (Path(facts.path) / "modules.json").is_file():
        return (
            f"its modules.json says that it is an embedding model of sentence-transformers, and {WRITE}; "
            f"take the language model that it was made from; {VECTORS}"
        )
    if facts.task == "other":
        return f"{name} is no class of a model that writes text (…ForCausalLM, …ForConditionalGeneration), and {WRITE}"
    return None

"""Load the processor of a vision model: the tokenizer and what turns images into numbers, as one object.

A model that takes images is trained through its processor even on rows of text, so that what is saved beside the
weights is the whole of it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from forge.api import ModelError
from forge_huggingface.rendering import clock, tokenizers

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import Job


_NAMED = re.compile(r"(^|_)(image|vision|video|boi|eoi|fake|im)(_|$)")
"""Attributes and config keys that name tokens of images: ``image_token``, ``vision_start_token_id``, ``boi_token``."""


def load(job: Job, folder: Path) -> Any:
    """Return the processor in a local folder, the clock of its chat template stopped at ``[data] date``.

    Raises:
        ModelError: There is none, it is damaged, or a package that it needs is missing.
    """
    from transformers import AutoProcessor

    what = f"the processor of {job.model.id} cannot be loaded"
    try:
        processor = AutoProcessor.from_pretrained(
            str(folder), trust_remote_code=job.model.trust_remote_code, local_files_only=True
        )
    except ImportError as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "a package is missing")
        package = next((name for name in ("torchvision", "num2words", "timm") if name in str(error).lower()), None)
        raise ModelError(what, reason, f"pip install {package}" if package else None) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        # As with tokenizers: what transformers raises depends on which file is missing or damaged.
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"the processor of {job.model.id} is Python code",
                "it is not run unasked",
                "read it, then set [model] trust_remote_code = true",
            ) from error
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        do = "pip install torchvision" if "torchvision" in str(error).lower() else f"see whether {folder} is whole"
        raise ModelError(what, reason, do) from error
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise ModelError(
            f"{job.model.id} has no processor for images and text",
            f"AutoProcessor gives {type(processor).__name__}",
            "add its preprocessor_config.json, or take a whole copy of the model",
        )
    tokenizers.keep(processor.tokenizer)
    for each in (processor, processor.tokenizer):
        clock.stop(getattr(each, "chat_template", None), job.data.date)
    return processor


def image_tokens(processor: Any, folder: Path) -> frozenset[int]:
    """Return the ids of every token that stands for an image or a part of one: never words, so never to be learnt."""
    tokenizer = processor.tokenizer
    values: list[Any] = []
    for holder in (vars(processor), vars(tokenizer), getattr(tokenizer, "special_tokens_map", {})):
        values += [value for key, value in holder.items() if _NAMED.search(str(key)) and "token" in str(key)]
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    values += [value for key, value in config.items() if _NAMED.search(key) and "token" in key]
    vocabulary = tokenizer.get_vocab()
    # Names in the vocabulary tell of those that no attribute holds: the tags of an image's tiles, for one.
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    values += [name for name in special if re.search(r"image|img|vision|video|row_\d+_col", name, re.IGNORECASE)]
    found = {vocabulary.get(str(value)) if not isinstance(value, int) else value for value in values}
    return frozenset(value for value in found if value is not None and not isinstance(value, bool)) - {
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
    }


def placeholder(processor: Any) -> str | None:
    """Return what stands for one image in a rendered text, if the processor says it."""
    token = getattr(processor, "image_token", None)
    return str(token) if token is not None else None

"""Load the processor of a vision model: the tokenizer and what turns images into numbers, as one object.

A model that takes images is trained through its processor even on rows of text, so that what is saved beside the
weights is the whole of it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from forge.api import ModelError
from forge_huggingface.facts.folder import PROCESSOR, keep_legacy, read_object, reading, words
from forge_huggingface.rendering import clock, tokenizers
from forge_huggingface.vision.images import Gallery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forge.api import Job, Run


_NAMED = re.compile(r"(^|_)(image|vision|video|boi|eoi|fake|im)(_|$)")
"""Attributes and config keys that name tokens of images: ``image_token``, ``vision_start_token_id``, ``boi_token``."""


def load(job: Job, folder: Path) -> Any:
    """Return the processor in a local folder, the clock of its chat template stopped at ``[data] date``.

    Raises:
        ModelError: There is none, it is damaged, or a package that it needs is missing.
    """
    from transformers import AutoProcessor

    what = f"the processor of {job.model.id} cannot be loaded"
    with reading(what, folder, PROCESSOR), _packages(what):
        processor = AutoProcessor.from_pretrained(
            str(folder), trust_remote_code=job.model.trust_remote_code, local_files_only=True
        )
        if getattr(processor, "tokenizer", None) is not None:
            tokenizers.try_out(processor.tokenizer)
            _try_out(processor)
    if getattr(processor, "tokenizer", None) is None or getattr(processor, "image_processor", None) is None:
        raise ModelError(
            f"{job.model.id} has no processor for images and text",
            f"AutoProcessor gives {type(processor).__name__}",
            "add its preprocessor_config.json, or take a whole copy of the model",
        )
    limit(processor.image_processor, job.data.min_pixels, job.data.max_pixels)
    keep_legacy(processor.tokenizer)
    for each in (processor, processor.tokenizer):
        clock.stop(getattr(each, "chat_template", None), job.data.date)
    return processor


def areas(image_processor: Any) -> tuple[int, int] | None:
    """Return the fewest and the most pixels that a processor makes of an image; None if it has no such limits.

    Qwen's and its kin's have them, under the names of edges.
    """
    named = getattr(getattr(type(image_processor), "valid_kwargs", None), "__annotations__", {})
    size = dict(getattr(image_processor, "size", None) or {})
    least, most = size.get("shortest_edge"), size.get("longest_edge")
    return (int(least), int(most)) if "min_pixels" in named and least and most else None


def limit(image_processor: Any, least: int | None, most: int | None) -> None:
    """Give a processor the job's limits, if it has such: beyond its own too, which are what it was shipped with."""
    own = areas(image_processor)
    if own is None or (least is None and most is None):
        return
    most = own[1] if most is None else most
    least = min(own[0], most) if least is None else least
    image_processor.size = {"shortest_edge": least, "longest_edge": max(least, most)}


def gallery(job: Job, run: Run, processor: Any) -> Gallery:
    """Return what opens the images of a run, by the limits that the processor does not keep to itself."""
    return Gallery(job, run, limited=areas(processor.image_processor) is not None)


def _try_out(processor: Any) -> None:
    """Show a picture to a processor: values of a wrong type in its files are only met then."""
    from PIL import Image

    try:
        processor(text=[placeholder(processor) or ""], images=[[Image.new("RGB", (64, 64))]], add_special_tokens=False)
    except (ValueError, IndexError, RuntimeError):
        return  # it may want another size or text, as the rows will show


@contextmanager
def _packages(what: str) -> Iterator[None]:
    """Say which package is missing, which transformers says in several ways."""
    try:
        yield
    except (ImportError, ValueError, RuntimeError) as error:
        package = next((name for name in ("torchvision", "num2words", "timm") if name in str(error).lower()), None)
        if package is None:
            raise
        raise ModelError(what, words(error), f"pip install {package}") from error


def image_tokens(processor: Any, folder: Path) -> frozenset[int]:
    """Return the ids of every token that stands for an image or a part of one: never words, so never to be learnt."""
    tokenizer = processor.tokenizer
    values: list[Any] = []
    for holder in (vars(processor), vars(tokenizer), getattr(tokenizer, "special_tokens_map", {})):
        values += [value for key, value in holder.items() if _NAMED.search(str(key)) and "token" in str(key)]
    path = folder / "config.json"
    config = read_object(path) if path.is_file() else {}
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

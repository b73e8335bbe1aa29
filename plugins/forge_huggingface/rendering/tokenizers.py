"""Load the tokenizer of a run and settle what its files leave open: pad token, end tokens, longest row.

No token is added to a vocabulary here: a new one needs a row of the model's embedding, and an adapter trained with it
does not fit the model that everyone else has. Where a job asks for it, the model's folder has it (hub/vocabulary.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.facts.folder import TOKENIZER, damaged, keep_legacy, read_object, reading
from forge_huggingface.facts.shape import vocabulary_of
from forge_huggingface.rendering import clock

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import Job, Run


_PAD_NAMES = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<|PAD_TOKEN|>", "<|vision_pad|>", "<unk>")
"""Tokens that models ship for padding, or never produce, in the order in which they are taken."""


def load(job: Job, folder: Path) -> Any:
    """Return the tokenizer in a local folder, the clock of its chat template stopped at ``[data] date``.

    Raises:
        ModelError: There is none, or it is damaged.
    """
    from transformers import AutoTokenizer

    with reading(f"the tokenizer of {job.model.id} cannot be loaded", folder, TOKENIZER):
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=job.model.trust_remote_code)
        try_out(tokenizer)
    keep_legacy(tokenizer)
    clock.stop(tokenizer.chat_template, job.data.date)
    return tokenizer


def try_out(tokenizer: Any) -> None:
    """Do once what every run does with a tokenizer: some mistakes in its files are only met then."""
    written = tokenizer.chat_template
    for template in written.values() if isinstance(written, dict) else [written]:
        if template is not None and not isinstance(template, str):
            raise TypeError(f"chat_template is {type(template).__name__}, not a text")
    if not isinstance(tokenizer.model_max_length, int | float):
        raise TypeError(f"model_max_length is {tokenizer.model_max_length!r}")
    ids = tokenizer("a b")["input_ids"]
    tokenizer.decode(ids)
    tokenizer.get_vocab()


def vocabulary(job: Job, folder: Path) -> int | None:
    """Return how many tokens the model in a local folder has an embedding for, or None if its config says nothing."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    if (count := vocabulary_of(read_object(path))) is not None:
        return count
    from transformers import AutoConfig

    # A config may leave out what is its family's default.
    with reading(f"the configuration of {job.model.id} cannot be loaded", folder, ["config.json"]):
        whole = AutoConfig.from_pretrained(str(folder), trust_remote_code=job.model.trust_remote_code)
        return getattr(whole.get_text_config(), "vocab_size", None)


def top(tokenizer: Any) -> int:
    """Return the number above a tokenizer's largest id: more than its number of tokens where ids are left out."""
    return max([len(tokenizer), *(int(token) + 1 for token in getattr(tokenizer, "added_tokens_decoder", ()))])


def settle_pad(tokenizer: Any, count: int | None = None) -> tuple[int, str]:
    """Return the id to pad with and how it was chosen; give the tokenizer that pad token if it has none.

    Args:
        tokenizer: The tokenizer.
        count: How many tokens the model has an embedding for: one beyond it cannot be in a batch, hidden or not.
    """
    own = tokenizer.pad_token_id
    if own is not None and (count is None or own < count):
        if own == tokenizer.eos_token_id:
            return int(own), f"{tokenizer.pad_token} (the end token; labels are made before padding)"
        return int(own), f"{tokenizer.pad_token} (the tokenizer's own)"
    known = tokenizer.get_vocab()
    name = next((name for name in _PAD_NAMES if name in known and (count is None or known[name] < count)), None)
    why = "the tokenizer names none" if own is None else f"the model has no embedding for {tokenizer.pad_token}"
    how = f"found in the vocabulary; {why}"
    if name is None:
        why = "there is no other" if own is None else why
        name, how = tokenizer.eos_token, f"the end token, since {why}; labels are made before padding"
    tokenizer.pad_token = name
    return int(tokenizer.convert_tokens_to_ids(name)), f"{name} ({how})"


def stop_ids(folder: Path) -> frozenset[int]:
    """Return the token ids at which the model's own generation settings stop."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file() and (value := read_object(path).get("eos_token_id")) is not None:
            ids = value if isinstance(value, list) else [value]
            if any(type(each) is not int or not 0 <= each < 2**31 for each in ids):
                raise damaged(path, f"eos_token_id is {value!r}, not the number of a token")
            return frozenset(ids)
    return frozenset()


def longest_row(job: Job, run: Run, tokenizer: Any) -> int:
    """Return the most tokens that a row may have."""
    if job.model.max_seq_length != -1:
        return job.model.max_seq_length
    own = run.plan.facts.context or tokenizer.model_max_length
    if own is None or own > 1_000_000_000:  # transformers writes 1e30 where nothing is known
        raise DataError(
            "max_seq_length = -1 cannot be used",
            "the model does not say how long a row it takes",
            "set [model] max_seq_length to a number",
        )
    return int(own)


def fingerprint(processor: Any) -> tuple[Any, ...]:
    """Return what must stay the same about a tokenizer or processor once rows have been made with it."""
    tokenizer = getattr(processor, "tokenizer", processor)
    ids = (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id)
    return (len(tokenizer), *ids, tokenizer.chat_template)

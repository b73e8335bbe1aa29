"""What is trained beside LoRA or every weight, in other tools' words: new tokens, chosen layers, and by Muon."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge_migrate.draft import Draft

ABSENT = frozenset({"corda", "eva", "loftq", "lora-ga", "lora_ga"})
"""Ways in which LoRA begins that forge refuses by name."""

EMBEDDINGS = frozenset({"embed_in", "embed_tokens", "tok_embeddings", "word_embeddings", "wte"})
"""What families call the embedding."""


def new_tokens(draft: Draft, plain: Sequence[str], special: Sequence[str], *, whole: bool) -> None:
    """Add tokens.

    Args:
        draft: The job; its adapter is set.
        plain: Tokens.
        special: Tokens that mark something.
        whole: Whether embedding and output layer are trained whole beside LoRA there.
    """
    if not plain and not special:
        return
    draft.set("model.add_tokens", list(plain) or None)
    draft.set("model.add_special_tokens", list(special) or None)
    draft.tell("new tokens begin as the mean of the others here; other tools draw noise around it")
    if draft.get("adapter.type") != "lora":
        return
    targets = draft.get("adapter.target_modules")
    named = [targets] if isinstance(targets, str) else targets or []
    if adapted := [name for name in named if name.rpartition(".")[2] in EMBEDDINGS]:
        why = "its rows of new tokens are trained whole, and peft does not do both; leave the embedding to those rows"
        draft.lack("LoRA on the embedding", adapted, why)
        draft.set("adapter.target_modules", [name for name in named if name not in adapted] or "auto")
    if whole and not draft.get("adapter.modules_to_save"):
        draft.set("adapter.modules_to_save", ["embed_tokens", "lm_head"], "trained whole there where tokens are added")
    elif not whole:
        draft.tell("the rows of new tokens are trained beside LoRA here; there only where modules_to_save has them")


def layers(draft: Draft, chosen: dict[str, Any], note: str) -> None:
    """Train chosen layers whole."""
    draft.tables["adapter"] = {"type": "layers", **{key: value for key, value in chosen.items() if value}}
    draft.notes["adapter", "type"] = note


def matching(trained: Sequence[str], frozen: Sequence[str] = ()) -> str:
    """Return a pattern for parameters whose names begin so, or by a pattern; or that do not begin as what is frozen.

    >>> pattern = matching(["^lm_head.weight$"])
    >>> re.fullmatch(pattern, "lm_head.weight") is not None, re.fullmatch(pattern, "model.norm.weight") is not None
    (True, False)
    >>> pattern = matching(["visual.merger"], ["visual"])
    >>> [re.fullmatch(pattern, name) is not None for name in ("visual.a", "visual.merger.b", "model.c")]
    [False, True, True]
    """
    found = [rf"(?:{'|'.join(trained)}).*"] if trained else []
    found += [rf"(?!(?:{'|'.join(map(re.escape, frozen))})).*"] if frozen else []
    return "|".join(found)


def muon(draft: Draft, key: str) -> None:
    """Take Muon, where its steps are as long as AdamW's there too."""
    draft.set("train.optim", "muon", f"{key} there")
    draft.tell("Muon: weight_decay is for matrices and embeddings here, and for norms and biases too there")

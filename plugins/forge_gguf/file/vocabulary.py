"""The tokenizer as a GGUF file holds it.

Two kinds can be written: byte-level BPE (``gpt2`` in llama.cpp) and SentencePiece's BPE with byte fallback (``llama``).
What a configuration says of a tokenizer is often not what it does, so whatever can be found out by trying is tried: the
tokens that begin and end a text, the space in front of it, and, in ``pretokenizer.py``, how it splits a text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from forge.api import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


# gguf's TokenType, which is llama.cpp's llama_token_type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

NAME = "a model trained with forge"
"""What every file says under ``general.name``. llama.cpp reads marks in another way where it holds "phi-3", "phi3" or
"modern-bert" (src/llama-vocab.cpp), and cannot load a file whose vocabulary lacks the tokens that it then looks for."""

STRIPPING = "Phi-3, trained with forge"
"""The same where marks take the white space behind them: no other key says so."""

_LOOKED_FOR = ("</s>", "<unk>", "<s>", "<|endoftext|>")
"""Tokens without which llama.cpp cannot load a file of that name."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer's content.

    Attributes:
        model: llama.cpp's name of the algorithm: ``"gpt2"`` or ``"llama"``.
        pre: llama.cpp's name of the way in which texts are split before they are merged.
        tokens: One text per row of the embedding; rows without a token have a name that no text can hold.
        types: One of gguf's token types for each.
        scores: Priorities of ``"llama"``, else empty.
        merges: Pairs to be merged, in order, of ``"gpt2"``, else empty.
        ids: Special tokens by gguf's names: ``bos``, ``eos``, ``eot``, ``unknown``, ``padding``.
        adds: What is added to a text: ``bos_token``, ``eos_token``, ``space_prefix``.
        template: The chat template.
        stops: Ids at which an answer ends, the first of which is ``ids["eos"]``.
        named: Further chat templates by name.
        strips: Whether marks take the white space behind them, as Phi-3's do.
        bare: Whether the run's rows lack the token that its tokenizer puts in front of a text.
    """

    model: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[int, ...]
    scores: tuple[float, ...]
    merges: tuple[str, ...]
    ids: dict[str, int]
    adds: dict[str, bool]
    template: str | None
    stops: tuple[int, ...] = field(default=())
    named: dict[str, str] = field(default_factory=dict)
    strips: bool = False
    bare: bool = False

    def with_pre(self, pre: str) -> Vocabulary:
        """Return the same with another name for how texts are split."""
        return replace(self, pre=pre)

    def begun(self, rows: Sequence[Sequence[int]]) -> Vocabulary:
        """Return the same without the token that begins a text, if most of the run's rows do not begin with it.

        llama.cpp puts it in front of conversations too, also where the chat template does not write it.
        """
        with_it = sum(list(ids[:1]) == [self.ids.get("bos")] for ids in rows)
        if not self.adds["bos_token"] or not rows or 2 * with_it >= len(rows):
            return self
        return replace(self, adds={**self.adds, "bos_token": False}, bare=True)

    def variants(self) -> Iterator[Vocabulary]:
        """Yield the ways in which llama.cpp can be told to read ``"llama"``, the likely one first.

        llama.cpp puts the space that begins a text behind each mark too. Some tokenizers do so, and some, newer ones,
        only where a text begins: where texts begin with a mark, those never write it.
        """
        space = self.adds["space_prefix"]
        for strips in dict.fromkeys((self.strips, False)):
            for prefix in (space, not space):
                yield replace(self, strips=strips, adds={**self.adds, "space_prefix": prefix})

    def keys(self) -> dict[str, Any]:
        """Return the keys of the file; lists are tuples."""
        found: dict[str, Any] = {
            "general.name": STRIPPING if self.strips else NAME,
            "tokenizer.ggml.model": self.model,
            "tokenizer.ggml.pre": self.pre,
            "tokenizer.ggml.tokens": self.tokens,
            "tokenizer.ggml.token_type": self.types,
        }
        if self.scores:
            found["tokenizer.ggml.scores"] = self.scores
        if self.merges:
            found["tokenizer.ggml.merges"] = self.merges
        found |= {f"tokenizer.ggml.{name}_token_id": value for name, value in self.ids.items()}
        found |= {f"tokenizer.ggml.add_{name}": value for name, value in self.adds.items()}
        if self.template:
            found["tokenizer.chat_template"] = self.template
        if self.named:
            found["tokenizer.chat_templates"] = tuple(self.named)
            found |= {f"tokenizer.chat_template.{name}": text for name, text in self.named.items()}
        return found


def inner(tokenizer: Any) -> dict[str, Any]:
    """Return the tokenizer's own description, the content of ``tokenizer.json``."""
    if not getattr(tokenizer, "is_fast", False):
        raise ExportError(
            "the tokenizer cannot be written as GGUF",
            f"{type(tokenizer).__name__} is Python code, not a description",
            "save it as a fast tokenizer (tokenizer.json)",
        )
    described: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return described


def problem(tokenizer: Any) -> str | None:
    """Return why a tokenizer cannot be written, or None."""
    described = inner(tokenizer)
    kind = described["model"].get("type")
    if kind != "BPE":
        return f"the tokenizer is of the kind {kind}, and only BPE can be written"
    return None


def vocabulary(
    tokenizer: Any, rows: int, stops: Iterable[int] = (), variables: Mapping[str, Any] | None = None
) -> Vocabulary:
    """Describe a tokenizer for a model with ``rows`` rows in its embedding.

    Args:
        tokenizer: The tokenizer.
        rows: The rows of the embedding; there may be more than tokens.
        stops: Ids at which the model's generation settings say that an answer ends.
        variables: Variables of the chat template: ``[data] chat_template_kwargs``.

    Raises:
        ExportError: It is of a kind that cannot be written, or has more tokens than there are rows.
    """
    if why := problem(tokenizer):
        raise ExportError("the tokenizer cannot be written as GGUF", why)
    described = inner(tokenizer)
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    if by_id and max(by_id) >= rows:
        why = f"it has the token {max(by_id)}, and the embedding ends at {rows - 1}"
        raise ExportError("the tokenizer does not fit the model", why, "resize the embedding and train again")
    pieces = bool(described["model"].get("byte_fallback"))
    added = {int(token["id"]): token for token in described.get("added_tokens", [])}
    tokens, types = [], []
    for index in range(rows):
        text, kind = by_id.get(index, f"[PAD{index}]"), NORMAL
        if index not in by_id:
            kind = UNUSED
        elif index in added:
            kind = CONTROL if added[index]["special"] or _looks_special(text) else USER_DEFINED
            if kind == USER_DEFINED and pieces:
                text = text.replace("▁", " ")  # llama.cpp looks for it in the text as it was given
        elif pieces and re.fullmatch(r"<0x[0-9A-F]{2}>", text):
            kind = BYTE
        if index in by_id and pieces and text == described["model"].get("unk_token"):
            kind = UNKNOWN
        tokens.append(text)
        types.append(kind)
    strips = pieces and any(token["rstrip"] for token in added.values())
    if strips:
        _name_looked_for(tokens, types)
    merges = [tuple(each.split(" ", 1)) if isinstance(each, str) else each for each in described["model"]["merges"]]
    pad_type = tuple(types)
    ids = _special(tokenizer, stops, variables or {})
    return Vocabulary(
        model="llama" if pieces else "gpt2",
        pre="default",
        tokens=tuple(tokens),
        types=pad_type,
        scores=_scores(tokens, merges) if pieces else (),
        # A space inside a part would end it: llama.cpp reads Ġ there, as for a token.
        merges=() if pieces else tuple(f"{_joined(left)} {_joined(right)}" for left, right in merges),
        ids=ids,
        adds=_added(tokenizer, pieces),
        template=template_of(tokenizer),
        named=_named(tokenizer),
        stops=tuple(dict.fromkeys([index for index in (ids.get("eos"), ids.get("eot"), *stops) if index is not None])),
        strips=strips and set(tokens) >= set(_LOOKED_FOR),
    )


def _name_looked_for(tokens: list[str], types: list[int]) -> None:
    """Give rows that no token has the names that llama.cpp looks for, so that it can be told that marks strip."""
    free = (index for index, kind in enumerate(types) if kind == UNUSED)
    for name, index in zip([name for name in _LOOKED_FOR if name not in tokens], free, strict=False):
        tokens[index] = name


def _joined(part: str) -> str:
    return part.replace(" ", "Ġ")


def _looks_special(text: str) -> bool:
    """Whether an added token is a mark that no text should be read as, though its file does not call it special."""
    return bool(re.fullmatch(r"<[|\uff5c].*[|\uff5c]>|<pad>|<mask>|<unused\d+>|<start_of_turn>|<end_of_turn>", text))


def _scores(tokens: list[str], merges: list[Any]) -> tuple[float, ...]:
    """Return SentencePiece's scores, by which llama.cpp merges the best pair first: the rank of the first merge."""
    rank: dict[str, int] = {}
    for index, (left, right) in enumerate(merges):
        rank.setdefault(left + right, index)
    return tuple(-float(rank[token]) if token in rank else -1e6 for token in tokens)


def _special(tokenizer: Any, stops: Iterable[int], variables: Mapping[str, Any]) -> dict[str, int]:
    """Return the ids of special tokens by gguf's names.

    The end of a turn is what the template writes behind an answer; where it is not the end token, llama.cpp must know
    it by ``eot``, or a chat never stops.
    """
    names = {"bos": "bos", "eos": "eos", "unknown": "unk", "padding": "pad"}
    ids = {name: getattr(tokenizer, f"{own}_token_id", None) for name, own in names.items()}
    end = turn_end(tokenizer, variables)
    others = [index for index in [end, *stops] if index is not None and index != ids["eos"]]
    found = {name: int(index) for name, index in ids.items() if index is not None}
    return found | ({"eot": int(others[0])} if others else {})


def turn_end(tokenizer: Any, variables: Mapping[str, Any]) -> int | None:
    """Return the special token that the chat template writes first behind an answer, or None."""
    template = template_of(tokenizer)
    if not template:
        return None
    answer = "xq7"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}], tokenize=False, **variables
        )
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise ExportError("the chat template cannot render a question and an answer", why) from error
    behind = text.rpartition(answer)[2]
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return next((i for i in tokenizer(behind, add_special_tokens=False)["input_ids"] if i in special), None)


def _added(tokenizer: Any, pieces: bool) -> dict[str, bool]:
    """Return what the tokenizer adds to a text, as it really does it (llama.cpp has defaults of its own)."""
    plain, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    found = {
        "bos_token": bool(whole) and whole[0] == tokenizer.bos_token_id and whole != plain and whole[:1] != plain[:1],
        "eos_token": bool(whole) and whole[-1] == tokenizer.eos_token_id and whole[-1:] != plain[-1:],
    }
    if pieces:
        found["space_prefix"] = tokenizer.convert_ids_to_tokens(plain[0]).startswith("▁") if plain else False
    return found


def template_of(tokenizer: Any) -> str | None:
    """Return the chat template, of several the one for conversations without tools, or None."""
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template or None


def _named(tokenizer: Any) -> dict[str, str]:
    """Return a tokenizer's other templates by names that llama.cpp takes: ``tool_use`` is one that it acts on."""
    template = tokenizer.chat_template
    named = template if isinstance(template, dict) else {}
    taken = {*named, "default", "tool_use"}
    found: dict[str, str] = {}
    for name, text in named.items():
        told = re.sub(r"\W", "_", name.lower())
        if name != "default" and (told == name or told not in taken):
            found[told] = text
            taken.add(told)
    return found

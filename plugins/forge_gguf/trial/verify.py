"""Four gates that a file passes before it counts: keys, tokens, template, logits.

Each sees faults that the others do not. A wrong epsilon shows in no logit, a wrong way of splitting texts in none
either, and a rotation of twice the frequency in no key that was computed from the same mistake (docs/gguf.md has the
measurements). None of them is a matter of taste: the limits are in ``quants.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from forge.api import ExportError
from forge_gguf.file.pretokenizer import differs, short
from forge_gguf.file.vocabulary import template_of
from forge_gguf.trial.texts import rendered
from forge_huggingface.rendering import clock
from forge_huggingface.rows import parting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from forge_gguf.file.architectures import Tensor
    from forge_gguf.file.mixtures import Values
    from forge_gguf.file.quants import Kind
    from forge_gguf.llama.runtime import Generator


# How far a tensor's values may be from the trained ones: root mean square of the difference over that of the values.
# Rounding gives a third of these at most; another tensor's values, or another order of rows, gives more than 1.
ROUNDING: Mapping[str, float] = {
    "F32": 1e-6, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 0.03, "Q6_K": 0.08, "Q5_K": 0.15, "Q5_0": 0.15, "Q5_1": 0.15,
    "Q4_K": 0.3, "Q4_0": 0.3, "Q3_K": 0.5,
}  # fmt: skip
SHOWN = 8
"""Strings that a message tells."""
SAMPLE = 16
"""Rows at each end of a tensor whose values are compared."""


@dataclass(frozen=True, slots=True)
class Gate:
    """What one gate found.

    Attributes:
        name: ``"keys"``, ``"tokens"``, ``"template"``, ``"logits"``, or ``"conversion"`` for the logits of the first
            layers in 16 bit, which no loss by rounding hides.
        state: Whether the file may pass.
        message: What was found, as a phrase.
        values: The same in numbers.
    """

    name: str
    state: Literal["pass", "warn", "fail"]
    message: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"state": self.state, "message": self.message, **self.values}


def check_keys(
    path: Path, keys: Mapping[str, Any], planned: Sequence[tuple[Tensor, str, int]], weights: Values
) -> Gate:
    """Read a file back: every key, every tensor's name, type and shape, and values at both ends of each tensor.

    Args:
        path: The file.
        keys: The keys, computed anew from the model's config and tokenizer.
        planned: The tensors with their types.
        weights: The trained values.
    """
    import gguf

    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, OSError, IndexError) as error:
        return Gate("keys", "fail", f"the file cannot be read: {error}")
    wrong = [
        f"{key} is {_short(there)}, not {_short(value)}"
        for key, value in keys.items()
        if not _equal(there := _value(reader, key), value)
    ]
    found = {tensor.name: tensor for tensor in reader.tensors}
    wrong += [f"there is no tensor {tensor.name}" for tensor, *_ in planned if tensor.name not in found]
    wrong += [f"there is a tensor {name} too many" for name in set(found) - {tensor.name for tensor, *_ in planned}]
    worst = 0.0
    for tensor, format_, _ in planned:
        if tensor.name not in found:
            continue
        there = found[tensor.name]
        shape = tuple(int(length) for length in reversed(there.shape))
        if (there.tensor_type.name, shape) != (format_, tuple(tensor.shape)):
            wrong.append(f"{tensor.name} is {there.tensor_type.name} {shape}, not {format_} {tensor.shape}")
            continue
        distance = _distance(there, tensor, weights)
        worst = max(worst, distance / ROUNDING.get(format_, 0.5))
        if not distance <= ROUNDING.get(format_, 0.5):
            wrong.append(f"{tensor.name} has other values than the trained ones (relative error {distance:.2g})")
    values = {"keys": len(keys), "tensors": len(planned), "wrong": wrong[:20], "rounding": round(worst, 4)}
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        return Gate("keys", "fail", wrong[0] + more, values)
    return Gate("keys", "pass", f"{len(keys)} keys and {len(planned)} tensors as they should be", values)


def _distance(there: Any, tensor: Tensor, weights: Values) -> float:
    """Return the relative error of the rows, or experts, at both ends of a tensor; infinite if a value is no number."""
    import gguf
    import numpy as np

    count = tensor.shape[0]
    near = min(1 if tensor.experts else SAMPLE, count)  # an expert is a whole matrix
    data = there.data.reshape(*tensor.shape[:-1], -1) if len(tensor.shape) > 1 else there.data.reshape(count, -1)
    worst = 0.0
    for start, stop in ((0, near), (count - near, count)):
        wanted = tensor.rows(weights, start, stop).astype(np.float64)
        got = gguf.dequantize(data[start:stop], there.tensor_type).reshape(wanted.shape).astype(np.float64)
        if not np.isfinite(got).all():
            return float("inf")
        scale = float(np.sqrt(np.square(wanted).mean())) or 1.0
        worst = max(worst, float(np.sqrt(np.square(got - wanted).mean())) / scale)
    return worst


def _value(reader: Any, key: str) -> Any:
    found = reader.fields.get(key)
    return None if found is None else found.contents()


def _equal(there: Any, value: Any) -> bool:
    import numpy as np

    if isinstance(value, float):
        return isinstance(there, float) and np.float32(there) == np.float32(value)
    if isinstance(value, tuple):
        if there is None or len(there) != len(value):
            return False
        if value and isinstance(value[0], float):
            return bool(np.array_equal(np.float32(there), np.float32(value)))
        return list(there) == list(value)
    return type(there) is type(value) and bool(there == value)


def _short(value: Any) -> str:
    text = "missing" if value is None else repr(value)
    return text if len(text) < 80 else f"{text[:77]}…"


def check_tokens(
    generator: Generator,
    tokenizer: Any,
    texts: Sequence[str],
    stops: Sequence[int],
    own: Sequence[str] = (),
    *,
    bare: bool = False,
) -> Gate:
    """Compare the ids of texts with the tokens that begin and end it, and of some of them also without these.

    A difference on the run's own texts fails the file, one on other strings is told. Where nothing of the run is known,
    the others decide. A token that is added to texts is added to all.

    Args:
        generator: The file in llama.cpp.
        tokenizer: The tokenizer that was trained with.
        texts: Strings on which tokenizers differ.
        stops: Ids at which answers end, for the record.
        own: The run's rows, and a question as its template renders it.
        bare: Whether the file is not to put in front of a text what the tokenizer does, since no row has it.
    """
    mine = [text for text in own if differs(generator, tokenizer, text)]
    wrong: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        for special in (True,) if number % 8 else (True, False):
            there = generator.tokens(text, special=special)
            wanted = tokenizer(text, add_special_tokens=special and not bare)["input_ids"]
            if there != wanted:
                wrong.append({"text": text, "special": special, "there": there[:40], "wanted": wanted[:40]})
                break
    values = {"texts": len(texts), "different": len(wrong), "first": wrong[:5], "stops": list(stops)}
    values |= {"own": len(own), "own_different": len(mine)}
    if mine:
        said = f"{len(mine)} of {len(own)} rows of this run give other ids, {short(mine[0])} first"
        return Gate("tokens", "fail", f"{said}: {parted(generator, tokenizer, mine[0])}", values)
    if not wrong:
        return Gate("tokens", "pass", f"{len(own) + len(texts)} texts give the same ids", values)
    first, count = wrong[0], f"{len(wrong)} of {len(texts)}"
    if not differs(generator, tokenizer, first["text"]):
        why = f"it begins with the ids {first['there'][:2]} instead of {first['wanted'][:2]}: a token is added to texts"
        return Gate("tokens", "fail", f"{count} texts give other ids, {short(first['text'])} first: {why}", values)
    if not own:
        why = f"{short(first['text'])} first: it is split in another way"
        return Gate("tokens", "fail", f"{count} texts give other ids, {why}", values)
    shown = ", ".join(short(each["text"]) for each in wrong[:SHOWN])
    said = f"llama.cpp reads {count} strings in another way that none of {len(own)} rows tried shows"
    return Gate("tokens", "warn", f"{said}: {shown}{', …' if len(wrong) > SHOWN else ''}", values)


def parted(generator: Generator, tokenizer: Any, text: str) -> str:
    """Say how llama.cpp reads a text, and how it should, around the first token that differs."""
    there, wanted = generator.tokens(text, special=False), tokenizer(text, add_special_tokens=False)["input_ids"]
    at = parting(there, wanted)
    names = [" ".join(tokenizer.convert_ids_to_tokens(ids[max(0, at - 1) : at + 3])) for ids in (there, wanted)]
    return f"it is split in another way, {names[0]!r} instead of {names[1]!r}"


def check_template(generator: Generator, tokenizer: Any, variables: Mapping[str, Any]) -> Gate:
    """Compare conversations as transformers and llama.cpp render them.

    A token that begins every text is left out by llama.cpp here, which puts it in front of the ids instead. It has a
    clock of its own, so a template that asks for the time is asked at the same time here, not at the run's.

    Args:
        generator: The file in llama.cpp.
        tokenizer: The tokenizer.
        variables: Those of ``[data] chat_template_kwargs``.
    """
    if not tokenizer.chat_template:
        return Gate("template", "pass", "the tokenizer has no chat template", {"conversations": 0})
    with clock.going(template_of(tokenizer) or ""):
        return _alike(generator, tokenizer, variables)


def _alike(generator: Generator, tokenizer: Any, variables: Mapping[str, Any]) -> Gate:
    pairs = rendered(tokenizer, variables)
    wrong, spaces = [], 0
    for conversation, wanted in pairs:
        try:
            there = generator.render(conversation, variables)
        except ExportError as error:
            wrong.append({"messages": list(conversation), "there": str(error), "wanted": wanted})
            continue
        bos = tokenizer.bos_token
        if bos and wanted.startswith(bos) and not there.startswith(bos):
            wanted = wanted.removeprefix(bos)
        if there != wanted and "".join(there.split()) == "".join(wanted.split()):
            spaces += 1
        elif there != wanted:
            wrong.append({"messages": list(conversation), "there": there, "wanted": wanted})
    values = {"conversations": len(pairs), "different": len(wrong), "spaces": spaces, "first": wrong[:1]}
    if wrong:
        there, wanted = str(wrong[0]["there"]), str(wrong[0]["wanted"])
        at = parting(there, wanted)
        near = f"{there[max(0, at - 20) : at + 30]!r} instead of {wanted[max(0, at - 20) : at + 30]!r}"
        return Gate(
            "template", "fail", f"{len(wrong)} of {len(pairs)} conversations are rendered differently: {near}", values
        )
    if spaces:
        return Gate("template", "warn", f"{spaces} of {len(pairs)} conversations differ in white space", values)
    return Gate("template", "pass", f"{len(pairs)} conversations are rendered alike", values)


def check_logits(
    generator: Generator,
    rows: Sequence[Sequence[int]],
    trained: Sequence[NDArray[Any]],
    kind: Kind,
    name: str = "logits",
) -> Gate:
    """Compare probabilities of the next token after every position of some rows.

    Args:
        generator: The file in llama.cpp.
        rows: Rows of ids.
        trained: For each row the trained model's logarithms of probabilities, shape (ids, vocabulary).
        kind: The type whose limits hold.
        name: The gate's name.
    """
    import numpy as np

    divergences, same = [], []
    for ids, wanted in zip(rows, trained, strict=True):
        found, chances = generator.logits(ids, top=min(1024, wanted.shape[1]))
        p = np.take_along_axis(wanted, found, axis=1).astype(np.float64)
        q = chances.astype(np.float64)
        # llama.cpp tells the most probable tokens only; all others together are one more outcome on both sides. This
        # can make a divergence smaller, never larger.
        rest = [np.clip(1 - np.exp(each).sum(1), 1e-9, 1) for each in (p, q)]
        divergences.append((np.exp(p) * (p - q)).sum(1) + rest[0] * np.log(rest[0] / rest[1]))
        same.append(found[:, 0] == wanted.argmax(1))
    every, top1 = np.concatenate(divergences), float(np.concatenate(same).mean())
    mean = float(max(every.mean(), 0))
    values = {"kl_mean": mean, "kl_max": float(every.max()), "top1": top1, "positions": len(every)}
    values |= {"kl_pass": kind.kl[0], "kl_limit": kind.kl[1]}
    found_out = f"KL {mean:.2g} (limit {kind.kl[1]:g}), {top1:.1%} equal top tokens of {len(every)}"
    if not mean <= kind.kl[1]:
        return Gate(name, "fail", found_out, values)
    if mean <= kind.kl[0] and top1 >= kind.top1:
        return Gate(name, "pass", found_out, values)
    usual = f"files of this type mostly have a KL of at most {kind.kl[0]:g} and {kind.top1:.0%} or more"
    return Gate(name, "warn", f"{found_out}; {usual}", values)


def check_end(generator: Generator, tokenizer: Any, prompt: Sequence[int], count: int = 128) -> dict[str, Any]:
    """Let the file answer a prompt greedily, and say whether the answer ended by itself within ``count`` tokens."""
    ids, ended = generator.continue_from(prompt, count)
    return {"ended": ended, "tokens": len(ids), "text": tokenizer.decode(ids, skip_special_tokens=True)[:500]}


def verdict(gates: Sequence[Gate], kind: Kind) -> tuple[str, str] | None:
    """Return what failed and what it means, or None if the file passes."""
    failed = [gate for gate in gates if gate.state == "fail"]
    if not failed:
        return None
    said = "; ".join(f"{gate.name}: {gate.message}" for gate in failed)
    exact = kind.name in {"f32", "f16", "bf16"}
    if [gate.name for gate in failed] == ["logits"] and not exact:
        better = "f16" if kind.name == "q8_0" else "q8_0"
        return said, f"quantisation loss: the conversion is right, the model does not bear {kind.name}; take {better}"
    return said, "broken export: please report it with the run's log"

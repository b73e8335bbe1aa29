"""The shape of a model, from its ``config.json`` and the headers of its weight files: what memory is counted with.

Families name the same number in a dozen ways, and what a config leaves out (biases, norms, a tower that sees) stands in
the weight files anyway. So the files tell which layers there are, where they are on this machine; the config alone
tells it for the many families that are built as Llama is, before anything is downloaded.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api import Linear, Shape

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from forge_huggingface.facts.safetensors import Header


ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
"""What chooses the experts of a mixture: 16-bit in 4 bit too, and never adapted by ``"auto"``."""

_GATES, _UPS, _DOWNS = frozenset({"gate_proj", "w1"}), frozenset({"up_proj", "w3"}), frozenset({"down_proj", "w2"})
_STACKED: Mapping[str, str] = {
    "gate_up_proj": "gate_up_proj",
    "up_proj": "up_proj",
    "down_proj": "down_proj",
    "input_linear": "gate_up_proj",
    "output_linear": "down_proj",
}
"""What files call a matrix of all experts of a block, with the name that transformers gives it in memory."""

# What the families call a number, in the order in which to look. A text model inside a vision model has a text_config.
_NAMES: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden": ("hidden_size", "n_embd", "d_model", "dim"),
    "intermediate": ("intermediate_size", "n_inner", "ffn_dim", "d_ff", "ffn_hidden_size"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "kv_heads": ("num_key_value_heads", "n_head_kv", "num_kv_heads"),
    "head_dim": ("head_dim", "d_kv"),
    "vocab": ("vocab_size",),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk"),
    "expert_size": ("moe_intermediate_size",),
    "shared_experts": ("n_shared_experts", "num_shared_experts"),
    "shared_size": ("shared_expert_intermediate_size",),
    "dense_layers": ("first_k_dense_replace",),
}
_NEEDED = frozenset(key for name in ("hidden", "vocab") for key in _NAMES[name])
_MOST = 2**40  # more of anything is no model's, and would only overflow
_TEXT = ("text_config", "language_config", "llm_config")
_UNGATED = frozenset(
    {"bloom", "falcon", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "mpt", "opt", "phi", "starcoder2"}
)
_FOUR_NORMS = frozenset({"gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "glm4"})
_HEAD_NORMS = frozenset(
    {"gemma3", "gemma3_text", "gemma3n_text", "olmo2", "olmo3", "qwen3", "qwen3_moe", "qwen3_vl_text", "smollm3"}
)
_TIED = frozenset({"bloom", "gemma", "gpt2", "gpt_neo", "opt", "smollm3"})  # by default: their configs leave it out
# What a vision model calls the part that sees, and what leads from it into the language model; as in forge's [adapter].
_TOWERS = frozenset({"audio_tower", "vision_encoder", "vision_model", "vision_tower", "visual"})
_JOINTS = ("aligner", "connector", "merger", "projector", "resampler")
EMBEDDINGS = frozenset({"embed_in", "embed_tokens", "shared", "word_embeddings", "wpe", "wte"})
"""What models call the layer that takes ids."""
_HEADS = frozenset({"embed_out", "lm_head", "output"})


def vocabulary_of(config: Mapping[str, Any]) -> int | None:
    """Return how many tokens a ``config.json`` says that the model has; None if it does not say."""
    return _number(config, _text_of(config), "vocab")


def with_vocabulary(config: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return a ``config.json`` that says another number of tokens, wherever it says one.

    >>> with_vocabulary({"vocab_size": 8, "text_config": {"vocab_size": 8}}, 9)
    {'vocab_size': 9, 'text_config': {'vocab_size': 9}}
    >>> with_vocabulary({"hidden_size": 4}, 9)
    {'hidden_size': 4, 'vocab_size': 9}
    """
    said = {name: {**part, "vocab_size": count} for name in _TEXT if isinstance(part := config.get(name), dict)}
    return {**config, **said, **({} if said and "vocab_size" not in config else {"vocab_size": count})}


def is_of_words(name: str) -> bool:
    """Whether a tensor of a file has a row for each token: the embedding's, or the output layer's.

    >>> is_of_words("model.embed_tokens.weight"), is_of_words("model.layers.0.mlp.up_proj.weight")
    (True, False)
    """
    module, _, kind = name.rpartition(".")
    leaf = module.rpartition(".")[2]
    return kind in {"weight", "bias"} and (leaf in _HEADS or leaf in EMBEDDINGS - {"wpe"})


def _text_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((part for name in _TEXT if isinstance(part := config.get(name), dict)), {})


def _number(config: Mapping[str, Any], text: Mapping[str, Any], name: str) -> int | None:
    for part in (text, config):
        for key in _NAMES[name]:
            if isinstance(value := part.get(key), int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def wrong_value(config: dict[str, Any]) -> str | None:
    """Return what is wrong with a value of a ``config.json`` that no model can have; None if nothing is."""
    kind, built = config.get("model_type"), config.get("architectures")
    if not isinstance(kind, str | None):
        return f"model_type is {_written(kind)}, not a text"
    if built is not None and not (isinstance(built, list) and all(isinstance(name, str) for name in built)):
        return f"architectures is {_written(built)}, not a list of texts"
    parts = {"": config} | {f"{name}.": config.get(name) for name in (*_TEXT, "vision_config")}
    for where, part in parts.items():
        if part is not None and not isinstance(part, dict):
            return f"{where.rstrip('.')} is {_written(part)}, not an object"
        for key in (key for keys in _NAMES.values() for key in keys):
            value = (part or {}).get(key)
            # Families with layers of several sizes write a list; where there are no experts, some write 0.
            if value is None or isinstance(value, list):
                continue
            least = 1 if key in _NEEDED else 0
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < _MOST:
                return f"{where}{key} is {_written(value)}, not a whole number of {least} or more"
    return None


def _written(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def from_config(config: Mapping[str, Any]) -> Shape | None:
    """Return the shape that a ``config.json`` tells, as if the model were built as Llama is; None if it tells none."""
    text = _text_of(config)
    number = functools.partial(_number, config, text)
    layers, hidden, heads, vocab = (number(name) for name in ("layers", "hidden", "heads", "vocab"))
    if layers is None or hidden is None or heads is None or vocab is None:
        return None
    kind = str(text.get("model_type") or config.get("model_type") or "")
    head_dim, kv_heads = number("head_dim") or hidden // heads, number("kv_heads") or heads
    inner = number("intermediate") or 4 * hidden
    experts, seen = number("experts"), number("experts_per_token") or 1
    expert_size = number("expert_size") or inner
    gated = kind not in _UNGATED
    query, key = heads * head_dim, kv_heads * head_dim
    linears = [Linear("q_proj", hidden, query, layers), Linear("k_proj", hidden, key, layers)]
    linears += [Linear("v_proj", hidden, key, layers), Linear("o_proj", query, hidden, layers)]
    dense = min(number("dense_layers") or 0, layers) if experts else layers
    shared = number("shared_size") or expert_size * (number("shared_experts") or 0) if experts else 0
    for width, count in ((inner, dense), (shared, layers - dense)):
        if width and count:
            linears += [Linear(name, hidden, width, count) for name in ("gate_proj", "up_proj")[not gated :]]
            linears.append(Linear("down_proj", width, hidden, count))
    if experts:
        linears += _experts(hidden, expert_size, (layers - dense) * experts, gated=gated)
    tied = tie(config)
    norms, head_norms = (4 if kind in _FOUR_NORMS else 2), kind in _HEAD_NORMS
    return Shape(
        layers=layers,
        hidden=hidden,
        intermediate=expert_size * seen + shared if experts else inner,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocab=vocab,
        tied=tied,
        gated=gated,
        norms=norms,
        head_norms=head_norms,
        linears=tuple(linears),
        embedding=vocab * hidden * (1 if tied else 2),
        rest=layers * (norms * hidden + 2 * head_dim * head_norms)
        + (layers - dense) * hidden * (experts or 0)
        + hidden,
        exact=False,
        mixture=speaks_of_experts(config),
        experts=experts or 0,
        experts_per_token=seen if experts else 0,
        router_aux_loss_coef=_coefficient({**config, **text}),
    )


def _experts(hidden: int, width: int, count: int, *, gated: bool) -> list[Linear]:
    """Return the layers of experts as transformers keeps them: gate and up are one."""
    into = Linear("gate_up_proj", hidden, 2 * width, count, "experts")
    into = into if gated else Linear("up_proj", hidden, width, count, "experts")
    return [into, Linear("down_proj", width, hidden, count, "experts")]


def _coefficient(config: Mapping[str, Any]) -> float | None:
    value = config.get("router_aux_loss_coef")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def speaks_of_experts(config: Mapping[Any, Any]) -> bool:
    """Return whether a ``config.json``, or a part of it, sets anything about experts, by whatever name."""
    kind = f"{config.get('model_type')} {config.get('architectures')}".lower()
    if any(word in kind for word in ("moe", "mixtral")):
        return True
    for key, value in config.items():
        if isinstance(value, dict) and speaks_of_experts(value):
            return True
        if value and any(word in str(key) for word in ("expert", "moe", "router")):
            return True
    return False


def tie(config: Mapping[str, Any]) -> bool:
    """Return whether the output layer is the embedding, as a ``config.json`` says."""
    text = next((part for name in _TEXT if isinstance(part := config.get(name), dict)), {})
    kind = str(text.get("model_type") or config.get("model_type") or "").removesuffix("_text")
    default = kind in _TIED or kind.startswith("gemma")
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", default)))


def from_headers(shape: Shape, headers: Iterable[Header], parameters: int) -> Shape:
    """Return a config's shape with what the weight files tell: every layer, norm and parameter that is really there.

    Args:
        shape: The config's.
        headers: The headers of all weight files.
        parameters: The parameters that they hold, tied ones counted once.
    """
    found: Counter[tuple[str, int, int, str]] = Counter()
    norms: Counter[tuple[str, int]] = Counter()
    embedding, head = 0, 0
    for header in headers:
        for name, extents in header.shapes.items():
            module, _, kind = name.rpartition(".")
            pieces = module.split(".")
            leaf, sees = pieces[-1], not _TOWERS.isdisjoint(pieces)
            if len(extents) == 3 and (stack := _stacked(name)) is not None:
                # Some families turn the matrices of their experts around: the stream's width tells.
                into = extents[2] if (stack == "down_proj") == (extents[1] == shape.hidden) else extents[1]
                found[stack, into, extents[1] + extents[2] - into, "experts"] += extents[0]
                continue
            if kind != "weight" or (leaf not in ROUTERS and not ROUTERS.isdisjoint(pieces)):
                continue
            if leaf in _HEADS:
                head += _product(extents)
            elif leaf in EMBEDDINGS and len(extents) == 2:
                embedding += _product(extents)
            elif len(extents) == 2 and any(piece.isdigit() for piece in pieces):
                part = "vision" if sees else "experts" if "experts" in pieces else "language"
                part = "joint" if any(word in module for word in _JOINTS) else part
                found[leaf, extents[1], extents[0], part] += 1
            elif len(extents) == 1 and not sees:
                norms[leaf, extents[0]] += 1
    tied = shape.tied or not head
    linears = tuple(Linear(name, into, out, count, part) for (name, into, out, part), count in _joined(found))
    blocks = [leaf for (leaf, width), count in norms.items() if width == shape.hidden and count >= shape.layers]
    names = {linear.name for linear in linears if linear.part in {"language", "experts"}} - {"gate"}
    embedding += 0 if tied else head
    return replace(
        shape,
        tied=tied,
        gated=any("gate" in name for name in names) or {"w1", "w3"} <= names,
        norms=len(blocks) or shape.norms,
        head_norms=any(leaf.startswith(("q_norm", "q_layernorm")) for leaf, _ in norms),
        linears=linears,
        embedding=embedding,
        rest=parameters - embedding - sum(linear.parameters for linear in linears),
        exact=True,
    )


def _stacked(name: str) -> str | None:
    """Return what transformers calls a matrix of all experts of a block, from its name in a file; None for others."""
    pieces = name.removesuffix(".weight").split(".")
    known = pieces[-1] in {"input_linear", "output_linear"} or "experts" in pieces
    return _STACKED.get(pieces[-1]) if known else None


def _joined(found: Counter[tuple[str, int, int, str]]) -> list[tuple[tuple[str, int, int, str], int]]:
    """Return layers with those of experts as transformers keeps them, whatever files call them: gate and up as one."""
    apart = {key: count for key, count in found.items() if key[3] == "experts"}
    result = Counter({key: count for key, count in found.items() if key not in apart})
    gated = any(name in _GATES for name, *_ in apart)
    for (name, into, out, part), count in apart.items():
        if gated and name in _GATES:
            result["gate_up_proj", into, 2 * out, part] += count
        elif not (gated and name in _UPS):
            result["down_proj" if name in _DOWNS else name, into, out, part] += count
    return sorted(result.items())


def _product(extents: Iterable[int]) -> int:
    total = 1
    for extent in extents:
        total *= extent
    return total

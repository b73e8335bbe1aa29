"""The architectures that forge writes itself: their keys, their tensors' names, and what is done to the values.

Each entry passes all four gates in ``tests/gguf/test_architectures.py`` with a random model of its class. The names of
keys and tensors are those of the package ``gguf`` (``gguf/constants.py``, ``gguf/tensor_mapping.py``); what must be
done to values was learned from llama.cpp's ``conversion/`` and its graphs in ``src/models/``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import ExportError
from forge_gguf.file import mixtures
from forge_gguf.file.mixtures import Config, Expert, Values, expert_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from forge_gguf.file.weights import Weights


BLOCK = 1 << 22
"""Numbers that are read, changed and encoded at a time: 16 MiB as float32."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """How one class of transformers is written.

    Attributes:
        name: llama.cpp's name of it.
        permute: Whether query and key rows are put into the order of llama.cpp's interleaved rotation.
        norm_plus_one: Whether norms are stored without the one that the model adds (Gemma's ``1 + weight``).
        more: Keys beyond those that all have, from the config.
        reason: Says why a config of this class cannot be written, or None.
    """

    name: str
    permute: bool = False
    norm_plus_one: bool = False
    more: Callable[[Config], dict[str, Any]] = lambda _config: {}
    reason: Callable[[Config], str | None] = lambda _config: None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the file.

    Attributes:
        name: Its name in the file.
        source: Its name in the model, or None if it is computed.
        shape: Rows first.
        heads: If its rows are permuted, the number of heads that they belong to.
        shift: A number that is added to its values.
        values: The values of a computed tensor.
        experts: Where the matrix of each expert of a mixture lies, of a tensor that holds them all.
    """

    name: str
    source: str | None
    shape: tuple[int, ...]
    heads: int = 0
    shift: float = 0.0
    values: tuple[float, ...] = ()
    experts: tuple[Expert, ...] = ()

    def blocks(self, weights: Values) -> Iterator[NDArray[Any]]:
        """Yield the values as float32, some rows at a time."""
        step = max(1, BLOCK // max(1, math.prod(self.shape[2 if self.experts else 1 :])))
        if self.experts:
            yield from (block for expert in self.experts for block in expert.blocks(weights, step))
            return
        if self.source is None or self.heads:  # rows of a head are put into another order, so all are needed
            step = self.shape[0]
        for start in range(0, self.shape[0], step):
            yield self.rows(weights, start, min(start + step, self.shape[0]))

    def rows(self, weights: Values, start: int, stop: int) -> NDArray[Any]:
        """Return some rows of the values as float32."""
        import numpy as np

        if self.experts:
            found = [list(each.blocks(weights, max(1, BLOCK // self.shape[-1]))) for each in self.experts[start:stop]]
            return np.stack([np.concatenate(blocks) for blocks in found])
        if self.source is None:
            return np.asarray(self.values, np.float32)[start:stop]
        if self.heads:
            count = self.shape[0]
            return weights.rows(self.source, 0, count)[interleaved(count, self.heads)][start:stop]
        found = weights.rows(self.source, start, stop)
        return found + np.float32(self.shift) if self.shift else found


def interleaved(rows: int, heads: int) -> NDArray[Any]:
    """Return the order of rows in which the two halves of each head's rotation alternate.

    Hugging Face rotates element i together with element i + half, llama.cpp's "llama" element 2i with 2i + 1.
    """
    import numpy as np

    half = rows // heads // 2
    return np.arange(rows).reshape(heads, 2, half).swapaxes(1, 2).reshape(-1)


def rope(config: Config) -> Config:
    """Return the rotation's parameters, for layers with full attention where there are two kinds."""
    found: Config = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = found.get("full_attention", found)
    kind = found.get("rope_type", found.get("type", "default"))
    return {"rope_theta": config.get("rope_theta", 10000.0), **found, "rope_type": kind}


def head_dim(config: Config) -> int:
    """Return the number of elements of one head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def common(config: Config) -> dict[str, Any]:
    """Return the keys that every architecture has, without its name in front; ints, floats, strings and bools."""
    parameters = rope(config)
    dimension = head_dim(config)
    keys: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config.get("num_key_value_heads") or config["num_attention_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "attention.key_length": dimension,
        "attention.value_length": dimension,
        "rope.dimension_count": int(dimension * parameters.get("partial_rotary_factor", 1.0)),
        "rope.freq_base": float(parameters["rope_theta"]),
        "vocab_size": config["vocab_size"],
    }
    if parameters["rope_type"] in {"linear", "yarn"}:
        keys |= {"rope.scaling.type": parameters["rope_type"], "rope.scaling.factor": float(parameters["factor"])}
    if parameters["rope_type"] == "yarn":
        original = parameters.get("original_max_position_embeddings") or config["max_position_embeddings"]
        keys["rope.scaling.original_context_length"] = original
        if parameters.get("attention_factor"):
            keys["rope.scaling.yarn_attn_factor"] = float(parameters["attention_factor"])
        for name in ("beta_fast", "beta_slow"):
            if parameters.get(name) is not None:
                keys[f"rope.scaling.yarn_{name}"] = float(parameters[name])
    return keys


def rope_factors(config: Config) -> dict[str, tuple[float, ...]]:
    """Return the tensors of factors by which frequencies are divided, by name.

    ``llama3`` stretches slow rotations and leaves fast ones, with a ramp between (``_compute_llama3_parameters`` in
    transformers' ``modeling_rope_utils.py``); ``longrope`` has its factors in the config.
    """
    parameters = rope(config)
    if parameters["rope_type"] == "longrope":
        return {
            f"rope_factors_{name}.weight": tuple(map(float, parameters[f"{name}_factor"])) for name in ("long", "short")
        }
    if parameters["rope_type"] != "llama3":
        return {}
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    factor, original = parameters["factor"], parameters["original_max_position_embeddings"]
    found = []
    dimension = head_dim(config)
    for index in range(0, dimension, 2):
        turns = original / (2 * math.pi * parameters["rope_theta"] ** (index / dimension))
        ramp = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - ramp) / factor + ramp))
    return {"rope_freqs.weight": tuple(found)}


def _gemma(config: Config) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    if config.get("attn_logit_softcapping"):
        keys["attn_logit_softcapping"] = float(config["attn_logit_softcapping"])
    if config.get("final_logit_softcapping"):
        keys["final_logit_softcapping"] = float(config["final_logit_softcapping"])
    if config.get("sliding_window"):
        keys["attention.sliding_window"] = config["sliding_window"]
    local = (config.get("rope_parameters") or {}).get("sliding_attention", {})
    if local.get("rope_theta"):
        keys["rope.freq_base_swa"] = float(local["rope_theta"])
    return keys


def _windows(step: int) -> Callable[[Config], str | None]:
    """Refuse layers whose kinds of attention are not those that llama.cpp assumes: full in every ``step``-th."""

    def reason(config: Config) -> str | None:
        kinds = config.get("layer_types") or []
        wanted = ["full_attention" if (i + 1) % step == 0 else "sliding_attention" for i in range(len(kinds))]
        scale = config.get("query_pre_attn_scalar")
        if kinds != wanted:
            return f"llama.cpp takes every {step}th layer for one with full attention, and this model's are others"
        # llama.cpp scales by the size of a head, but for the largest models of both families
        if scale and scale != head_dim(config) and config["num_hidden_layers"] not in {46, 62}:
            return f"its query_pre_attn_scalar ({scale}) is not the size of a head, which llama.cpp takes"
        return None

    return reason


def _smollm3(config: Config) -> str | None:
    layers = config.get("no_rope_layers") or []
    if layers != [int((i + 1) % 4 != 0) for i in range(len(layers))]:
        return "llama.cpp rotates three layers of four, and this model's no_rope_layers are others"
    return None


def _no_window(config: Config) -> str | None:
    return "it uses sliding windows, which llama.cpp does not do here" if config.get("use_sliding_window") else None


def _phi3(config: Config) -> dict[str, Any]:
    original = rope(config).get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    original = original or config["max_position_embeddings"]
    keys: dict[str, Any] = {"rope.scaling.original_context_length": original}
    # A window of 0 tells llama.cpp that there is none (Phi-4); without the key it refuses the file.
    keys["attention.sliding_window"] = config.get("sliding_window") or 0
    if rope(config)["rope_type"] == "longrope":
        stretch = config["max_position_embeddings"] / original
        # LongRoPE (arXiv:2402.13753), equation for the attention's temperature
        factor = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
        keys["rope.scaling.attn_factor"] = float(rope(config).get("attention_factor") or factor)
    return keys


def _granite(config: Config) -> dict[str, Any]:
    return {
        "attention.scale": float(config["attention_multiplier"]),
        "embedding_scale": float(config["embedding_multiplier"]),
        "residual_scale": float(config["residual_multiplier"]),
        "logit_scale": float(config["logits_scaling"]),
    }


BUILTIN: Mapping[str, Architecture] = {
    "LlamaForCausalLM": Architecture("llama", permute=True),
    "MistralForCausalLM": Architecture("llama", permute=True),
    "Qwen2ForCausalLM": Architecture("qwen2", reason=_no_window),
    "Qwen3ForCausalLM": Architecture("qwen3", reason=_no_window),
    "GemmaForCausalLM": Architecture("gemma", norm_plus_one=True),
    "Gemma2ForCausalLM": Architecture("gemma2", norm_plus_one=True, more=_gemma, reason=_windows(2)),
    "Gemma3ForCausalLM": Architecture("gemma3", norm_plus_one=True, more=_gemma, reason=_windows(6)),
    "Phi3ForCausalLM": Architecture("phi3", more=_phi3),
    "SmolLM3ForCausalLM": Architecture("smollm3", permute=True, reason=_smollm3),
    "GraniteForCausalLM": Architecture("granite", permute=True, more=_granite),
    "Olmo2ForCausalLM": Architecture("olmo2"),
    "Qwen3MoeForCausalLM": Architecture("qwen3moe", more=mixtures.keys_of, reason=mixtures.qwen3_moe),
    "OlmoeForCausalLM": Architecture("olmoe", more=mixtures.keys_of, reason=mixtures.olmoe),
    "MixtralForCausalLM": Architecture("llama", permute=True, more=mixtures.keys_of, reason=mixtures.mixtral),
    "GraniteMoeForCausalLM": Architecture("granitemoe", permute=True, more=lambda c: _granite(c) | mixtures.keys_of(c)),
}
"""By the class that a model's config names."""

_ROPES = frozenset({"default", "linear", "yarn", "llama3", "longrope"})


def problem(config: Config) -> str | None:
    """Return why a model of this config cannot be written here, or None."""
    name = (config.get("architectures") or ["(none)"])[0]
    if name not in BUILTIN:
        return f"architecture {name} is not built in"
    kind = rope(config)["rope_type"]
    if kind not in _ROPES or (kind == "longrope") > (name == "Phi3ForCausalLM"):
        return f"positions of the kind {kind} are not built in for {name}"
    if config.get("hidden_act", config.get("hidden_activation")) not in {
        None, "silu", "gelu", "gelu_pytorch_tanh", "gelu_new", "swish"
    }:  # fmt: skip
        return f"the activation {config.get('hidden_act')} is not the one that llama.cpp takes for {name}"
    return BUILTIN[name].reason(config)


def keys(config: Config) -> dict[str, Any]:
    """Return the keys of a model, named in full."""
    architecture = BUILTIN[config["architectures"][0]]
    found = common(config) | architecture.more(config)
    return {f"{architecture.name}.{key}": value for key, value in found.items()}


def tensors(config: Config, weights: Weights) -> list[Tensor]:
    """Return the tensors of the file, layer by layer.

    Raises:
        ExportError: A tensor of the model has no place in the file, or the output layer is missing.
    """
    import gguf

    architecture = BUILTIN[config["architectures"][0]]
    enum = next(key for key, value in gguf.MODEL_ARCH_NAMES.items() if value == architecture.name)
    names = gguf.get_tensor_name_map(enum, config["num_hidden_layers"])
    tied = bool(config.get("tie_word_embeddings"))
    found = [Tensor(name, None, (len(values),), values=values) for name, values in rope_factors(config).items()]
    found += experts(weights)
    for source in weights.names():
        if expert_of(source) is not None:
            continue
        if source.endswith("rotary_emb.inv_freq") or (source == "lm_head.weight" and tied and _same(weights, source)):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise ExportError("the model cannot be written as GGUF", f"{architecture.name} has no tensor for {source}")
        heads = 0
        if architecture.permute and ".attn_q." in name:
            heads = config["num_attention_heads"]
        elif architecture.permute and ".attn_k." in name:
            heads = config.get("num_key_value_heads") or config["num_attention_heads"]
        shift = 1.0 if architecture.norm_plus_one and source.endswith("norm.weight") else 0.0
        found.append(Tensor(name, source, weights.shape(source), heads, shift))
    if not tied and not any(tensor.name == "output.weight" for tensor in found):
        raise ExportError(
            "the model has no output layer",
            "its config says tie_word_embeddings = false, and there is no lm_head.weight",
            "mend the config or the weights: llama.cpp would silently use the embedding",
        )
    return sorted(found, key=lambda tensor: _place(tensor.name))


def experts(weights: Weights) -> list[Tensor]:
    """Return the tensors of a mixture's experts: one for all of a block, for each of gate, up and down."""
    found: dict[str, dict[int, Expert]] = {}
    for source in weights.names():
        if (told := expert_of(source)) is None:
            continue
        block, index, parts = told
        shape = weights.shape(source)
        rows = shape[-2] // len(parts)
        for place, part in enumerate(parts):
            mine = found.setdefault(f"blk.{block}.ffn_{part}_exps.weight", {})
            within = (place * rows, (place + 1) * rows)
            if index is not None:
                mine[index] = Expert(source, None, *within)
            else:
                mine |= {each: Expert(source, each, *within) for each in range(shape[0])}
    return [
        Tensor(
            name,
            None,
            (len(every), every[0].stop - every[0].start, weights.shape(every[0].source)[-1]),
            experts=tuple(every[index] for index in sorted(every)),
        )
        for name, every in found.items()
    ]


def _same(weights: Weights, source: str) -> bool:
    """Whether a tied model's output layer in the files is its embedding, as it should be."""
    import numpy as np

    if "model.embed_tokens.weight" not in weights:
        return True
    one, other = (Tensor("", name, weights.shape(name)) for name in (source, "model.embed_tokens.weight"))
    return one.shape == other.shape and all(map(np.array_equal, one.blocks(weights), other.blocks(weights)))


def _place(name: str) -> tuple[int, str]:
    return (int(name.split(".")[1]), name) if name.startswith("blk.") else (-1, name)


def tensors_of_first(tensors: Sequence[Tensor], layers: int) -> Iterator[Tensor]:
    """Yield the tensors of a model's first layers, and those of no layer."""
    for tensor in tensors:
        if not tensor.name.startswith("blk.") or int(tensor.name.split(".")[1]) < layers:
            yield tensor

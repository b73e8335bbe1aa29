"""Decoding by a CUDA graph: one launch a token, where eager decoding needs one for each of its kernels.

A model that writes reads all its weights for each token. A 1B model's are read in half a millisecond on an H200, and
Python takes 20 to 50 ms to launch the thousand kernels that do it. So the model's forward pass for one token is
recorded once and then replayed, with keys and values in a cache of fixed size. The loop around it stays transformers'
own ``generate``: what draws, penalises and stops is what it is without a graph, and so are seeds. Rows that have ended
leave the batch (:mod:`forge_huggingface.model.narrowing`), and a smaller graph is recorded.

A graph repeats what it saw, so it is used only where a forward pass is the same for every token (transformers says it
of a model by ``_can_compile_fullgraph``), it is recorded anew for each call, and the first one of each shape is
compared with the model itself before it is used. Whatever does not fit is decoded as before, and the reason is told.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from forge.api import first_line
from forge_huggingface.model.narrowing import Narrow, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FEW = 8
"""Answers at a time where it is not known how many fit, or their number would change what is drawn."""
_SHORTEST = 16  # tokens of an answer that are worth a recording
_ROUND = 64  # tokens that the cache's length is a multiple of: attention wants its mask aligned
_FREE = 0.8  # of the free memory that the cache may take
_MOST = 256  # answers at a time on a GPU: more of them take as long as a second batch
_ATTENTION = (
    "sdpa",
    "eager",
)  # read a cache of fixed size through a mask; others cut it, and have to wait for its length


class Decoder:
    """Has a model's ``generate`` replay a graph.

    Args:
        say: Is told once what is done, and once why something else is.
        enabled: Whether it does.

    Attributes:
        proved: Shapes of inputs whose replay was compared with the model.
    """

    def __init__(self, say: Callable[[str], None], *, enabled: bool = True) -> None:
        self._say, self._said, self._enabled = say, set[str](), enabled
        self.proved = set[tuple[Any, ...]]()

    @contextlib.contextmanager
    def around(self, model: Any) -> Iterator[None]:
        """Have ``model.generate``, or that of the model inside peft's adapters, decode by a graph for a while."""
        inner = inside(model)
        if inner.device.type != "cuda" or not self._enabled:
            yield
            return
        if (why := reason_against(model)) is not None:
            self.tell(f"answers are decoded without a CUDA graph: {why}")
            yield
            return
        with generating(inner, lambda forward: Replay(forward, self, alike=not drops(inner)), self.tell):
            yield

    def give_up(self, why: str) -> None:
        """Decode without a graph from now on."""
        self._enabled = False
        self.tell(f"answers are decoded without a CUDA graph: {why}")

    def tell(self, message: str) -> None:
        """Say something that was not said before."""
        if message not in self._said:
            self._said.add(message)
            self._say(message)


def inside(model: Any) -> Any:
    """Return the model of transformers inside peft's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def reason_against(model: Any) -> str | None:
    """Return why a model's decoding cannot be recorded, or None."""
    inner = inside(model)
    config = inner.config
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    kinds = {scaling.get("rope_type"), *(each.get("rope_type") for each in scaling.values() if isinstance(each, dict))}
    layers: set[str] = set(getattr(config, "layer_types", None) or ())
    shared: int = getattr(config, "num_kv_shared_layers", 0)
    quantizer = getattr(inner, "hf_quantizer", None)
    settings = getattr(quantizer, "quantization_config", None)  # bitsandbytes' 4 bit cannot be compiled, but recorded
    adapters = getattr(model, "peft_config", {}).values()
    if not type(inner).forward.__module__.startswith("transformers.") or "generate" in vars(inner):
        return "its forward pass is not transformers' own"
    if config.get_text_config() is not config or config.is_encoder_decoder:
        return "it is not a decoder of text"
    if not getattr(inner, "_can_compile_fullgraph", False) or not hasattr(inner, "get_compiled_call"):
        return "its forward pass is not the same for every token"
    if layers - {"full_attention", "sliding_attention"} or shared:
        return "its layers keep more than their own keys and values"
    if kinds & {"dynamic", "longrope"}:
        return "its positions depend on how long a text is"
    if any(adapter.is_prompt_learning for adapter in adapters):
        return "its adapter is of tokens"
    if quantizer is not None and not (quantizer.is_compileable or getattr(settings, "load_in_4bit", False)):
        return "its quantized weights forbid it"
    if len({parameter.device for parameter in inner.parameters()}) > 1:
        return "its weights are on several devices"
    marks = ("ds_id", "placements", "_is_flat_param")  # DeepSpeed's, DTensor's, FSDP's
    if any(hasattr(parameter, mark) for parameter in inner.parameters() for mark in marks):
        return "its weights are in several processes"
    return None


def drops(inner: Any) -> bool:
    """Whether dropout is on, as it is where TRL lets a model answer: no two forward passes are then alike."""
    import torch

    layers = [layer for layer in inner.modules() if isinstance(layer, torch.nn.Dropout)]
    attention = inner.training and getattr(inner.config, "attention_dropout", 0.0)
    return bool(attention) or any(layer.training and layer.p > 0 for layer in layers)


@contextlib.contextmanager
def generating(
    inner: Any, step: Callable[[Callable[..., Any]], Callable[..., Any]], tell: Callable[[str], None]
) -> Iterator[None]:
    """Have a model of transformers generate with a cache of fixed size, and ``step`` around its forward pass.

    Args:
        inner: The model.
        step: Takes the forward pass for one token; returns what is called in its place, for batches of one size.
        tell: Is told why it does not.
    """
    plain = inner.generate

    def generate(*arguments: Any, **named: Any) -> Any:
        cache = fixed_cache(inner, arguments, named, tell)
        if cache is None:
            return plain(*arguments, **named)
        attention = inner.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
        row = cache.layers[0].max_cache_len * token_bytes(inner) + inner.config.vocab_size * inner.dtype.itemsize
        weights = sum(parameter.nbytes for parameter in inner.parameters())
        narrow = Narrow(lambda: step(inner.__call__), size=row, fixed=weights)
        inner._valid_auto_compile_criteria = lambda *_: True  # noqa: SLF001 - else not in 4 bit, and not for TRL
        inner.get_compiled_call = _given(narrow)
        try:
            if attention not in _ATTENTION:
                inner.config._attn_implementation = "sdpa"  # noqa: SLF001
            with watched(narrow):
                return plain(*arguments, past_key_values=cache, **named)
        finally:
            inner.config._attn_implementation = attention  # noqa: SLF001
            del inner.get_compiled_call, inner._valid_auto_compile_criteria  # noqa: SLF001

    inner.generate = generate
    try:
        yield
    finally:
        del inner.generate


def _given(step: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _config: step


def fixed_cache(
    inner: Any, arguments: tuple[Any, ...], named: Mapping[str, Any], tell: Callable[[str], None]
) -> Any | None:
    """Return an empty cache for the longest answer; None where it has no place or the call no use of it."""
    from transformers.cache_utils import Cache, StaticLayer

    config, ids = named.get("generation_config"), named.get("input_ids", arguments[0] if arguments else None)
    if config is None or ids is None or not config.max_new_tokens or config.max_new_tokens < _SHORTEST:
        return None
    plain = config.num_beams in {None, 1} and config.cache_implementation is None and config.use_cache is not False
    given = {"past_key_values", "inputs_embeds", "assistant_model"} & named.keys()
    if not plain or given or config.return_dict_in_generate or config.prompt_lookup_num_tokens:
        return None
    rows, length = ids.shape[0] * (config.num_return_sequences or 1), ids.shape[1] + config.max_new_tokens
    length = -(-length // _ROUND) * _ROUND
    if (size := rows * length * token_bytes(inner)) > _FREE * free(inner):
        tell(f"answers are decoded without a CUDA graph: {rows} of {length} tokens would keep {size / 2**30:.1f} GiB")
        return None
    # Layers whose attention slides keep everything too: their mask hides what is too far away, and nothing moves.
    return Cache(layers=[StaticLayer(max_cache_len=length) for _ in range(inner.config.num_hidden_layers)])


def token_bytes(inner: Any) -> int:
    """Return the bytes of the keys and values of one token in a model's cache."""
    config = inner.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * size * inner.dtype.itemsize)


def fitting(model: Any, width: int, answer: int) -> int:
    """Return how many answers are best made at a time: a power of two that fits into half of the free memory.

    Of a model of which it is not known what an answer takes: :data:`FEW`.

    Args:
        model: The model, with or without peft's adapter.
        width: Tokens of the longest prompt.
        answer: Tokens of the longest answer.
    """
    inner = inside(model)
    config = inner.config.get_text_config()
    if not all(isinstance(getattr(config, name, None), int) for name in ("hidden_size", "num_attention_heads")):
        return FEW
    size, hidden = inner.dtype.itemsize, config.hidden_size
    wide = getattr(config, "intermediate_size", None) or 4 * hidden
    heads = config.num_attention_heads if config._attn_implementation == "eager" else 1  # noqa: SLF001
    length = width + answer
    read = width * size * (16 * hidden + 3 * (max(wide) if isinstance(wide, list) else wide) + heads * length)
    row = length * token_bytes(inner) + read + 8 * 4 * config.vocab_size  # scores in 32 bit, and what is made of them
    most = _MOST if inner.device.type == "cuda" else FEW  # a CPU computes padding as slowly as tokens
    return min(most, 1 << max(0, int(0.5 * free(inner) / row).bit_length() - 1))


def free(inner: Any) -> int:
    """Return the bytes that a model's device has free, those included that torch keeps for later."""
    import torch

    if inner.device.type != "cuda":
        import psutil

        return int(psutil.virtual_memory().available)
    held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return int(torch.cuda.mem_get_info()[0] + held)


class Replay:
    """A forward pass for one token: done the first time, recorded the second time, and replayed from then on.

    One that nobody has compared yet is done the second time too, and compared the third time.

    Args:
        forward: The model's forward pass, whose cache is of fixed size.
        decoder: Knows what was compared, and is told what is done.
        alike: Whether two passes over the same token are alike, and can be compared.
    """

    def __init__(self, forward: Callable[..., Any], decoder: Decoder, *, alike: bool) -> None:
        self.forward, self.decoder, self.alike = forward, decoder, alike
        self.calls = 0
        self.graph: Any = None
        self.output: Any = None
        self.cache: Any = None
        self.held: list[Any] = []
        self.spec: Any = None

    def __call__(self, **inputs: Any) -> Any:
        """Return the model's output. Its logits are overwritten by the next call."""
        from torch.utils import _pytree

        self.calls += 1
        if self.calls == 1:  # the first one warms up what must not be warmed up while recording
            return self.forward(**inputs)
        cache = inputs.pop("past_key_values")
        leaves, spec = _pytree.tree_flatten(inputs)
        if self.calls == 2:
            self._record(cache, leaves, spec)
        if self.graph is None or cache is not self.cache or spec != self.spec or not fit(leaves, self.held):
            return self.forward(**inputs, past_key_values=cache)
        shapes = tuple(getattr(leaf, "shape", None) for leaf in leaves)
        sure = not self.alike or shapes in self.decoder.proved
        if self.calls == 2 and not sure:
            return self.forward(**inputs, past_key_values=cache)
        self._replay(leaves)
        if not sure:
            if not self._is_right(inputs):
                self.decoder.give_up("its logits are not those of the model")
                self.graph = None
                return self.forward(**inputs, past_key_values=self._stepped_back())
            self.decoder.proved.add(shapes)
        self.decoder.tell("answers are decoded by a CUDA graph")
        return self.output

    def _record(self, cache: Any, leaves: list[Any], spec: Any) -> None:
        import torch
        from torch.utils import _pytree

        self.cache, self.spec = cache, spec
        self.held = [leaf.clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                output = self.forward(**_pytree.tree_unflatten(self.held, spec), past_key_values=cache)
        except RuntimeError as error:
            self.decoder.give_up(first_line(error))
            return
        self.graph, self.output = graph, output

    def _replay(self, leaves: list[Any]) -> None:
        import torch

        for held, leaf in zip(self.held, leaves, strict=True):
            if isinstance(held, torch.Tensor):
                held.copy_(leaf)
        self.graph.replay()

    def _is_right(self, inputs: Mapping[str, Any]) -> bool:
        """Whether the model itself says the same of the same token."""
        found = self.output.logits.float().clone()
        expected = self.forward(**inputs, past_key_values=self._stepped_back()).logits.float()
        limit = 1e-4 if self.output.logits.dtype.itemsize == 4 else 2e-2
        return bool((found - expected).abs().max() <= limit * expected.abs().max())

    def _stepped_back(self) -> Any:
        """Return the cache as it was before the last token, whose place is written again."""
        for layer in self.cache.layers:
            layer.cumulative_length.sub_(1)
        return self.cache


def fit(leaves: list[Any], held: list[Any]) -> bool:
    """Whether a recording can be replayed on other inputs: tensors of the same kind, and all else the same."""
    import torch

    return all(
        isinstance(leaf, torch.Tensor) and (leaf.shape, leaf.dtype, leaf.device) == (old.shape, old.dtype, old.device)
        if isinstance(old, torch.Tensor)
        else leaf is old or (type(leaf) is type(old) and leaf == old)
        for leaf, old in zip(leaves, held, strict=True)
    )

"""What comes and goes in a step, in bytes: what the layers keep for the backward pass, what that works with, the loss.

Read from transformers' modules and peft's, tensor by tensor, and compared with autograd on a CPU
(tests/huggingface/memory) and with peaks on an H200 (docs/memory.md). Bytes a token are told for one layer; h, i, q, k
are the widths of stream, feed-forward part, queries and keys. What a backend does in another way is one
:class:`Kernels`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge_huggingface.memory import footprint
from forge_huggingface.memory.footprint import Setting
from forge_huggingface.rules.experts import taken

if TYPE_CHECKING:
    from forge.api import Job, Linear


CHUNK = 256  # tokens of a chunk of TRL's loss before 1.15: trl/trainer/sft_trainer.py
OWN_CHUNK = 2**28  # bytes of the logits of forge's own loss: forge_huggingface/kernels/loss.py
TILE = (4096, 32768)  # tokens and words of a tile of TRL's loss since 1.15: trl/kernels/chunked_logprob.py


def own(s: Setting) -> frozenset[str]:
    """Return which of forge's own kernels act."""
    parts = s.options.get("kernels")
    return frozenset(parts) if isinstance(parts, list | tuple) else frozenset()


def kept(s: Setting) -> float:
    """Return the bytes a token that autograd keeps of one layer, as transformers, peft and forge's kernels compute it.

    Norms are computed in 32 bit and keep their input so (4h each). An adapted or trained linear layer keeps its input;
    with casts or dropout each has a copy of its own. Attention keeps queries, keys, values and its output
    (FlashAttention, arXiv 2205.14135), the eager one also all scores, twice. SwiGLU keeps gate, its activation, and up.
    Of forge's kernels, norms keep their input as it is, layers with one input share it, and SwiGLU keeps gate and up,
    of which it makes the input of a last layer that is trained again.
    """
    shape, e, parts = s.shape, s.size, own(s)
    h, i, q, k = shape.hidden, shape.intermediate, shape.query, shape.key
    into_attention = into_mlp = out = down = ranks = 0.0
    dropped = s.lora and s.job.adapter.lora_dropout > 0
    layers = (
        footprint.adapted(shape, s.job.adapter, taken(s.facts.model_type))
        if s.lora
        else [(x, float(x.count), 0) for x in shape.linears]
    )
    for linear, count, rank in layers:
        if linear.part in {"vision", "joint"}:
            continue
        share = min(1.0, count / linear.count)
        ranks += share * rank * e
        if footprint.down(shape, linear):
            down = max(down, share)
        elif footprint.feeds(shape, linear):
            into_mlp += share
        elif linear.inputs == q and linear.outputs == h and not linear.name.startswith(("q", "k", "v")):
            out = max(out, share)
        else:
            into_attention += share
    experts = any(linear.part == "experts" for linear in shape.linears)
    if experts and not s.lora:
        into_mlp, down = max(into_mlp, 1.0), 1.0
    alone = dropped or (s.casts and "lora" not in parts)
    inputs = sum(e * h * (each if alone else min(1.0, each)) for each in (into_attention, into_mlp))
    if dropped:  # and the masks, a byte for each value, on a CPU a number
        inputs += (1 if s.kind else 4) * (h * (into_attention + into_mlp) + q * out + i * down)
    # Trained weights need the normal rows, in the type of the input; Gemma weights them before it rounds.
    rounded = 4 if (s.facts.model_type or "").startswith("gemma") else e
    of_stream, of_heads = (4 if s.lora else 4 + size for size in (s.flow, rounded))
    norms: float = of_stream * shape.norms * h + of_heads * shape.head_norms * (q + k)
    if "norm" in parts and e == s.flow:
        norms = e * (shape.norms * h + shape.head_norms * (q + k))
    elif "norm" in parts:  # of what comes in another type than the weights the model's own take care
        norms -= (of_stream - s.flow) * min(shape.norms, 2) * h
    attention = e * (2 * q + 2 * k) + 4 * shape.heads + (e * q * out if s.lora and alone else 0)
    if s.job.model.attn_implementation == "eager":
        attention += shape.heads * s.length * (4 + (e if e == 2 else 0)) + e * 2 * (q - k)
    elif seen := masked(s):
        # Under a mask keys and values are repeated for each query, and each layer makes numbers of the mask.
        attention += e * 2 * (q - k) + e * seen + seen / shape.layers
    inner: float = (3 if shape.gated else 1) * e * i + e * i * (down if shape.gated else max(down, 0.5))
    if "swiglu" in parts and shape.gated and not experts:
        inner = 2 * e * i + (e * i * down if s.lora and "lora" not in parts else 0)
    elif any(linear.outputs == 2 * i and linear.name == "gate_up_proj" for linear in shape.linears):
        inner += e * i  # one projection for both, which stays whole beside its halves
    if experts:
        inner += 2 * e * h  # tokens are gathered for their experts, and what these say is gathered again
        inner += 3 * e * i if s.facts.model_type == "gpt_oss" else 0  # it cuts gate and up off at a limit
        inner += merged_experts(s) / s.tokens
    return norms + inputs + attention + inner + ranks


def merged_experts(s: Setting) -> float:
    """Return the bytes of one layer's experts with LoRA added to them: peft makes whole parameters of both, each time.

    They are made as the layer is computed, and kept for its backward pass (peft, ``lora.layer.ParamWrapper``).
    """
    held = sum(x.parameters for x in s.shape.linears if x.part == "experts" and reaches(s, x)) if s.lora else 0
    return held * s.stream / s.shape.layers


def reaches(s: Setting, linear: Linear) -> bool:
    """Whether LoRA adapts a parameter of experts."""
    return footprint.reaches_experts(s.job.adapter, linear.name)


def masked(s: Setting) -> int:
    """Return of how many tokens a mask says whether a token sees them; 0 where there is no mask.

    Padding needs one, under torch's own attention, and so do rows that lie end to end: a mask of all pairs of tokens.
    """
    if s.job.model.attn_implementation != "sdpa":
        return 0
    if s.job.data.packing or s.job.data.padding_free:
        return s.tokens
    return s.length if s.rows > 1 and "mask" not in own(s) else 0


def worked(s: Setting) -> float:
    """Return the bytes a token that the backward pass of a layer needs beside what is kept.

    That of the last projection is the most: gradients of its input through the layer and through the adapter, and with
    casts one of them in 32 bit.
    """
    shape = s.shape
    parts = own(s)
    work: float = (8 if s.casts and s.lora else 2 * s.size) * shape.intermediate + 3 * s.size * shape.hidden
    if "swiglu" in parts or "lora" in parts:
        work = 3 * s.size * (shape.intermediate + shape.hidden)
        if s.job.model.load_in_4bit:  # a matrix is unpacked at a time
            work += 2 * shape.hidden * max((linear.outputs for linear in shape.linears), default=0) / s.tokens
    work += merged_experts(s) / s.tokens  # gradients of the experts with LoRA, of which LoRA's are made
    if s.job.model.attn_implementation == "eager":
        work = max(work, 12 * shape.heads * s.length)
    return float(work)


def scores(s: Setting) -> int:
    """Return the bytes that the loss needs: for all logits, a chunk or a tile of them, and the stream's gradient."""
    shape, count = s.shape, s.rows * s.scored
    stream = (4 + 2 * s.size) * shape.hidden * count
    if not s.head:
        return stream
    if "loss" in own(s):
        rows = min(count, max(OWN_CHUNK // (shape.vocab * s.size) // 128 * 128, 128))
        return rows * shape.vocab * (s.size if s.kind else 16) + 3 * s.size * shape.hidden * count
    if not s.fused:
        return s.logits * count * shape.vocab + stream
    if s.tiled:
        tokens, words = min(count, TILE[0]), min(shape.vocab, TILE[1])
        each = s.size if s.kind else 30  # without Triton torch folds the tile, with seven temporaries in 32 bit
        return tokens * words * each + stream
    return 16 * min(CHUNK, count) * shape.vocab + stream


@dataclass(frozen=True, slots=True)
class Kernels:
    """How a backend computes a layer and the loss: what it keeps, in place of transformers' own.

    Attributes:
        kept: Bytes a token that one layer keeps for its backward pass.
        worked: Bytes a token that this pass needs beside.
        scores: Bytes for the loss.
        boundary: Bytes a token that gradient checkpointing keeps on the device between two layers.
        fused: Whether a job's loss never holds all logits; told whether TRL is 1.15 or newer.
        weights: Bytes of the base model as it is loaded.
    """

    kept: Callable[[Setting], float]
    worked: Callable[[Setting], float]
    scores: Callable[[Setting], int]
    boundary: Callable[[Setting], float]
    fused: Callable[[Job, bool], bool]
    weights: Callable[[Setting], int] = footprint.weights


def boundary(s: Setting) -> float:
    """Return the bytes a token of the stream that enters a layer, and its share of the mask that all have."""
    return s.flow * s.shape.hidden + masked(s) / s.shape.layers


def fused(job: Job, since: bool) -> bool:
    """Return whether TRL's loss never holds all logits: none did before 1.15 but ``chunked_nll`` and Liger's."""
    options = job.train.options
    if options.get("label_smoothing_factor"):
        return False
    if "loss" in (options.get("kernels") or ()):
        return True
    return bool(since or options.get("loss_type") == "chunked_nll" or options.get("use_liger_kernel"))


TRANSFORMERS = Kernels(kept, worked, scores, boundary, fused)


@dataclass(frozen=True, slots=True)
class Activations:
    """What comes and goes in a step, in bytes.

    Attributes:
        layers: What the layers keep and need at the most.
        loss: What the loss needs.
        peak: The most beside weights and optimizer, gradients included.
    """

    layers: int
    loss: int
    peak: int


def activations(s: Setting, kernels: Kernels, gradients: int) -> Activations:
    """Return what a step takes at its heaviest moment: in the loss, in a layer's backward pass, or at the end of it.

    Args:
        s: The setting.
        kernels: How the backend computes.
        gradients: The bytes of all gradients. They grow from the last layer to the first while what the layers keep
            goes, so that both are only there together if an earlier batch left gradients, or several processes have
            room for them from the beginning.
    """
    shape, tokens = s.shape, s.tokens
    layer, work = kernels.kept(s) * tokens, kernels.worked(s) * tokens
    # Autocast keeps a 16-bit copy of 32-bit weights as long as something may need it.
    # Of a sharded model each layer is put together in 16 bit as it is needed.
    copies = sum(x.parameters for x in shape.linears) * 2 if s.mixed and s.stream == 4 and s.shards == 1 else 0
    held = s.recomputed * kernels.boundary(s) * tokens + (shape.layers - s.recomputed) * layer
    if s.job.adapter.type == "layers":  # frozen layers below the first trained one keep nothing
        held *= footprint.reached(shape, s.job.adapter)
    inside = layer if s.checkpointing else 0
    kept_copies = copies * (shape.layers - s.recomputed) / shape.layers
    loss = kernels.scores(s)
    whole = s.job.adapter.type == "none"
    vocabulary = shape.vocab * shape.hidden * s.flow
    head = vocabulary if (whole or "lm_head" in (s.job.adapter.modules_to_save or ())) and s.head else 0
    earlier = gradients if s.steps > 1 or s.in_buckets else 0
    # A trained output layer has its gradient summed up in 32 bit, beside the one that is there.
    forward = held + copies + loss
    begin = held + kept_copies + loss + (0 if earlier else head) + (head if s.tiled else 2 * head)
    back = held + kept_copies + inside + work + (0 if earlier else head)
    # Gradients of a tied embedding come twice and are added.
    twice = 2 * vocabulary if whole and shape.tied and s.head else 0
    late = max(twice, inside + work - (vocabulary if whole else 0))
    end = gradients - earlier + late
    step = gradients - earlier
    if str(s.options.get("optim")) == "adamw_torch":
        step += gradients  # not fused: one temporary for each value
    peak = earlier + max(forward, begin, back, end, step)
    return Activations(round(held + kept_copies + inside + work), round(loss + 2 * head), round(peak))

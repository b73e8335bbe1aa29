"""Log-probabilities of labels from hidden states, never with all logits in memory, and their gradient on the way.

The gradient of a label's log-probability over its hidden state does not depend on any other row, so it is made while
the logits are there, one row for each, and only multiplied when the gradient of the loss comes: the head is multiplied
twice, where recomputing the logits takes three times. Where the head itself is trained TRL's own is taken.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from forge_huggingface.kernels import seams
from forge_huggingface.kernels.elementwise import IGNORED, Rows, softmax_rows, wide
from forge_huggingface.rules.kernels import PER_TOKEN

CHUNK = 2**28
"""Bytes of the logits that are in memory at a time."""


class LogProbs(torch.autograd.Function):
    """Log-probability, entropy, whether the label is the most probable word, and mean logit: a number a row each."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        scale: float,
        cap: float | None,
        wanted: bool,
    ) -> tuple[torch.Tensor, ...]:
        """Compute all four.

        Args:
            ctx: torch's.
            hidden: Hidden states, shape (rows, width).
            weight: The head, shape (words, width), in the type that is computed in.
            bias: Its bias, shape (words,).
            labels: A word for each row, or a negative number for none.
            scale: What logits are multiplied by.
            cap: What they are bent towards.
            wanted: Whether a gradient will be asked for.
        """
        rows, words = len(hidden), len(weight)
        dtype = weight.dtype
        size = torch.float64 if dtype is torch.float64 else torch.float32
        first, second, third = (torch.zeros(rows, dtype=size, device=hidden.device) for _ in range(3))
        top = torch.zeros(rows, dtype=torch.int8, device=hidden.device)
        found = Rows(log_probs=first, entropy=second, top=top, mean=third, gradient=wanted)
        gradient = torch.empty(hidden.shape, dtype=dtype, device=hidden.device) if wanted else None
        with torch.autocast(hidden.device.type, enabled=False):
            states = hidden.to(dtype)
            step = chunk_rows(rows, words, weight.element_size())
            for start in range(0, rows, step):
                end = min(start + step, rows)
                logits = states[start:end] @ weight.t()
                softmax_rows(logits, labels[start:end], bias, scale, cap, found.part(start, end))
                if gradient is not None:
                    torch.mm(logits, weight, out=gradient[start:end])
                del logits
        if gradient is not None:
            ctx.save_for_backward(gradient, states, weight, bias, found.entropy)
        ctx.settings = hidden.dtype, scale, cap
        top = top.bool()
        ctx.mark_non_differentiable(top, found.mean)
        ctx.set_materialize_grads(False)
        return found.log_probs, found.entropy, top, found.mean

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Multiply each row by the gradient of its log-probability, and add what the entropy's asks for."""
        of_rows, states, weight, bias, entropy = ctx.saved_tensors
        dtype, scale, cap = ctx.settings
        by, by_entropy = gradients[:2]
        found = torch.zeros_like(of_rows)
        if by is not None:
            torch.mul(of_rows, by.unsqueeze(1), out=found)  # in the wider of both types
        if by_entropy is not None:
            found += _entropy_backward(states, weight, bias, scale, cap, entropy, by_entropy)
        return found.to(dtype), None, None, None, None, None, None


def _entropy_backward(
    states: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    cap: float | None,
    entropy: torch.Tensor,
    by: torch.Tensor,
) -> torch.Tensor:
    """Return the gradient over hidden states from that over entropies; a bonus for entropy is rare, so by torch."""
    found = torch.empty_like(states)
    step = chunk_rows(len(states), len(weight), 16)
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        z = wide(states[part] @ weight.t())
        z = (z + wide(bias) if bias is not None else z) * scale
        bent = torch.tanh(z / cap) if cap is not None else None
        log_p = (z if bent is None else cap * bent).log_softmax(-1)
        g = log_p.exp() * (log_p + entropy[part].unsqueeze(1)) * (-scale * by[part].unsqueeze(1))
        g = g if bent is None else g * (1 - bent * bent)
        found[part] = g.to(states.dtype) @ weight
    return found


def chunk_rows(rows: int, words: int, size: int) -> int:
    """Return how many rows to take at a time, in even portions.

    >>> chunk_rows(8192, 128256, 2), chunk_rows(100, 97, 4)
    (1024, 128)
    """
    most = max(CHUNK // (words * size) // 128 * 128, 128)
    portions = -(-rows // most) or 1
    return int(-(-rows // portions // 128) * 128) or 128


def log_probs(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    scale: float = 1.0,
    cap: float | None = None,
) -> tuple[torch.Tensor, ...]:
    """See :meth:`LogProbs.forward`."""
    wanted = torch.is_grad_enabled() and hidden.requires_grad
    found: tuple[torch.Tensor, ...] = LogProbs.apply(hidden, weight, bias, labels, scale, cap, wanted)
    return found


def fits(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> bool:
    """Whether the head is a frozen one in the type that is computed in."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    trained = weight.requires_grad or (bias is not None and bias.requires_grad)
    return not trained and weight.dtype == dtype and hidden.is_floating_point() and type(weight.data) is torch.Tensor


def logit_scale(config: Any) -> float:
    """Return what a model multiplies its logits by, before they are bent."""
    config = config.get_text_config()
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):  # Cohere, Muse Glimmer, Falcon H1
        if (value := getattr(config, name, None)) is not None:
            return float(value)
    divisor = getattr(config, "logits_scaling", None)  # Granite, MiniCPM; HyperCLOVA X multiplies by it
    if divisor is None:
        return 1.0
    return float(divisor) if config.model_type == "hyperclovax" else 1 / float(divisor)


class Count:
    """How many labels of the next batch are in the loss, read without waiting for what the device has yet to do.

    The number is asked for as a forward pass begins and needed as it ends: by then the device has long had it.
    """

    def __init__(self) -> None:
        self.labels: torch.Tensor | None = None
        self.number: torch.Tensor | None = None
        self.ready: Any = None

    def begin(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:  # noqa: ARG002 - a hook's
        """Ask for the number of a batch: a hook before a model's forward pass."""
        labels = options.get("labels")
        self.labels = labels if isinstance(labels, torch.Tensor) and labels.is_cuda else None
        if self.labels is None:
            return
        count = (self.labels[..., 1:] != IGNORED).sum()
        self.number = torch.empty((), dtype=count.dtype, pin_memory=True)
        self.number.copy_(count, non_blocking=True)
        self.ready = torch.cuda.Event()
        self.ready.record()

    def of(self, labels: torch.Tensor) -> int | None:
        """Return the number; None if it was not asked for."""
        if not labels.is_cuda:
            return int((labels[..., 1:] != IGNORED).sum())
        if self.labels is not labels or self.number is None:
            return None
        self.ready.synchronize()
        self.labels = None
        return int(self.number)


def chunked(count: Count, scale: float, own: Any) -> Any:
    """Return what takes the place of TRL's chunked loss before 1.15 (trl/trainer/sft_trainer.py)."""

    @functools.wraps(own)
    def loss(
        hidden_states: torch.Tensor,
        lm_head_weight: torch.Tensor,
        chunk_size: int,
        labels: torch.Tensor | None = None,
        shift_labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        logit_scale: float = 1.0,
        final_logit_softcapping: float | None = None,
        lm_head_bias: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        by = scale if logit_scale == 1.0 else logit_scale  # TRL 1.14 knows no logits_scaling
        if not fits(hidden_states, lm_head_weight, lm_head_bias):
            return own(  # type: ignore[no-any-return]  # trl is Any to mypy
                hidden_states,
                lm_head_weight,
                chunk_size,
                labels=labels,
                shift_labels=shift_labels,
                num_items_in_batch=num_items_in_batch,
                logit_scale=by,
                final_logit_softcapping=final_logit_softcapping,
                lm_head_bias=lm_head_bias,
            )
        known = count.of(labels) if shift_labels is None and labels is not None else None
        if shift_labels is None:
            assert labels is not None
            shift_labels = torch.nn.functional.pad(labels, (0, 1), value=IGNORED)[..., 1:]
        states, words = hidden_states.reshape(-1, hidden_states.shape[-1]), shift_labels.reshape(-1)
        valid = (words != IGNORED).sum()
        if known is not None and (taken := -(-max(known, 1) // 128) * 128) < 0.9 * len(words):
            order = (words != IGNORED).to(torch.int8).argsort(descending=True, stable=True)[:taken]
            states, words = states.index_select(0, order), words.index_select(0, order)
        log_p, entropy, top, _ = log_probs(states, lm_head_weight, lm_head_bias, words, by, final_logit_softcapping)
        number = valid.clamp(min=1) if num_items_in_batch is None else num_items_in_batch
        number = number.to(log_p.device) if isinstance(number, torch.Tensor) else number
        return -log_p.sum() / number, top.sum().float(), entropy.sum(), valid

    return loss


class Since115:
    """What takes the place of TRL's function since 1.15 (trl/kernels/chunked_logprob.py)."""

    def __init__(self, own: Any) -> None:
        self.own = own

    def apply(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        temperature: float,
        chunk_size: int,
        final_logit_softcapping: float | None = None,
        logit_scale: float = 1.0,
        outputs: tuple[str, ...] = (),
    ) -> tuple[torch.Tensor | None, ...]:
        """Return log-probabilities, entropy, log of the squared probabilities' sum, mean logit, whether it is top."""
        known = {"log_probs", "entropy", "is_top1", "mean_logits"}
        bent = final_logit_softcapping is not None and temperature != 1.0
        if bent or not set(outputs) <= known or not fits(hidden, weight, bias):
            return self.own.apply(  # type: ignore[no-any-return]  # trl is Any to mypy
                hidden,
                weight,
                bias,
                targets,
                temperature,
                chunk_size,
                final_logit_softcapping,
                logit_scale,
                outputs,
            )
        found = log_probs(hidden, weight, bias, targets, logit_scale / temperature, final_logit_softcapping)
        log_p, entropy, top, mean = found
        return (
            log_p,
            entropy if "entropy" in outputs else None,
            None,
            mean if "mean_logits" in outputs else None,
            top if "is_top1" in outputs else None,
        )


def install(model: Any, method: str) -> str | None:
    """Put the loss into TRL. Return why it cannot be, or None.

    Args:
        model: The model that is trained.
        method: The training method.
    """
    import trl.trainer.utils as shared
    from trl.trainer import sft_trainer

    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None or hasattr(head, "base_layer"):
        return "the model has no plain output layer"
    if weight.requires_grad or getattr(getattr(head, "bias", None), "requires_grad", False):
        return "the output layer is trained"
    if method not in PER_TOKEN:
        return "this method has a loss of its own"
    if not hasattr(sft_trainer, "_chunked_cross_entropy_loss"):
        own = seams.original(shared, "_ChunkedLogProbFunction")
        seams.replace(shared, "_ChunkedLogProbFunction", Since115(own))
        return None
    if method != "sft":
        return "this version of TRL makes all logits for it"
    count = Count()
    model.register_forward_pre_hook(count.begin, with_kwargs=True)
    own = seams.original(sft_trainer, "_chunked_cross_entropy_loss")
    seams.replace(sft_trainer, "_chunked_cross_entropy_loss", chunked(count, logit_scale(model.config), own))
    return None

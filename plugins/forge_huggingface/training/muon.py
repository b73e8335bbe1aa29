"""Muon for the matrices of a model, and AdamW for all else: ``optim = "muon"``.

Muon (Jordan et al., https://kellerjordan.github.io/posts/muon) makes each step of a matrix nearly orthogonal. It is for
matrices inside the layers: embeddings, the output layer, norms and biases are AdamW's. Its steps are as long as AdamW's
(Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982, section 2.2), so one learning rate does for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from forge_huggingface.facts.shape import is_of_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOMENTUM = 0.95
"""torch's own, and that of the authors."""


class MuonAndAdamW(torch.optim.Optimizer):  # type: ignore[misc]  # torch is untyped here
    """Two optimizers as one: their groups in one list, their states in one dictionary.

    Args:
        matrices: Groups for Muon.
        others: Groups for AdamW.
        lr: The learning rate of both.
        betas: AdamW's.
        eps: AdamW's.
    """

    def __init__(
        self,
        matrices: Iterable[dict[str, Any]],
        others: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        muon = [{"muon": True, **group} for group in matrices if group["params"]]
        adamw = [{"muon": False, **group} for group in others if group["params"]]
        made: dict[bool, Any] = {}
        if muon:
            made[True] = torch.optim.Muon(muon, lr=lr, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw")
        if adamw:
            made[False] = torch.optim.AdamW(adamw, lr=lr, betas=betas, eps=eps)
        self.made = made
        super().__init__([group for each in made.values() for group in each.param_groups], {})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step. Groups and states may be others than at first: a checkpoint brings new ones."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for which, each in self.made.items():
            each.param_groups = [group for group in self.param_groups if group["muon"] is which]
            each.state = self.state
            each.step()
        return loss


def make(model: Any, args: Any, decayed: frozenset[str]) -> MuonAndAdamW:
    """Return the optimizer of a model by a trainer's arguments.

    Args:
        model: The model.
        args: The trainer's arguments.
        decayed: The names of the parameters that ``weight_decay`` is for.
    """
    groups: dict[tuple[bool, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = args.weight_decay if name in decayed else 0.0
            groups.setdefault((is_of_layers(name, parameter), decay), []).append(parameter)
    parts: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for (which, decay), parameters in groups.items():
        parts[which].append({"params": parameters, "weight_decay": decay})
    betas = (args.adam_beta1, args.adam_beta2)
    return MuonAndAdamW(parts[True], parts[False], lr=args.learning_rate, betas=betas, eps=args.adam_epsilon)


def is_of_layers(name: str, parameter: Any) -> bool:
    """Whether a parameter is a matrix inside the layers, LoRA's too."""
    plain = name.replace(".modules_to_save.default", "").replace(".token_adapter", "")
    outside = is_of_words(plain) or "trainable_tokens" in name or "lora_embedding" in name
    return parameter.ndim == 2 and not outside and any(part.isdigit() for part in name.split("."))

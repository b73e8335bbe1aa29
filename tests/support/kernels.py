"""Small models with LoRA, one of each architecture, and a step of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from forge_huggingface.kernels import lora, mask, mlp, norm, rope

SMALL: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.15,
}
HEADS = {**SMALL, "head_dim": 16}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**SMALL, "attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", SMALL),
    "qwen2": ("Qwen2", SMALL),
    "qwen3": ("Qwen3", HEADS),
    "gemma2": ("Gemma2", {**HEADS, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 16}),
    "gemma3": ("Gemma3", {**HEADS, "query_pre_attn_scalar": 16, "sliding_window": 8}),
    "phi3": ("Phi3", SMALL),
    "granite": ("Granite", {**SMALL, "logits_scaling": 3.0, "residual_multiplier": 0.7}),
    "olmo2": ("Olmo2", SMALL),
    "smollm3": ("SmolLM3", SMALL),
    "cohere": ("Cohere", {**SMALL, "logit_scale": 0.25}),
}


def bare(name: str = "llama") -> Any:
    """Return a small model whose weights are all trained, its norms random."""
    kind, values = ARCHITECTURES[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}TextConfig" if name == "gemma3" else f"{kind}Config")(**values)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).double()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    return model.train()


def make(name: str = "llama", **changes: Any) -> Any:
    """Return a small model with LoRA on every linear layer, its matrices and norms random."""
    model = bare(name)
    names = {
        full.rpartition(".")[2]
        for full, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and "lm_head" not in full
    }
    settings = {"r": 4, "lora_alpha": 6, "target_modules": sorted(names), **changes}
    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings), autocast_adapter_dtype=False)
    for full, parameter in wrapped.named_parameters():
        if "lora_" in full:
            torch.nn.init.normal_(parameter, std=0.1)
    return wrapped.double().train()


INPUTS = torch.randint(3, 97, (3, 11), generator=torch.Generator().manual_seed(5))
LABELS = INPUTS.clone()
LABELS[0, :4] = -100
MASK = torch.ones_like(INPUTS)
for row, end in ((1, 7), (2, 9)):
    INPUTS[row, end:], LABELS[row, end:], MASK[row, end:] = 0, -100, 0


def step(model: Any, **options: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss of a batch and the gradients of everything that is trained."""
    model.zero_grad()
    result = model(input_ids=INPUTS, attention_mask=MASK, labels=LABELS, use_cache=False, **options).loss
    result.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(parameter.grad is not None for parameter in trained.values())
    return result.item(), {name: parameter.grad.clone() for name, parameter in trained.items()}  # type: ignore[union-attr]


def assert_equal(ours: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    """Compare losses and gradients to a millionth."""
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert ours[1].keys() == theirs[1].keys()
    for name, gradient in theirs[1].items():
        assert (ours[1][name] - gradient).norm() <= 1e-6 * gradient.norm() + 1e-12, name


INSTALL: dict[str, Callable[[Any], Any]] = {
    "lora": lora.install,
    "swiglu": lambda model: mlp.install(model, lora=True),
    "norm": norm.install,
    "rope": rope.install,
    "mask": lambda model: 0 if mask.install(model, "sft") else 1,
}


def install(model: Any) -> None:
    """Put in every part but the loss."""
    for each in INSTALL.values():
        each(model)

"""A decoder as on a GPU, for a CPU, and models to decode."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from forge_huggingface.model.decoding import Decoder, generating, inside

if TYPE_CHECKING:
    from collections.abc import Iterator


SIZE = {
    "vocab_size": 211,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {},
    "Mistral": {"sliding_window": 8},
    "Qwen2": {},
    "Qwen3": {"head_dim": 16},
    "Gemma2": {"head_dim": 16, "sliding_window": 8},
    "Gemma3": {"head_dim": 16, "sliding_window": 8, "layer_types": [*["sliding_attention"] * 2, "full_attention"]},
    "Phi3": {},
    "Granite": {},
    "Olmo2": {},
    "SmolLM3": {},
}


def made(family: str, device: str = "cpu", *, adapter: bool = False) -> Any:
    """Return a random model in float32."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    config = getattr(transformers, family + ("TextConfig" if family == "Gemma3" else "Config"))
    torch.manual_seed(3)
    model = getattr(transformers, f"{family}ForCausalLM")(config(**SIZE, **FAMILIES[family])).to(device).eval()
    if adapter:
        found = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
        model = get_peft_model(model, found).eval()
    return model


class Fixed(Decoder):
    """Generates as on a GPU, with a cache of fixed size, but records nothing."""

    def __init__(self) -> None:
        super().__init__(print)
        self.steps = 0

    @contextlib.contextmanager
    def around(self, model: Any) -> Iterator[None]:
        """Count the tokens that the step makes."""

        def step(forward: Any) -> Any:
            def counted(**inputs: Any) -> Any:
                self.steps += 1
                return forward(**inputs)

            return counted

        with generating(inside(model), step, print):
            yield

"""What other tools call the keys, methods and adapters that forge has, and what became of those that it has not.

A job is often written from one for another tool. A word that is no method here, but is one there, is met with what to
write instead: ``did you mean "dpo"?`` for ``"ppo"`` would be a wrong answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_QLORA = "[model] load_in_4bit = true"


_OTHER = 'forge has LoRA, with use_dora and use_rslora: write type = "lora"'

ADAPTERS: Mapping[str, str] = {
    **dict.fromkeys(("adalora", "boft", "ia3", "loha", "lokr", "oft", "vera"), _OTHER),
    "apollo": 'write type = "none" with [train] optim = "apollo_adamw"',
    "galore": 'write type = "none" with [train] optim = "galore_adamw"',
    "lisa": 'forge trains the same layers in each step: write type = "lora", or "none"',
    "llama_pro": 'forge adds no layers to a model: write type = "lora", or "none"',
    **dict.fromkeys(("p_tuning", "prefix_tuning", "prompt_tuning"), _OTHER),
    "freeze": 'write type = "layers" and layers_to_transform, of which -1 is the last layer',
    "dora": 'write type = "lora" and use_dora = true',
    "full": 'write type = "none", which trains every weight',
    "qlora": f'write type = "lora", and {_QLORA}',
    "rslora": 'write type = "lora" and use_rslora = true',
}
"""``[adapter] type`` of other tools."""

_LOFTQ = (
    "forge has no LoftQ: it begins from what 4 bit rounds off, so its adapter is right on that rounded base alone, and "
    "would count the rest twice in the 16 bit one that forge merges into; "
)
_DATA = "forge has no {}: it begins from the activations of a pass over the rows, before training; "
_OTHER = 'write "pissa", which begins from the weights alone, or true'
BEGINNINGS: Mapping[str, str] = {
    "corda": f"{_DATA.format('CorDA')}{_OTHER}",
    "eva": f"{_DATA.format('EVA')}{_OTHER}",
    "loftq": f"{_LOFTQ}write true beside load_in_4bit, which is QLoRA",
    "lora_ga": f"forge has no LoRA-GA: it begins from gradients of a pass over the rows; {_OTHER}",
}
"""``[adapter] init_lora_weights`` of other tools that forge does not have, with the reason."""

ADAPTER_KEYS: Mapping[str, str] = {
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "freeze_trainable_layers": "layers_to_transform",
    "freeze_trainable_modules": "target_modules",
    "init_weights": "init_lora_weights",
    "lora_bias": "bias",
    "lora_r": "r",
    "lora_rank": "r",
    "lora_target": "target_modules",
    "lora_target_parameters": "target_parameters",
    "loftq_config": "init_lora_weights",
    "use_loftq": "init_lora_weights",
    "lora_target_modules": "target_modules",
    "method": "type",
    "peft_type": "type",
    "rank": "r",
    "targets": "target_modules",
    "unfrozen_parameters": "target_modules",
}
"""What other tools call the keys of ``[adapter]``."""

MODEL_KEYS: Mapping[str, str] = {
    "base_model": "id",
    "cutoff_len": "max_seq_length",
    "flash_attn": "attn_implementation",
    "max_length": "max_seq_length",
    "model_name": "id",
    "new_special_tokens": "add_special_tokens",
    "model_name_or_path": "id",
    "name": "id",
    "path": "id",
    "sequence_len": "max_seq_length",
    "tokens": "add_tokens",
    "torch_dtype": "dtype",
}
"""What other tools call the keys of ``[model]``."""

DATA_KEYS: Mapping[str, str] = {
    "dataset": "path",
    "dataset_name": "path",
    "image_max_pixels": "max_pixels",
    "image_min_pixels": "min_pixels",
    "max_samples": "max_rows",
    "max_train_samples": "max_rows",
    "num_samples": "max_rows",
    "sample_packing": "packing",
    "system": "system_prompt",
    "system_message": "system_prompt",
    "tools_file": "tools",
    "template": "chat_template",
    "train_file": "path",
    "val_size": "eval_size",
    "val_set_size": "eval_size",
}
"""What other tools call the keys of ``[data]``."""

NOT_HERE: Mapping[str, str] = {
    "cutoff_len": "write [model] max_seq_length",
    "layer_replication": "forge repeats no layers of a model; remove it",
    "layers_pattern": "layers_to_transform finds the layers by their numbers; remove it",
    "megatron_config": "forge does not train with Megatron; remove it",
    "profiler": "forge has none: the step events and `forge report` tell times and memory; remove it",
    "tokenized_path": "forge makes rows anew for each run and keeps no tokenised ones; remove it",
    "experts_implementation": "forge leaves it to transformers, so there is no key for it; remove it",
    **dict.fromkeys(
        ("dataset_num_proc", "num_proc"), "forge makes rows in one process, and tokenizers use all cores; remove it"
    ),
    "preprocessing_num_workers": "forge makes rows in one process, and tokenizers use all cores; remove it",
    **{
        name: f"it is a value of the model's config.json: write [model] config = {{ {name} = … }}"
        for name in ("rope_parameters", "rope_scaling", "rope_theta")
    },
    "quantization_bit": "write load_in_4bit = true or load_in_8bit = true",
    "shuffle": 'rows are shuffled; [train] train_sampling_strategy = "sequential" keeps their order',
    "loftq_config": f"{_LOFTQ}remove it",
    "resize_vocab": "embeddings are resized wherever tokens are added: [model] add_tokens; remove it",
    "trainable_token_indices": "rows of new tokens are trained where they are added: [model] add_tokens; remove it",
    "use_loftq": f"{_LOFTQ}remove it",
    "use_cache": "forge sets it itself; remove it",
}
"""What keys of other tools have no counterpart, with what to do."""


def advice(key: str, names: Mapping[str, str]) -> tuple[str, str | None] | None:
    """Return what to do about a key of another tool, and the key of the table that is meant, if it is one."""
    if name := names.get(key):
        return f"write {name}", name
    return (NOT_HERE[key], None) if key in NOT_HERE else None


def folded(word: str) -> str:
    """Return a word as these tables write it: ``"Dr. GRPO"`` and ``"dr-grpo"`` are ``dr_grpo``."""
    return word.strip().lower().replace(". ", "_").replace("-", "_").replace(" ", "_")

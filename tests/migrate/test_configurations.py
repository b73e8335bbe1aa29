"""Twelve configurations as their tools' examples have them, and the jobs that are written by hand for the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tomli

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Migrate

AXOLOTL = """
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 1
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 0.0002
bf16: auto
tf32: false
gradient_checkpointing: true
attn_implementation: flash_attention_2
warmup_ratio: 0.1
logging_steps: 1
saves_per_epoch: 1
weight_decay: 0.0
output_dir: ./outputs
wandb_project:
"""
OF_AXOLOTL = """
per_device_train_batch_size = 2
gradient_accumulation_steps = 4
num_train_epochs = 1
optim = "adamw_bnb_8bit"
lr_scheduler_type = "cosine"
learning_rate = 0.0002
warmup_steps = 0.1
logging_steps = 1
save_strategy = "epoch"
weight_decay = 0.0
save_total_limit = 4
"""
LORA = "adapter: lora\nlora_r: 16\nlora_alpha: 32\nlora_dropout: 0.05\nlora_target_linear: true\n"
OF_LORA = '[adapter]\ntype = "lora"\nr = 16\nlora_alpha = 32\nlora_dropout = 0.05\ntarget_modules = "all-linear"\n'
FACTORY = """
do_train: true
cutoff_len: 2048
max_samples: 1000
preprocessing_num_workers: 16
output_dir: saves
logging_steps: 10
save_steps: 500
plot_loss: true
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
"""
OF_FACTORY = """
logging_steps = 10
save_steps = 500
per_device_train_batch_size = 1
gradient_accumulation_steps = 8
learning_rate = 1.0e-4
num_train_epochs = 3.0
lr_scheduler_type = "cosine"
warmup_steps = 0.1
bf16 = true
"""
FACTORY_LORA = "finetuning_type: lora\nlora_rank: 8\nlora_target: all\n"
OF_FACTORY_LORA = (
    '[adapter]\ntype = "lora"\nr = 8\nlora_alpha = 16\nlora_dropout = 0.0\ntarget_modules = "all-linear"\n'
)
SWIFT = r"""
CUDA_VISIBLE_DEVICES=0 \
swift {command} \
    --model org/base {more} \
    --torch_dtype bfloat16 \
    --num_train_epochs 1 \
    --per_device_train_batch_size 1 \
    --per_device_eval_batch_size 1 \
    --learning_rate 1e-4 \
    --gradient_accumulation_steps 16 \
    --save_steps 50 \
    --logging_steps 5 \
    --max_length 2048 \
    --warmup_ratio 0.05 \
    --dataset_num_proc 4
"""
OF_SWIFT = """
num_train_epochs = 1
per_device_train_batch_size = 1
learning_rate = 1e-4
gradient_accumulation_steps = 16
save_steps = 50
logging_steps = 5
warmup_steps = 0.05
lr_scheduler_type = "cosine"
weight_decay = 0.1
adam_beta2 = 0.95
"""
OF_SWIFT_ROWS = 'on_bad_row = "drop"\nmax_bad_rows = 1.0\non_long_row = "drop"\n'
OF_SWIFT_LORA = '[adapter]\ntype = "lora"\nr = 8\nlora_alpha = 32\nlora_dropout = 0.05\ntarget_modules = "all-linear"\n'

SETS: dict[str, Any] = {
    "who": {"file_name": "who.json"},
    "alp": {"file_name": "alp.json"},
    "pics": {
        "file_name": "pics.json",
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "images": "images"},
        "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    },
    "c4": {"file_name": "c4.jsonl", "columns": {"prompt": "text"}},
}

CASES: dict[str, tuple[str, str, str]] = {
    "axolotl: every weight": (
        "c.yml",
        "base_model: org/base\ndatasets: [{path: org/rows, type: alpaca}]\nval_set_size: 0.05\nsequence_len: 8192\n"
        f"sample_packing: true\nevals_per_epoch: 2\n{AXOLOTL}",
        '[model]\nid = "org/base"\nmax_seq_length = 8192\ndtype = "bfloat16"\n[adapter]\ntype = "none"\n'
        '[data]\npath = "org/rows"\nformat = "instruction"\nchat_template = "alpaca"\neval_size = 0.05\n'
        f'packing = true\non_long_row = "drop"\n[train]\nmethod = "sft"\neval_strategy = "steps"\neval_steps = 0.5\n'
        f"eval_on_start = true\nper_device_eval_batch_size = 2\n{OF_AXOLOTL}",
    ),
    "axolotl: DPO with LoRA": (
        "c.yml",
        f"base_model: org/base\nload_in_8bit: true\n{LORA}rl: dpo\nsequence_len: 4096\nsample_packing: false\n"
        "datasets:\n  - {path: org/pairs, type: chat_template.default, field_messages: conversation,\n"
        f"     field_chosen: chosen, field_rejected: rejected}}\n{AXOLOTL}",
        f'[model]\nid = "org/base"\nload_in_8bit = true\nmax_seq_length = 4096\n{OF_LORA}[data]\npath = "org/pairs"\n'
        f'columns = {{ messages = "conversation" }}\non_long_row = "drop"\n[train]\nmethod = "dpo"\n{OF_AXOLOTL}',
    ),
    "axolotl: a stream of texts, packed": (
        "c.yml",
        "base_model: org/base\npretraining_dataset:\n  - {path: org/texts, name: small, type: pretrain,"
        " text_column: text, split: train}\nstreaming_multipack_buffer_size: 10000\nmax_steps: 1000\n"
        f"sample_packing: true\npretrain_multipack_attn: true\nsequence_len: 1024\n{AXOLOTL}",
        '[model]\nid = "org/base"\nmax_seq_length = 1024\ndtype = "bfloat16"\n[adapter]\ntype = "none"\n'
        '[data]\npath = "org/texts"\nname = "small"\nsplit = "train"\nformat = "text"\nstreaming = true\n'
        f'packing = true\non_long_row = "split"\n[train]\nmethod = "sft"\nmax_steps = 1000\n'
        f"{OF_AXOLOTL.replace('num_train_epochs = 1', '')}",
    ),
    "axolotl: gpt-oss as 16 bit": (
        "c.yml",
        f"base_model: org/base\nmodel_quantization_config: Mxfp4Config\nmodel_quantization_config_kwargs:"
        f" {{dequantize: true}}\n{LORA}datasets:\n  - {{path: org/thoughts, type: chat_template,"
        f" field_thinking: thinking, template_thinking_key: thinking}}\nsequence_len: 4096\n{AXOLOTL}",
        f'[model]\nid = "org/base"\ndequantize = true\nmax_seq_length = 4096\n{OF_LORA}[data]\npath = "org/thoughts"\n'
        f'on_long_row = "drop"\n[train]\nmethod = "sft"\n{OF_AXOLOTL}',
    ),
    "llama-factory: LoRA on two data sets": (
        "c.yaml",
        f"model_name_or_path: org/base\nstage: sft\n{FACTORY_LORA}dataset: who,alp\ntemplate: qwen3_nothink\n{FACTORY}",
        f'[model]\nid = "org/base"\nmax_seq_length = 2048\n{OF_FACTORY_LORA}[data]\n'
        "chat_template_kwargs = { enable_thinking = false }\n"
        '[[data.sources]]\npath = "data/who.json"\nformat = "instruction"\nmax_rows = 1000\n'
        '[[data.sources]]\npath = "data/alp.json"\nformat = "instruction"\nmax_rows = 1000\n'
        f'[train]\nmethod = "sft"\n{OF_FACTORY}',
    ),
    "llama-factory: pictures": (
        "c.yaml",
        f"model_name_or_path: org/sees\nimage_max_pixels: 262144\nvideo_max_pixels: 16384\nstage: sft\n{FACTORY_LORA}"
        f"dataset: pics\ntemplate: qwen3_vl\n{FACTORY}",
        f'[model]\nid = "org/sees"\nmax_seq_length = 2048\n{OF_FACTORY_LORA}[data]\npath = "data/pics.json"\n'
        'format = "messages"\nmax_rows = 1000\nmax_pixels = 262144\n'
        f'[train]\nmethod = "sft"\n{OF_FACTORY}',
    ),
    "llama-factory: continued pretraining": (
        "c.yaml",
        f"model_name_or_path: org/base\nstage: pt\n{FACTORY_LORA}dataset: c4\n{FACTORY}",
        f'[model]\nid = "org/base"\nmax_seq_length = 2048\n{OF_FACTORY_LORA}[data]\npath = "data/c4.jsonl"\n'
        f'format = "text"\nmax_rows = 1000\npacking = true\non_long_row = "split"\n[train]\n'
        f'method = "sft"\n{OF_FACTORY}',
    ),
    "llama-factory: LoRA+ on an interleaved mixture": (
        "c.yaml",
        f"model_name_or_path: org/base\nstage: sft\n{FACTORY_LORA}loraplus_lr_ratio: 16.0\ndataset: who,alp\n"
        f"mix_strategy: interleave_under\ninterleave_probs: 0.7,0.3\ntemplate: llama3\n{FACTORY}",
        f'[model]\nid = "org/base"\nmax_seq_length = 2048\n{OF_FACTORY_LORA}[data]\n'
        'stopping_strategy = "first_exhausted"\n'
        '[[data.sources]]\npath = "data/who.json"\nformat = "instruction"\nmax_rows = 1000\nshare = 0.7\n'
        '[[data.sources]]\npath = "data/alp.json"\nformat = "instruction"\nmax_rows = 1000\nshare = 0.3\n'
        f'[train]\nmethod = "sft"\nloraplus_lr_ratio = 16.0\n{OF_FACTORY}',
    ),
    "ms-swift: rows drawn of three data sets": (
        "c.sh",
        SWIFT.format(
            command="sft",
            more="--dataset 'org/zh#500' org/en#500 --split_dataset_ratio 0 --system 'You help.' "
            "--lora_rank 8 --lora_alpha 32 --target_modules all-linear",
        ),
        f'[model]\nid = "org/base"\nmax_seq_length = 2048\ndtype = "bfloat16"\n{OF_SWIFT_LORA}[data]\n'
        f'system_prompt = "You help."\n{OF_SWIFT_ROWS}[[data.sources]]\npath = "org/zh"\ndraw_rows = 500\n'
        f'[[data.sources]]\npath = "org/en"\ndraw_rows = 500\n[train]\nmethod = "sft"\n{OF_SWIFT}',
    ),
    "ms-swift: a vision tower trained whole": (
        "c.sh",
        SWIFT.format(
            command="sft",
            more="--dataset org/coco#20000 --tuner_type lora_llm --vit_lr 1e-5 --aligner_lr 2e-5",
        ).replace("org/base", "Qwen/Qwen2.5-VL-7B-Instruct"),
        f'[model]\nid = "Qwen/Qwen2.5-VL-7B-Instruct"\nmax_seq_length = 2048\ndtype = "bfloat16"\n{OF_SWIFT_LORA}'
        'finetune_vision_layers = false\nmodules_to_save = ["visual"]\n'
        f'[data]\npath = "org/coco"\ndraw_rows = 20000\n{OF_SWIFT_ROWS}[train]\nmethod = "sft"\n'
        f"learning_rates = {{ 'visual\\..*merger' = 2e-5, 'visual\\.' = 1e-5 }}\n{OF_SWIFT}",
    ),
    "ms-swift: GSPO": (
        "c.sh",
        SWIFT.format(
            command="rlhf",
            more="--rlhf_type grpo --dataset org/maths#10000 --beta 0.0 --epsilon 3e-4 --epsilon_high 4e-4 "
            "--steps_per_generation 32 --importance_sampling_level sequence --num_generations 16 --tuner_type full "
            "--reward_funcs accuracy --max_completion_length 8192 --offload_model true --temperature 1.0",
        ),
        '[model]\nid = "org/base"\nmax_seq_length = 2048\ndtype = "bfloat16"\n[adapter]\ntype = "none"\n'
        f'[data]\npath = "org/maths"\ndraw_rows = 10000\n{OF_SWIFT_ROWS}[train]\nmethod = "grpo"\nbeta = 0.0\n'
        "epsilon = 3e-4\nepsilon_high = 4e-4\nsteps_per_generation = 32\nnum_generations = 16\ntemperature = 1.0\n"
        f'importance_sampling_level = "sequence"\nmax_completion_length = 8192\n{OF_SWIFT}'
        '[[train.reward]]\nuse = "math-equal"\nargs = { column = "solution" }\n',
    ),
    "trl: its example": (
        "c.yaml",
        "model_name_or_path: org/base\ndataset_name: org/rows\nreport_to: none\nlearning_rate: 0.0001\n"
        "lr_scheduler_type: cosine\n",
        '[model]\nid = "org/base"\nmax_seq_length = 1024\n[adapter]\ntype = "none"\n[data]\npath = "org/rows"\n'
        'train_on = "all"\n[train]\nmethod = "sft"\nlearning_rate = 0.0001\nlr_scheduler_type = "cosine"\n'
        "per_device_train_batch_size = 8\nnum_train_epochs = 3.0\n",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_migrated_job_is_the_one_written_by_hand(migrate: Migrate, tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(SETS))
    file, text, hand = CASES[name]
    job, draft = migrate(text, file, **({"method": "sft"} if name.startswith("trl") else {}))
    assert [str(each) for each in draft.missing] == []
    home = str(tmp_path / "data") + "/"
    assert json.loads(json.dumps(job).replace(home, "data/")) == tomli.loads(hand)

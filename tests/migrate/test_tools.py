"""Each tool's configuration becomes a job that trains the same: its keys, and its defaults that are not forge's."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from forge.errors import UsageError
from forge_migrate.reading import TOOLS, read

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Migrate


def test_axolotl_qlora(migrate: Migrate) -> None:
    job, draft = migrate(
        """
        base_model: org/base
        load_in_4bit: true
        adapter: qlora
        lora_r: 32
        lora_alpha: 16
        lora_target_linear: true
        datasets:
          - path: org/rows
            type: chat_template
            field_messages: talk
        val_set_size: 0.05
        sample_packing: true
        micro_batch_size: 2
        gradient_accumulation_steps: 4
        learning_rate: 2e-4
        bf16: auto
        evals_per_epoch: 4
        wandb_project:
        wandb_entity:
        special_tokens:
          pad_token: "<pad>"
        """
    )
    assert draft.tool == "Axolotl"
    assert draft.missing == []
    assert job["model"] == {"id": "org/base", "max_seq_length": 512, "load_in_4bit": True}
    assert job["adapter"] == {
        "type": "lora",
        "r": 32,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "target_modules": "all-linear",
    }
    assert job["data"] == {
        "path": "org/rows",
        "columns": {"messages": "talk"},
        "eval_size": 0.05,
        "packing": True,
        "on_long_row": "drop",
    }
    assert job["train"] == {
        "method": "sft",
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 4,
        "learning_rate": 2e-4,
        "eval_strategy": "steps",
        "eval_steps": 0.25,
        "eval_on_start": True,
        "per_device_eval_batch_size": 2,
        "num_train_epochs": 1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.03,
        "optim": "adamw_torch_fused",
        "save_strategy": "epoch",
        "save_total_limit": 4,
    }


def test_axolotl_without_an_adapter_trains_every_weight_in_bfloat16(migrate: Migrate) -> None:
    job, _ = migrate("base_model: m\nmicro_batch_size: 1\nbf16: true\ndatasets: [{path: d.jsonl, type: completion}]\n")
    assert job["adapter"] == {"type": "none"}
    assert job["model"]["dtype"] == "bfloat16"
    assert job["data"]["format"] == "text"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("unfrozen_parameters: ['lm_head.weight[:400]']", "unfrozen_parameters"),
        ("optimizer: muon", "optimizer"),
        ("peft_init_lora_weights: loftq", "peft_init_lora_weights"),
        ("rl: ebft", "rl"),
        ("plugins: [axolotl.integrations.spectrum.SpectrumPlugin]", "plugins"),
        ("mirco_batch_size: 4", "mirco_batch_size"),
    ],
)
def test_what_changes_the_training_and_cannot_be_had_is_missing(migrate: Migrate, line: str, key: str) -> None:
    _, draft = migrate(f"base_model: m\nadapter: lora\ndatasets: [{{path: d.jsonl, type: alpaca}}]\n{line}\n")
    assert [each.key for each in draft.missing] == [key]


def test_axolotl_simpo_has_trls_alpha_where_none_is_set(migrate: Migrate) -> None:
    job, _ = migrate(
        "base_model: m\nrl: simpo\nrl_beta: 0.2\ndatasets: [{path: d.jsonl, type: chat_template.default}]\n"
    )
    assert {key: job["train"][key] for key in ("method", "loss_type", "beta", "cpo_alpha")} == {
        "method": "cpo",
        "loss_type": "simpo",
        "beta": 0.2,
        "cpo_alpha": 1.0,
    }


def test_llama_factory_reads_its_list_of_data_sets(migrate: Migrate, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    sets = {
        "talks": {
            "file_name": "talks.json",
            "formatting": "sharegpt",
            "columns": {"messages": "turns"},
            "tags": {"role_tag": "who", "content_tag": "text", "user_tag": "customer", "assistant_tag": "agent"},
        },
        "hub": {"hf_hub_url": "org/alpaca", "subset": "en"},
    }
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(sets))
    job, draft = migrate(
        """
        model_name_or_path: org/base
        stage: sft
        finetuning_type: lora
        lora_target: all
        dataset: talks,hub
        template: qwen3
        cutoff_len: 1024
        lr_scheduler_type: cosine
        warmup_ratio: 0.1
        bf16: true
        """
    )
    assert draft.missing == []
    talks, hub = job["data"]["sources"]
    assert talks["columns"] == {"conversations": "turns"}
    assert talks["message_keys"] == {"role": "who", "content": "text"}
    assert talks["roles"] == {"customer": "user", "agent": "assistant"}
    assert hub == {"path": "org/alpaca", "name": "en", "format": "instruction"}
    assert job["adapter"]["r"] == 8
    assert job["adapter"]["lora_alpha"] == 16
    assert job["train"]["learning_rate"] == 5e-5
    assert job["train"]["warmup_steps"] == 0.1


def test_llama_factory_mixes_sft_into_dpo(migrate: Migrate) -> None:
    job, _ = migrate("model_name_or_path: m\nstage: dpo\nfinetuning_type: full\npref_ftx: 0.5\npref_beta: 0.3\n")
    assert job["train"]["loss_type"] == ["sigmoid", "sft"]
    assert job["train"]["loss_weights"] == [1.0, 0.5]
    assert job["train"]["beta"] == 0.3


def test_a_data_set_that_no_list_has_is_missing(migrate: Migrate) -> None:
    _, draft = migrate("model_name_or_path: m\nstage: sft\ndataset: nowhere\n")
    assert "dataset_info.json, which is not there" in str(draft.missing[0])


def test_trl_command_in_a_script(migrate: Migrate) -> None:
    job, draft = migrate(
        """
        #!/bin/bash
        trl sft --model_name_or_path org/base \\
            --dataset_name org/rows --learning_rate 2e-4 --use_peft --lora_r 8 \\
            --eval_strategy steps --eval_steps 50 --push_to_hub --hub_model_id me/it --hub_token hf_secret
        """,
        "train.sh",
    )
    assert draft.missing == []
    assert job["model"] == {"id": "org/base", "max_seq_length": 1024}
    assert job["adapter"]["lora_dropout"] == 0.05
    assert job["adapter"]["target_modules"] == ["q_proj", "v_proj"]
    assert job["data"]["train_on"] == "all"
    assert job["data"]["eval_split"] == "test"
    assert job["train"]["learning_rate"] == 2e-4
    assert job["export"] == [{"format": "adapter", "push_to_hub": "me/it"}]
    assert "hf_secret" not in f"{draft}{job}"


def test_trls_yaml_needs_the_command(migrate: Migrate) -> None:
    text = "model_name_or_path: m\ndataset_name: d\nuse_peft: false\n"
    with pytest.raises(UsageError, match="does not say which command"):
        migrate(text)
    job, _ = migrate(text, method="dpo")
    assert job["train"]["method"] == "dpo"
    assert job["train"]["learning_rate"] == 1e-6
    assert job["adapter"] == {"type": "none"}


def test_ms_swift_script_with_variables(migrate: Migrate) -> None:
    job, draft = migrate(
        """
        nproc_per_node=2
        NPROC_PER_NODE=$nproc_per_node CUDA_VISIBLE_DEVICES=0,1 \\
        swift sft --model org/base --dataset 'org/rows:en#500' rows.jsonl \\
            --gradient_accumulation_steps $(expr 16 / $nproc_per_node) --system 'Be brief.'
        """,
        "train.sh",
    )
    assert draft.missing == []
    assert job["data"]["sources"] == [
        {"path": "org/rows", "name": "en", "draw_rows": 500},
        {"path": "rows.jsonl"},
    ]
    assert job["data"]["system_prompt"] == "Be brief."
    assert job["data"]["on_long_row"] == "drop"
    assert job["train"]["gradient_accumulation_steps"] == 8
    assert {key: job["train"][key] for key in ("learning_rate", "weight_decay", "adam_beta2", "lr_scheduler_type")} == {
        "learning_rate": 1e-4,
        "weight_decay": 0.1,
        "adam_beta2": 0.95,
        "lr_scheduler_type": "cosine",
    }
    assert any("with 2 processes" in text for text in draft.told)


def test_ms_swift_classifier(migrate: Migrate) -> None:
    command = "swift sft --model org/base --dataset rows.jsonl --task_type seq_cls --num_labels {} {}\n"
    job, draft = migrate(command.format(3, "--use_chat_template false"), "train.sh")
    assert job["train"]["method"] == "classification"
    assert job["train"]["problem_type"] == "single_label_classification"
    assert job["train"]["labels"] == ["0", "1", "2"]
    assert "train_on" not in job["data"]
    assert draft.missing == []
    assert any("use_chat_template" in text for text in draft.told)
    job, _ = migrate(command.format(1, ""), "train.sh")
    assert job["train"]["problem_type"] == "regression"
    assert "labels" not in job["train"]
    job, _ = migrate(command.format(4, "--problem_type multi_label_classification"), "train.sh")
    assert job["train"]["problem_type"] == "multi_label_classification"


def test_ms_swift_takes_sixteen_rows_a_step(migrate: Migrate) -> None:
    job, _ = migrate("swift sft --model m --dataset d.jsonl --per_device_train_batch_size 3\n", "train.sh")
    assert job["train"]["gradient_accumulation_steps"] == 6


def test_ms_swift_embedding(migrate: Migrate) -> None:
    job, draft = migrate(
        "swift sft --task_type embedding --model org/base --dataset d.jsonl --loss_type infonce --tuner_type lora\n",
        "train.sh",
    )
    assert draft.missing == []
    train = {key: job["train"][key] for key in ("method", "loss", "scale", "batch_sampler")}
    assert train == {
        "method": "embedding",
        "loss": "MultipleNegativesRankingLoss",
        "scale": 10.0,
        "batch_sampler": "batch_sampler",
    }
    assert any("texts by columns" in text for text in draft.told)
    _, draft = migrate(
        "swift sft --task_type reranker --model m --dataset d.jsonl --loss_type listwise_reranker\n", "train.sh"
    )
    assert [each.key for each in draft.missing] == ["loss_type"]


def test_ms_swift_distils_on_the_rows_answers_in_half_of_the_steps(migrate: Migrate) -> None:
    job, draft = migrate("swift rlhf --rlhf_type gkd --model m --teacher_model t --dataset d.jsonl\n", "train.sh")
    assert draft.missing == []
    assert job["train"]["lmbda"] == 0.5


def test_unsloth_yaml(migrate: Migrate) -> None:
    job, draft = migrate(
        """
        model: org/base
        data: {dataset: org/rows, format_type: auto}
        training: {training_type: lora, num_epochs: 1, learning_rate: 2e-4, max_steps: 0, save_steps: 0}
        lora: {target_modules: "q_proj,v_proj", finetune_vision_layers: true}
        logging: {enable_wandb: false, wandb_project: p}
        """
    )
    assert draft.missing == []
    assert job["model"]["load_in_4bit"] is True
    assert job["adapter"]["r"] == 64
    assert job["adapter"]["target_modules"] == ["q_proj", "v_proj"]
    assert job["data"]["train_on"] == "all"
    assert job["train"]["seed"] == 3407
    assert job["train"]["optim"] == "adamw_8bit"
    assert job["train"]["warmup_steps"] == 5
    assert job["use"]["backend"] == "unsloth"


def test_modelforge_json_with_comments(migrate: Migrate) -> None:
    job, draft = migrate(
        """
        {
          "provider": "unsloth",  // fast
          "model_name": "org/base", "task": "text-generation", "strategy": "qlora",
          "dataset": "rows.json", "max_seq_length": -1, "num_train_epochs": 3,
        }
        """,
        "config.json",
    )
    assert draft.missing == []
    assert job["model"] == {"id": "org/base", "max_seq_length": 2048, "load_in_4bit": True}
    assert (job["adapter"]["r"], job["adapter"]["lora_alpha"], job["adapter"]["lora_dropout"]) == (64, 16, 0.1)
    assert job["train"]["optim"] == "paged_adamw_32bit"
    assert job["train"]["max_grad_norm"] == 0.3
    assert job["train"]["num_train_epochs"] == 3
    assert job["train"]["load_best_model_at_end"] is True


@pytest.mark.parametrize("text", ["", "[1, 2]", "just words", "a: [", "{not json"])
def test_what_is_no_configuration_is_refused_in_a_sentence(migrate: Migrate, text: str) -> None:
    with pytest.raises(UsageError):
        migrate(text)


def test_whose_it_is_can_be_said(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("learning_rate: 1\n")
    with pytest.raises(UsageError, match="cannot be told"):
        read(path)
    assert [read(path, tool).tool for tool in TOOLS] == list(TOOLS)


@pytest.mark.parametrize(
    ("text", "start", "missing"),
    [
        (
            "model_name_or_path: m\nfinetuning_type: lora\nstage: sft\nlora_rank: 4\nadapter_name_or_path: out/sft\n",
            1,
            "",
        ),
        ("model_name_or_path: m\nfinetuning_type: lora\nstage: dpo\nadapter_name_or_path: out/sft\n", 0, "bare base"),
        ("model_name_or_path: m\nfinetuning_type: lora\nadapter_name_or_path: a,b\nstage: sft\n", 0, "one adapter"),
        (
            "model_name_or_path: m\nfinetuning_type: lora\nadapter_name_or_path: a\ncreate_new_adapter: true\n",
            0,
            "merge it first",
        ),
        (
            "base_model: m\nadapter: lora\nlora_r: 4\nlora_model_dir: out/sft\nrl: dpo\nlora_target_linear: true\n",
            1,
            "",
        ),
    ],
)
def test_an_adapter_to_go_on_from(migrate: Migrate, text: str, start: int, missing: str) -> None:
    job, draft = migrate(text)
    assert job["adapter"].get("from") == ("out/sft" if start else None)
    said = [each for each in draft.missing if "adapter" in each.key]
    assert len(said) == (not start)
    assert not said or missing in said[0].why
    if start:
        assert set(job["adapter"]) <= {"type", "from", "lora_dropout"}


def test_targets_that_are_a_regular_expression_or_parameters(migrate: Migrate) -> None:
    job, draft = migrate(
        """
        base_model: org/base
        adapter: lora
        lora_r: 4
        lora_target_modules: 'model.layers.[0-3].self_attn.(q|v)_proj'
        lora_target_parameters: [mlp.experts.down_proj]
        """
    )
    assert job["adapter"]["target_modules"] == "model.layers.[0-3].self_attn.(q|v)_proj"
    assert job["adapter"]["target_parameters"] == ["mlp.experts.down_proj"]
    assert not [each for each in draft.missing if "target" in each.key]


@pytest.mark.parametrize(
    ("text", "ratio", "rates"),
    [
        (
            "base_model: org/base\nadapter: lora\nlora_r: 8\nlora_alpha: 8\nlora_target_linear: true\n"
            "loraplus_lr_ratio: 16\nembedding_lr: 1e-5\ndatasets:\n  - path: org/rows\n    type: alpaca\n",
            16,
            {"embed_tokens|lm_head|modules_to_save": 1e-5},
        ),
        (
            "model_name_or_path: org/base\nstage: sft\ndo_train: true\nfinetuning_type: lora\nlora_target: all\n"
            "dataset: org/rows\ntemplate: qwen\nloraplus_lr_ratio: 16.0\n",
            16,
            None,
        ),
    ],
)
def test_rates_of_lora_plus_and_of_embeddings_are_taken_over(
    migrate: Migrate, text: str, ratio: float, rates: dict[str, float] | None
) -> None:
    job, draft = migrate(text)
    assert not {"loraplus_lr_ratio", "embedding_lr"} & {each.key for each in draft.missing}
    assert job["train"]["loraplus_lr_ratio"] == ratio
    assert job["train"].get("learning_rates") == rates


def test_reward_models_are_rewards_and_turns_of_their_own_are_told(migrate: Migrate) -> None:
    job, draft = migrate(
        "swift rlhf --rlhf_type grpo --model m --dataset d.jsonl --reward_funcs accuracy --reward_model org/judge "
        "--reward_weights 1 0.5 --multi_turn_scheduler math_tip_trick --max_turns 3\n",
        "train.sh",
    )
    assert job["train"]["reward"][1] == {"model": "org/judge", "weight": 0.5}
    told = {said.key: said.why for said in draft.missing}
    assert "[train] environment" in told["multi_turn_scheduler"]
    assert "max_tool_calling_iterations" in told["max_turns"]
    job, draft = migrate(
        "trl grpo --model_name_or_path m --dataset_name d --reward_model_name_or_path org/judge "
        "--reward_funcs think_format_reward --reward_weights 0.5 1\n",
        "train.sh",
    )
    assert job["train"]["reward"][0] == {"model": "org/judge", "weight": 0.5}
    assert "reward_model_name_or_path" not in {said.key for said in draft.missing}


def test_a_hash_within_a_word_of_a_script_is_no_comment(migrate: Migrate) -> None:
    job, _ = migrate(
        """
        swift sft --model org/base --dataset org/rows#500 "a #b" --learning_rate 3e-4 # --max_length 5
        """,
        "run.sh",
    )
    assert [each["path"] for each in job["data"]["sources"]] == ["org/rows", "a "]
    assert job["train"]["learning_rate"] == 3e-4
    assert job["model"]["max_seq_length"] == -1


def test_strings_of_kto_under_a_template_are_missing(migrate: Migrate) -> None:
    rows = "datasets: [{path: org/rows, type: llama3.ultra}]"
    _, draft = migrate(f"base_model: m\nrl: kto\nadapter: lora\nlora_r: 8\n{rows}\n")
    assert [each.key for each in draft.missing] == ["datasets.type"]

"""What is decided for each machine and why, and what is refused before anything starts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Stage
from forge.errors import JobError, PlanError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.machine.machine import Accelerator
from forge.machine.presets import PRESETS
from forge_huggingface.facts.shape import from_config
from support.planning import BASE, CUDA, FACTS, HELD_OUT, planner, reasons

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue
    from forge.machine.machine import Machine

OLD_GPU = replace(CUDA, accelerators=(Accelerator("cuda", "Tesla T4", 16 * 2**30, "7.5", "580.95"),))

FOUR = BASE.replace('id = "m"', 'id = "m"\nload_in_4bit = true')

EIGHT = FOUR.replace("4bit", "8bit")


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


@pytest.mark.parametrize(
    ("machine", "dtype", "bf16", "fp16", "why"),
    [
        ("linux-cuda", "bfloat16", True, False, "the GPU computes in bfloat16"),
        ("linux-cpu", "float32", False, False, "no GPU is used"),
        ("windows-cpu", "float32", False, False, "no GPU is used"),
        ("windows-cuda-cpu-torch", "float32", False, False, "no GPU is used"),
        ("macos", "float32", False, False, "mixed precision is not reliable on Apple's GPUs"),
    ],
)
def test_precision_goes_by_the_machine_and_says_why(
    plan: Any, machine: str, dtype: str, bf16: bool, fp16: bool, why: str
) -> None:
    found = plan(machine=machine)
    assert (found.decided("model.dtype"), found.decided("train.bf16"), found.decided("train.fp16")) == (
        dtype,
        bf16,
        fp16,
    )
    assert reasons(found)["train.bf16"] == why
    assert all(decision.reason for decision in found.decisions)


def test_a_gpu_without_bfloat16_gets_float16(plan: Any) -> None:
    found = plan(machine=OLD_GPU)
    assert (found.decided("model.dtype"), found.decided("train.bf16"), found.decided("train.fp16")) == (
        "float16",
        False,
        True,
    )
    assert reasons(found)["train.fp16"] == "the GPU has no bfloat16"


def test_full_fine_tuning_keeps_its_weights_in_32_bit(plan: Any) -> None:
    found = plan(BASE + '[adapter]\ntype = "none"\n')
    assert found.decided("model.dtype") == "float32"
    assert "small updates vanish in 16 bit" in reasons(found)["model.dtype"]
    assert (found.decided("train.bf16"), found.decided("train.learning_rate")) == (True, 2e-5)
    assert plan().decided("train.learning_rate") == 2e-4


def test_what_the_job_says_is_no_decision(plan: Any) -> None:
    text = BASE.replace('id = "m"', 'id = "m"\ndtype = "float32"\nattn_implementation = "eager"')
    found = plan(text + "[train]\nlearning_rate = 1.0\nbf16 = false\nfp16 = false\n")
    assert {"model.dtype", "model.attn_implementation", "train.learning_rate", "train.bf16", "train.fp16"}.isdisjoint(
        reasons(found)
    )


def test_flash_attention_is_taken_only_where_it_is_installed_and_runs(plan: Any) -> None:
    def attention(machine: Machine) -> Any:
        return plan(machine=machine).decided("model.attn_implementation")

    def flash(machine: Machine) -> Machine:
        return replace(machine, versions={**machine.versions, "flash-attn": "2.8"})

    assert attention(CUDA) == "sdpa"
    assert attention(flash(CUDA)) == "flash_attention_2"
    assert attention(flash(OLD_GPU)) == "sdpa"
    assert attention(flash(PRESETS["linux-cpu"])) == "sdpa"


@pytest.mark.parametrize(
    ("text", "machine", "reason"),
    [
        (FOUR, "linux-cuda", None),
        (FOUR, "linux-cpu", None),
        (FOUR, "macos", "load_in_4bit: bitsandbytes has no kernels for darwin arm64 without CUDA"),
        (FOUR, "windows-cuda-cpu-torch", None),
        (EIGHT, "linux-cuda", None),
        (EIGHT, "linux-cpu", "trains 8 bit on a GPU only; take load_in_4bit"),
    ],
)
def test_quantised_loading_is_planned_or_refused_with_a_reason_and_never_forgotten(
    plan: Any, text: str, machine: str, reason: str | None
) -> None:
    if reason is None:
        found = plan(text, machine)
        assert found.step(Stage.LOAD).plugin == "huggingface"
        assert settle(load_job(found.job), found.decisions).model.bits == ("4bit" if text == FOUR else "8bit")
    else:
        with pytest.raises(PlanError, match=re.escape(reason)) as caught:
            plan(text, machine)
        assert str(caught.value).startswith("nothing can load: huggingface: ")


def test_bitsandbytes_has_no_kernels_for_apple_silicon_even_if_installed(plan: Any) -> None:
    mac = replace(PRESETS["macos"], versions={**PRESETS["macos"].versions, "bitsandbytes": "0.50"})
    with pytest.raises(PlanError, match="bitsandbytes has no kernels for darwin arm64"):
        plan(FOUR, mac)


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ('["q_proj", "embed_tokens"]', r'embed_tokens: it is an embedding.*modules_to_save = \["embed_tokens"\]'),
        ('["q_proj", "model.wte"]', r'modules_to_save = \["model.wte"\]'),
        ('"embed_tokens"', r'modules_to_save = \["embed_tokens"\]'),
        ('["q_proj", "lm_head"]', "would not be trained.*use modules_to_save"),
        ('["q_proj", "model.lm_head"]', "would not be trained.*use modules_to_save"),
    ],
)
def test_lora_on_what_begins_or_ends_a_model_is_refused_with_what_trains_it(
    plan: Any, targets: str, reason: str
) -> None:
    with pytest.raises(PlanError, match=reason):
        plan(f"{BASE}[adapter]\ntarget_modules = {targets}\n")


def test_an_embedding_takes_lora_where_the_output_layer_is_another(plan: Any) -> None:
    config = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 400}
    shapes = [from_config({**config, "model_type": "llama", "tie_word_embeddings": tied}) for tied in (True, False)]
    text = f'{BASE}[adapter]\ntarget_modules = ["embed_tokens"]\n'
    with pytest.raises(PlanError, match="the output layer too"):
        plan(text, facts=replace(FACTS, shape=shapes[0]))
    made = plan(text, facts=replace(FACTS, shape=shapes[1]))
    assert made.estimate is not None
    assert {part.name: part.bytes for part in made.estimate.parts}["adapter"] == 4 * 16 * (400 + 32)


def test_quantised_weights_are_not_trained_whole(plan: Any) -> None:
    with pytest.raises(PlanError, match="quantised weights cannot be trained; use an adapter"):
        plan(FOUR + '[adapter]\ntype = "none"\n')
    with pytest.raises(PlanError, match="the model is stored in gptq"):
        plan(BASE + '[adapter]\ntype = "none"\n', facts=replace(FACTS, quantized="gptq"))


@pytest.mark.parametrize(
    ("text", "where", "line"),
    [
        (f"{BASE}streaming = true\n", "data.streaming", 5),
        (f'{BASE}streaming = true\n[train]\nmax_steps = 5\nsave_strategy = "epoch"\n', "train.save_strategy", 8),
        (
            f'{BASE}streaming = true\n[train]\nmax_steps = 5\ntrain_sampling_strategy = "group_by_length"\n',
            "train.train_sampling_strategy",
            8,
        ),
        (f'{BASE}on_long_row = "split"\nformat = "messages"\n', "data.on_long_row", 5),
        (f'{BASE}on_long_row = "split"\n[train]\nmethod = "dpo"\n', "data.on_long_row", 5),
        (f'{BASE}[train]\neval_strategy = "epoch"\n', "train.eval_strategy", 6),
        (f"{BASE}[train]\nseed = 1\nearly_stopping_patience = 2\n", "train.early_stopping_patience", 7),
        (f'{BASE}[adapter]\ntype = "none"\n[[export]]\nformat = "adapter"\n', "export.0.format", 8),
        (
            f'{BASE}[adapter]\ntype = "none"\n[[export]]\nformat = "merged"\n[[export]]\nformat = "adapter"\n',
            "export.1.format",
            10,
        ),
    ],
)
def test_a_contradiction_between_tables_is_a_mistake_of_the_job_with_its_line(
    plan: Any, text: str, where: str, line: int
) -> None:
    with pytest.raises(JobError) as caught:
        plan(text)
    assert [(problem.where, problem.line) for problem in caught.value.problems] == [(where, line)]
    assert caught.value.problems[0].do


def test_streaming_with_max_steps_and_evaluation_with_rows_are_planned(plan: Any) -> None:
    plan(f"{BASE}streaming = true\npacking = true\n[train]\nmax_steps = 5\n")
    found = plan(f'{HELD_OUT}[train]\neval_strategy = "epoch"\nearly_stopping_patience = 2\n')
    assert "train.eval_strategy" not in reasons(found)


def test_held_out_rows_are_used_even_if_the_job_does_not_say_when(plan: Any) -> None:
    assert plan(HELD_OUT).decided("train.eval_strategy") == "epoch"
    assert plan().decided("train.eval_strategy") == "no"
    streamed = plan(f'{BASE}eval_path = "rows.jsonl"\nstreaming = true\n[train]\nmax_steps = 5\nsave_steps = 3\n')
    assert streamed.decided("train.eval_strategy") == "steps"
    assert streamed.decided("train.eval_steps") == 3
    best = '[train]\nload_best_model_at_end = true\nsave_strategy = "steps"\n'
    assert plan(HELD_OUT + best).decided("train.eval_strategy") == "steps"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ('report_to = "wandb"', 'train.report_to: "wandb" needs a package: wandb is not installed'),
        ('report_to = ["none", "mlflow"]', "pip install mlflow"),
        ('report_to = "wandbb"', 'there is no tracker "wandbb"; did you mean wandb?'),
        ("use_liger_kernel = true", 'pip install "liger-kernel>=0.3"'),
        ('optim = "galore_adamw_8bit"\noptim_target_modules = "all-linear"', "pip install galore-torch"),
        ('optim = "schedule_free_radam"', 'pip install "schedulefree>=1.2.6" "schedulefree>=1.4"'),
        ('optim = "adamw_bnb_8bit"', None),
        ("bf16 = true", None),
    ],
)
def test_what_an_argument_needs_is_checked_before_anything_starts(plan: Any, keys: str, reason: str | None) -> None:
    if reason is None:
        plan(f"{BASE}[train]\n{keys}\n")
    else:
        with pytest.raises(JobError, match=re.escape(reason)):
            plan(f"{BASE}[train]\n{keys}\n")


def test_all_packages_that_are_missing_are_told_at_once_with_one_line(plan: Any) -> None:
    text = FOUR.replace("load_in_4bit", 'attn_implementation = "flash_attention_2"\nload_in_4bit')
    train = '[train]\noptim = "stable_adamw"\nreport_to = ["wandb", "tensorboard"]\nuse_liger_kernel = true\n'
    bare = replace(CUDA, versions={name: each for name, each in CUDA.versions.items() if name != "bitsandbytes"})
    with pytest.raises(JobError) as caught:
        plan(text + train, bare)
    assert [each.where for each in caught.value.problems] == [
        "model.attn_implementation",
        "model.load_in_4bit",
        "train.optim",
        "train.report_to.0",
        "train.report_to.1",
        "train.use_liger_kernel",
    ]
    line = '"flash-attn>=2.3.3" "bitsandbytes>=0.46.1" torch-optimi tensorboard wandb "liger-kernel>=0.3"'
    assert sorted(str(caught.value.do).partition("pip install ")[2].split()) == sorted(line.split())


def test_liger_is_given_a_loss_that_fits_it(plan: Any) -> None:
    there = replace(CUDA, versions={**CUDA.versions, "liger-kernel": "0.8.5"})
    assert plan(f"{BASE}[train]\nuse_liger_kernel = true\n", there).decided("train.loss_type") == "nll"


def test_a_processor_that_reads_videos_needs_torchvision(plan: Any) -> None:
    facts = replace(FACTS, task="vision", model_type="qwen2_5_vl")
    with pytest.raises(PlanError, match="torchvision is not installed, and the processor of qwen2_5_vl needs it"):
        plan(facts=facts)
    plan(machine=replace(CUDA, versions={**CUDA.versions, "torchvision": "0.28"}), facts=facts)


def test_precision_that_the_machine_lacks_is_refused(plan: Any) -> None:
    with pytest.raises(PlanError, match="fp16: float16 training needs a GPU"):
        plan(f"{BASE}[train]\nfp16 = true\n", "linux-cpu")
    with pytest.raises(PlanError, match="bf16: this GPU has no bfloat16; write fp16"):
        plan(f"{BASE}[train]\nbf16 = true\n", OLD_GPU)


def test_gpus_that_a_run_leaves_idle_are_told(plan: Any) -> None:
    three = replace(CUDA, accelerators=CUDA.accelerators * 3)
    named = plan(f"{BASE}[launch]\nprocesses = 2\n", three)
    assert "2 of 3 GPUs are used, and 1 more is idle" in named.notes
    assert not any("idle" in note for note in plan().notes)
    assert not any("idle" in note for note in plan(f"{BASE}[train]\nuse_cpu = true\n", three).notes)


def test_an_upload_planned_for_another_machine_asks_for_no_login(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f'{BASE}[[export]]\nformat = "adapter"\npush_to_hub = "me/mine"\n'
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", "/nowhere")
    with pytest.raises(JobError, match="push_to_hub"):
        plan(text)
    monkeypatch.setenv("FORGE_MACHINE", "linux-h100")
    plan(text)


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ("data", "max_samples", "write max_rows"),
        ("train", "max_samples", "belongs to [data] max_rows"),
        ("model", "experts_implementation", "there is no key for it"),
        ("model", "torch_dtype", "write dtype"),
        ("data", "template", "write chat_template"),
        ("train", "use_peft", "belongs to [adapter] type"),
        ("train", "torch_dtype", "belongs to [model] dtype"),
        ("train", "target_parameters", "target_parameters belongs to [adapter]"),
        ("train", "experts_implementation", "there is no key for it"),
        ("train", "template", "belongs to [data] chat_template"),
        ("train", "quantization_bit", "write load_in_4bit"),
        ("train", "pure_bf16", 'belongs to [model] dtype = "bfloat16"'),
        ("train", "lora_modules_to_save", "belongs to [adapter] modules_to_save"),
        ("train", "evals_per_epoch", "write eval_steps"),
        ("train", "wandb_name", "write run_name"),
        ("train", "full_finetuning", 'belongs to [adapter] type = "none"'),
        ("train", "sequence_parallel_degree", "belongs to [launch]"),
        ("train", "save_safetensors", "always saved as safetensors"),
        ("train", "embedding_learning_rate", 'write learning_rates = { "embed_tokens|lm_head" = … }'),
        ("train", "profiler", "forge has none"),
        ("train", "use_loftq", "belongs to [adapter] init_lora_weights"),
        ("train", "rope_scaling", "belongs to [model] config"),
        ("model", "rope_scaling", "write [model] config = { rope_scaling = … }"),
        ("model", "cutoff_len", "write max_seq_length"),
        ("data", "cutoff_len", "write [model] max_seq_length"),
        ("data", "system", "write system_prompt"),
        ("data", "tokenized_path", "keeps no tokenised ones"),
        ("data", "num_proc", "forge makes rows in one process"),
        ("adapter", "use_loftq", "write init_lora_weights"),
        ("adapter", "layers_pattern", "layers_to_transform finds the layers"),
        ("adapter", "lora_target", "write target_modules"),
    ],
)
def test_a_key_of_another_tool_is_met_with_the_right_one(plan: Any, table: str, key: str, hint: str) -> None:
    text = f"{BASE}[{table}]\n" if table in ("adapter", "train") else BASE
    text = text.replace(f"[{table}]\n", f"[{table}]\n{key} = 1\n")
    with pytest.raises(JobError, match=re.escape(hint)):
        plan(text)


@pytest.mark.parametrize("word", ["adalora", "OFT", "prefix-tuning", "vera"])
def test_an_adapter_that_forge_has_not_is_not_taken_for_a_typing_error(plan: Any, word: str) -> None:
    with pytest.raises(JobError, match="forge has LoRA, with use_dora and use_rslora"):
        plan(f'{BASE}[adapter]\ntype = "{word}"\n')


def test_under_a_word_that_is_nearly_a_method_its_keys_are_checked_too(plan: Any) -> None:
    with pytest.raises(JobError) as caught:
        plan(f'{BASE}[train]\nmethod = "grppo"\nnum_generations = 1\nbeta = -1.0\nlr = 1.0\n')
    assert [each.where for each in caught.value.problems] == [
        "train.method",
        "train.num_generations",
        "train.beta",
        "train.lr",
    ]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("flash_atention_2", "did you mean flash_attention_2?"),
        ("xformers", "there are auto, eager, sdpa"),
        ("sdpa", None),
        ("flex_attention", None),
    ],
)
def test_an_attention_that_transformers_does_not_know_is_refused(plan: Any, name: str, hint: str | None) -> None:
    text = BASE.replace('id = "m"', f'id = "m"\nattn_implementation = "{name}"')
    if hint is None:
        plan(text)
    else:
        with pytest.raises(JobError, match=re.escape(hint)):
            plan(text)
        plan(text.replace('id = "m"', 'id = "m"\ntrust_remote_code = true'))

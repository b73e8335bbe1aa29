"""What the tables say of schedules, optimizers and checkpointing is what the installed versions do."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from pydantic import ValidationError

from forge_huggingface.arguments.fields import committed, table
from forge_huggingface.arguments.options import train_options
from forge_huggingface.arguments.source import generation_names
from forge_huggingface.arguments.tables import CHECKPOINTED, CHECKPOINTING, OPTIMIZERS, SCHEDULERS, optimizer

FORGES = {"self", "optimizer", "last_epoch", "num_training_steps"}
"""What a schedule gets without ``lr_scheduler_kwargs``."""


def names(function: Any) -> set[str]:
    return {
        name
        for name, each in inspect.signature(function).parameters.items()
        if each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}
    }


def test_every_tested_version_has_these_schedules_and_optimizers() -> None:
    for versions in committed().values():
        assert set(versions["lr_scheduler_type"].choices) == set(SCHEDULERS)
        for name in versions["optim"].choices:
            assert any(name.startswith(begin) for begin in OPTIMIZERS), name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_takes_what_its_function_takes(name: str) -> None:
    from torch.optim.lr_scheduler import ReduceLROnPlateau
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR

    passed_on: dict[str, Any] = {"reduce_lr_on_plateau": ReduceLROnPlateau.__init__, "greedy": GreedyLR.__init__}
    takes = names(passed_on.get(name) or TYPE_TO_SCHEDULER_FUNCTION[name])
    assert set(SCHEDULERS[name].takes) == takes - FORGES - {"num_warmup_steps"}
    assert SCHEDULERS[name].warmup == ("num_warmup_steps" in takes)
    assert set(SCHEDULERS[name].needs) <= set(SCHEDULERS[name].takes)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_cannot_do_without_what_it_needs_and_no_more(name: str) -> None:
    import torch
    from transformers import get_scheduler

    def make(given: dict[str, Any]) -> None:
        get_scheduler(name, torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), 1, 10, given)

    for needed in SCHEDULERS[name].needs:
        make({needed: 1})
    if SCHEDULERS[name].needs:
        with pytest.raises((ValueError, TypeError)):
            make({})
    else:
        make({})


def test_checkpointing_takes_what_torch_and_transformers_take() -> None:
    import torch
    import transformers

    source = inspect.getsource(torch.utils.checkpoint.checkpoint)
    takes = names(torch.utils.checkpoint.checkpoint) | set(re.findall(r'kwargs\.pop\("(\w+)"', source))
    assert set(CHECKPOINTING) == takes - {"function", "context_fn"}  # functions are no values of a job
    assert set(CHECKPOINTED) == set(re.findall(r'gc_kwargs\.pop\("(\w+)"', inspect.getsource(transformers.Trainer)))


@pytest.mark.parametrize("name", table()["optim"].choices)
def test_an_optimizer_reads_what_its_handler_reads(name: str) -> None:
    from transformers import trainer_optimizer

    source = inspect.getsource(trainer_optimizer._OPTIMIZER_HANDLERS[name])
    if "bitsandbytes" in trainer_optimizer._OPTIMIZER_HANDLERS[name].__name__:
        source = branch(source, name)
    found = optimizer(name)
    adam = "ctx.adam_kwargs" in source and not name.endswith("_sgd")
    assert found.betas == (adam or "ctx.args.adam_beta1" in source)
    assert found.epsilon == (adam or "ctx.args.adam_epsilon" in source)
    assert found.warmup == ("warmup_steps" in source and not name.endswith("radam"))
    assert found.targets == ("_setup_low_rank_optimizer" in source)
    takes = set(re.findall(r'optim_args\.(?:get|pop)\("(\w+)"', source)) | set(re.findall(r'"(\w+)" in ctx\.o', source))
    for group in re.findall(r"for key in \(([^)]*)\)", source):
        takes |= set(re.findall(r'"(\w+)"', group))
    assert found.takes is None or set(found.takes) == takes


def branch(source: str, name: str) -> str:
    """Return what a handler of several optimizers does for one."""
    parts = re.split(r'(?:el)?if "(\w+)" in optim_name:', source.partition("bnb_kwargs =")[0])
    kinds = dict(zip(parts[1::2], parts[2::2], strict=True))
    kind = next(kind for kind in kinds if kind in name)
    return "ctx.adam_kwargs" if kind == "adam" else kinds[kind]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"min_lr": 1e-5}},
            'lr_scheduler_type = "cosine" takes no min_lr; it takes num_cycles; min_lr is for cosine_with_min_lr, ',
        ),
        (
            {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_ned": 1e-5}},
            "takes no lr_ned; did you mean lr_end?",
        ),
        (
            {"gradient_checkpointing_kwargs": {"use_reentrnt": False}},
            "gradient checkpointing takes no use_reentrnt; did you mean use_reentrant?",
        ),
        ({"optim": "sgd", "optim_args": "momentun=0.9"}, 'optim = "sgd" takes no momentun; did you mean momentum?'),
        ({"optim": "sgd", "optim_args": "momentum"}, '"momentum" is no name with a value'),
        ({"optim": "sgd", "optim_args": "momentum=much"}, "momentum must be a number, not much"),
        ({"optim": "sgd", "optim_args": "momentum=0.9,nesterov=ja"}, "nesterov must be true or false, not ja"),
        ({"optim": "sgd", "optim_args": "nesterov=true"}, "nesterov needs a momentum"),
        ({"optim": "stable_adamw", "optim_args": "kahan_sum=false"}, "would be taken for true"),
        (
            {"optim": "galore_adamw", "optim_target_modules": "all-linear", "optim_args": "rank=1.5"},
            "rank must be a whole number, not 1.5",
        ),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "two"}},
            "num_cycles must be a number, not two",
        ),
        (
            {
                "lr_scheduler_type": "warmup_stable_decay",
                "lr_scheduler_kwargs": {"num_decay_steps": 3, "decay_type": "cos"},
            },
            "decay_type must be one of linear, cosine, 1-sqrt, not cos",
        ),
        (
            {"gradient_checkpointing_kwargs": {"every_n_layers": 0}},
            "every_n_layers must be at least 1, not 0",
        ),
        (
            {"optim": "galore_adamw", "optim_target_modules": "all-linear", "optim_args": "update_proj_gap=0"},
            "update_proj_gap must be at least 1, not 0",
        ),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": "no"}}, "use_reentrant must be true or false, not no"),
    ],
)
def test_a_name_that_is_not_taken_is_refused_with_those_that_are(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        train_options("sft")(**keys)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"optim": "sgd", "optim_args": "momentum=0.9, nesterov=True"},
        {"optim": "stable_adamw", "optim_args": "kahan_sum=true,max_lr=1e-3"},
        {"optim": "adamw_anyprecision", "optim_args": "momentum_dtype=bfloat16"},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1, "num_cycles": 1}},
        {"gradient_checkpointing_kwargs": {"use_reentrant": False, "every_n_layers": 2}},
    ],
)
def test_a_value_beside_a_name_is_taken(keys: dict[str, Any]) -> None:
    train_options("sft")(**keys)


def test_generation_takes_the_names_of_transformers() -> None:
    from transformers import GenerationConfig

    assert set(GenerationConfig().to_dict()) - {"transformers_version", "_from_model_config"} <= generation_names()
    assert {"top_p", "stop_strings", "num_beams"} <= generation_names()
    train_options("grpo")(generation_kwargs={"num_beams": 2})
    with pytest.raises(ValidationError, match="generation takes no tempreature; did you mean temperature"):
        train_options("grpo")(generation_kwargs={"tempreature": 0.5})


@pytest.mark.parametrize(
    ("method", "keys", "words"),
    [
        ("rloo", {"reward_clip_range": [1.0]}, "two numbers, the smaller first"),
        ("rloo", {"reward_clip_range": [1.0, -1.0]}, "two numbers, the smaller first"),
        ("grpo", {"sync_ref_model": True}, "needs a beta above 0"),
        ("grpo", {"loss_type": "vespo", "use_vllm": True}, 'write "token_truncate"'),
        ("grpo", {"cache_implementation": "sttic"}, "static"),
        ("grpo", {"use_vllm": True, "vllm_importance_sampling_mode": "token"}, "token_mask"),
    ],
)
def test_what_an_online_trainer_refuses_is_refused_before(method: str, keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as error:
        train_options(method)(**keys)
    assert words in str(error.value)

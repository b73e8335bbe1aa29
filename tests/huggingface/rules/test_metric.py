"""The metric that chooses the best checkpoint is one that the evaluation of the method measures."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import load_object
from forge.errors import JobError, PlanError
from forge_huggingface.facts.shape import from_config
from forge_huggingface.methods import METHODS
from support.planning import FACTS, HELD_OUT, planner

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue

HOMES = {"distill": "distillation", "orpo": "experimental.orpo", "cpo": "experimental.cpo"}
CONFIG = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2, "vocab_size": 16}


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_measures_what_its_trainer_logs(method: str) -> None:
    if METHODS[method].config == "TrainingArguments":  # forge makes its numbers itself
        from forge_huggingface.heads.scores import NAMES  # imports numpy

        assert METHODS[method].measures == NAMES
        return
    home = HOMES.get(method, method)
    module = f"trl.{home}" if "." in home else f"trl.trainer.{home}_trainer"
    trainer: Any = load_object(f"{module}:{METHODS[method].config.removesuffix('Config')}Trainer")
    source = inspect.getsource(trainer)
    logged = re.findall(r'_metrics\[mode\]\[f?"([^"]+)"\]|metrics\[f"\{prefix\}([^"]+)"\]', source)
    names = {re.sub(r"\{\w+\}/\w+", "*", one or other) for one, other in logged}
    assert set(METHODS[method].measures) - {"tools/unanswered"} == names  # that one is forge's own


@pytest.mark.parametrize("metric", ["loss", "eval_loss", "mean_token_accuracy", "eval_entropy", "num_tokens"])
def test_what_is_measured_can_choose(plan: Any, metric: str) -> None:
    plan(f'{HELD_OUT}[train]\nmetric_for_best_model = "{metric}"\n')


@pytest.mark.parametrize(
    ("method", "metric", "words"),
    [
        ("sft", "bleu", "does not measure bleu; it measures aux_loss, entropy, loss, mean_token_accuracy, num_tokens"),
        ("sft", "eval_mean_token_acuracy", "mean_token_acuracy; did you mean mean_token_accuracy?"),
        ("sft", "eval_runtime", "runtime is how fast the machine is, not how good the model"),
        ("dpo", "rewards/accuracy", "did you mean rewards/accuracies?"),
        ("kto", "rewards/accuracies", "does not measure rewards/accuracies"),
    ],
)
def test_what_is_not_measured_is_a_mistake_of_the_job(plan: Any, method: str, metric: str, words: str) -> None:
    with pytest.raises(JobError) as caught:
        plan(f'{HELD_OUT}[train]\nmethod = "{method}"\nmetric_for_best_model = "{metric}"\n')
    assert words in str(caught.value)
    assert [problem.line for problem in caught.value.problems] == [8]


def test_what_a_reward_function_says_can_choose(plan: Any) -> None:
    reward = '[[train.reward]]\nuse = "regex"\nargs = { pattern = "x" }\n'
    plan(f'{HELD_OUT}[train]\nmethod = "grpo"\nmetric_for_best_model = "eval_rewards/regex/mean"\n{reward}')


def test_an_encoder_decoders_trainer_measures_the_loss_alone(plan: Any) -> None:
    facts = replace(FACTS, task="seq2seq")
    plan(f'{HELD_OUT}[train]\nmetric_for_best_model = "eval_loss"\n', facts=facts)
    with pytest.raises(JobError, match="does not measure entropy; it measures loss"):
        plan(f'{HELD_OUT}[train]\nmetric_for_best_model = "entropy"\n', facts=facts)


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ({}, True),
        ({"num_experts": None, "enable_moe_block": False}, True),
        ({"num_local_experts": 8}, False),
        ({"ffn_config": {"moe_num_experts": 8}}, False),
        ({"output_router_logits": True}, False),
        ({"model_type": "mixtral"}, False),  # its experts are a default, and need not be written
    ],
)
def test_a_router_is_weighed_where_the_config_speaks_of_experts(plan: Any, more: dict[str, Any], refused: bool) -> None:
    facts = replace(FACTS, shape=from_config({**CONFIG, **more}))
    text = f"{HELD_OUT}[train]\nrouter_aux_loss_coef = 0.1\n"
    if refused:
        with pytest.raises(PlanError, match="router_aux_loss_coef: the model is no mixture of experts"):
            plan(text, facts=facts)
    else:
        plan(text, facts=facts)
    plan(text, facts=FACTS)  # nothing is known of it

"""What is told before anything is imported, whether sentence-transformers is installed or not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.discovery.discover import discover
from forge.errors import JobError, PlanError
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge_sentence_transformers.shapes import LOSSES, USUAL, Shape, fitting
from support.planning import BASE, HELD_OUT, planner
from support.sentence_transformers import NEEDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api import Plan

CPU = PRESETS["linux-cpu"]
ABLE = replace(CPU, versions={**CPU.versions, "sentence-transformers": "6.2.0"})
LACKING = replace(CPU, versions={k: v for k, v in CPU.versions.items() if k != "sentence-transformers"})
ENCODER = ModelFacts(
    id="m", source="folder", architectures=("BertModel",), model_type="bert", task="other", dtype="float32"
)
DECODER = replace(ENCODER, architectures=("LlamaForCausalLM",), model_type="llama", task="text")
MINE = "sentence-transformers"


@pytest.fixture(scope="module")
def plan() -> Callable[..., Plan]:
    """Plan a short job with two of forge's own plugins."""
    make = planner(discover({"FORGE_PLUGINS": f"huggingface,gguf,{MINE}"}))

    def planned(
        method: str = "embedding",
        train: str = "",
        more: str = "",
        *,
        facts: ModelFacts = ENCODER,
        machine: Any = ABLE,
        base: str = BASE,
    ) -> Plan:
        return make(f'{base}[train]\nmethod = "{method}"\n{train}\n{more}', machine, facts)

    return planned


def refused(plan: Callable[..., Plan], *arguments: Any, **options: Any) -> str:
    with pytest.raises((PlanError, JobError)) as error:
        plan(*arguments, **options)
    return str(error.value)


@NEEDED
def test_the_plugin_keeps_its_contract() -> None:
    from forge.testing import check_plugin

    check_plugin(MINE)


@pytest.mark.parametrize("method", LOSSES)
@pytest.mark.parametrize("facts", [ENCODER, DECODER])
def test_each_stage_is_the_plugins_own_and_a_plan_for_other_methods_is_as_it_was(
    plan: Callable[..., Plan], method: str, facts: ModelFacts
) -> None:
    found = plan(method, more='[eval]\n[[export]]\nformat = "merged"\n', facts=facts, base=HELD_OUT)
    assert {step.plugin for step in found.steps} == {MINE}
    rates = {decision.key: decision.value for decision in found.decisions}
    assert rates["train.learning_rate"] == 2e-4
    other = plan("sft", more='[eval]\n[[export]]\nformat = "merged"\n', facts=DECODER, base=HELD_OUT)
    assert {step.plugin for step in other.steps} == {"huggingface"}


@pytest.mark.parametrize("method", LOSSES)
def test_no_held_out_rows_are_needed(plan: Callable[..., Plan], method: str) -> None:
    assert {step.plugin for step in plan(method).steps} == {MINE}


def test_where_the_package_is_missing_the_plan_says_what_to_install(plan: Callable[..., Plan]) -> None:
    assert "sentence-transformers" in refused(plan, machine=LACKING)


def test_a_model_that_sft_refuses_names_the_method_that_takes_it(plan: Callable[..., Plan]) -> None:
    said = refused(plan, "sft")
    assert 'method = "embedding" or "reranker" trains it (extra sentence-transformers)' in said


@pytest.mark.parametrize(
    ("method", "train", "words"),
    [
        ("embedding", 'loss = "CosentLoss"', 'there is no loss "CosentLoss"'),
        ("embedding", 'loss = "BinaryCrossEntropyLoss"', 'it is one of method = "reranker"'),
        ("embedding", 'loss = "CosineSimilarityLoss"\nscale = 10.0', "scale has no effect"),
        ("embedding", 'loss = "CoSENTLoss"\nmargin = 0.5', "take TripletLoss or ContrastiveLoss"),
        ("embedding", "mini_batch_size = 8", "take CachedMultipleNegativesRankingLoss"),
        ("embedding", "matryoshka_dims = [64, 32]\nmatryoshka_weights = [1.0]", "give each one"),
        ("embedding", "matryoshka_dims = [64, 64]", "names a length twice"),
        ("embedding", "prompts = { query = 'q: ' }", "prompts.query is for no column"),
        ("embedding", "batch_size = 64", "write per_device_train_batch_size"),
        ("embedding", "label_smoothing_factor = 0.1", "label_smoothing_factor has no effect"),
        ("embedding", "max_completion_length = 8", "max_completion_length"),
        ("reranker", "matryoshka_dims = [64]", "matryoshka_dims"),
        ("reranker", 'pooling_mode = "cls"', "pooling_mode"),
        ("reranker", 'loss = "CoSENTLoss"', 'it is one of method = "embedding"'),
    ],
)
def test_what_a_loss_does_not_take_is_a_mistake_of_the_job(
    plan: Callable[..., Plan], method: str, train: str, words: str
) -> None:
    assert words in refused(plan, method, train)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('[[export]]\nformat = "gguf"', "forge tries GGUF files by what they write"),
        ('[adapter]\ntype = "none"\n[[export]]\nformat = "adapter"', "there is no adapter to export"),
        ('[adapter]\ninit_lora_weights = "pissa"', "changes the base"),
        ('[eval]\nmetrics = ["f1"]', "what is measured goes by the rows"),
        ("[eval]\ntemperature = 1.0", "the model answers nothing"),
        ("[eval]", "there are no held-out rows"),
        ("[generation]\ntop_k = 4", "the model answers nothing"),
    ],
)
def test_tables_that_mean_nothing_here_are_refused(plan: Callable[..., Plan], more: str, words: str) -> None:
    assert words in refused(plan, more=more)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ('chat_template = "chatml"', "without a chat template"),
        ('prompt_prefix = "query: "', "write [train] prompts"),
        ('format = "messages"', "rows are told by their columns"),
        ("packing = true", "packing"),
        ("streaming = true", "does not do streaming"),
        ('train_on = "all"', "train_on"),
    ],
)
def test_keys_about_conversations_are_refused(plan: Callable[..., Plan], data: str, words: str) -> None:
    assert words in refused(plan, "embedding", "max_steps = 4" if "streaming" in data else "", base=f"{BASE}{data}\n")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(ENCODER, architectures=("WhisperModel",), model_type="whisper"), "none of the encoders and decoders"),
        (replace(DECODER, quantized="gptq"), "quantised weights"),
    ],
)
def test_models_of_other_kinds_are_refused(plan: Callable[..., Plan], facts: ModelFacts, words: str) -> None:
    assert words in refused(plan, facts=facts)


@pytest.mark.parametrize("method", LOSSES)
@pytest.mark.parametrize("kind", ["pairs", "triplets", "scored", "labelled"])
def test_each_kind_of_rows_has_a_usual_loss_that_takes_it(method: str, kind: str) -> None:
    shape = Shape(kind, negatives=int(kind == "triplets"))
    assert USUAL[method][kind] in fitting(method, shape)

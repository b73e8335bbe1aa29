"""Models that were made for something else than writing text are refused by their config.json."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import JobError, PlanError
from forge.testing.tiny import make_model
from forge_huggingface.facts.describe import describe
from support.planning import BASE, FACTS, planner

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue

REWARD = BASE + '[train]\nmethod = "reward"\n'


@pytest.fixture
def plan(catalogue: Catalogue) -> Any:
    return planner(catalogue)


def facts_of(folder: Path, config: Mapping[str, Any]) -> Any:
    """Return the facts about a folder with this config, and the weights of a tiny model, which are not looked at."""
    make_model(folder)
    whole = {key: value for key, value in json.loads((folder / "config.json").read_text()).items() if "_i" not in key}
    (folder / "config.json").write_text(json.dumps({**whole, **config}))
    return describe(str(folder), None, folder)


WHISPER = {"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "is_encoder_decoder": True}
BROUGHT = {"auto_map": {"AutoModelForCausalLM": "code.Model"}}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**WHISPER, "num_mel_bins": 80}, "hears or speaks"),
    ({**WHISPER, "architectures": ["MoonshineForConditionalGeneration"], "model_type": "moonshine"}, "hears or speaks"),
    ({"architectures": ["VoxtralForConditionalGeneration"], "model_type": "voxtral", "audio_config": {}}, "hears"),
    ({"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"}, "is an encoder"),
    ({"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert"}, "is an encoder"),
    ({"architectures": ["BertLMHeadModel"], "model_type": "bert"}, "is an encoder"),
    ({"architectures": ["T5EncoderModel"], "model_type": "t5", "is_encoder_decoder": True}, "is an encoder"),
    ({"architectures": ["LLaDAModelLM"], "model_type": "llada", **BROUGHT}, "by diffusion"),
    ({"architectures": ["DiffusionGemmaForBlockDiffusion"], "model_type": "diffusion_gemma"}, "by diffusion"),
    ({"architectures": ["Qwen2ForSequenceClassification"], "model_type": "qwen2"}, "head for labels"),
    ({"architectures": ["MistralModel"], "model_type": "mistral"}, "no class of a model that writes"),
    ({"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": {}}, "no class of a model that writes"),
]


@pytest.mark.parametrize(("config", "why"), REFUSED, ids=[each["architectures"][0] for each, _ in REFUSED])
def test_a_model_that_writes_no_text_is_refused_while_planning(
    plan: Any, tmp_path: Path, config: Mapping[str, Any], why: str
) -> None:
    with pytest.raises(PlanError, match=why):
        plan(facts=facts_of(tmp_path, config))


def test_a_folder_of_sentence_transformers_is_refused(plan: Any, tmp_path: Path) -> None:
    facts = facts_of(tmp_path, {})
    plan(facts=facts)
    (tmp_path / "modules.json").write_text("[]")
    with pytest.raises(PlanError, match="embedding model of sentence-transformers"):
        plan(facts=facts)


def test_a_reward_model_may_begin_as_a_classifier(plan: Any) -> None:
    classifier = replace(FACTS, task="other", architectures=("Qwen2ForSequenceClassification",), model_type="qwen2")
    assert plan(REWARD, facts=classifier)
    whisper = replace(classifier, architectures=("WhisperForConditionalGeneration",), model_type="whisper")
    with pytest.raises(PlanError, match="hears or speaks"):
        plan(REWARD, facts=whisper)


def test_a_model_with_code_of_its_own_writes_text_if_its_code_says_so(plan: Any, tmp_path: Path) -> None:
    brought = {"architectures": ["ChatGLMModel"], "model_type": "chatglm"}
    with pytest.raises(PlanError, match="no class of a model that writes"):
        plan(facts=facts_of(tmp_path / "a", brought))
    assert plan(facts=facts_of(tmp_path / "b", {**brought, **BROUGHT}))


CLASSIFY = BASE + '[train]\nmethod = "classification"\n'
READERS: list[dict[str, Any]] = [
    {"architectures": ["BertModel"], "model_type": "bert"},
    {"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert"},
    {"architectures": ["XLMRobertaForSequenceClassification"], "model_type": "xlm-roberta"},
    {"architectures": ["Qwen2ForSequenceClassification"], "model_type": "qwen2"},
]


@pytest.mark.parametrize("config", READERS, ids=[each["architectures"][0] for each in READERS])
def test_what_reads_is_trained_as_a_classifier_and_refused_with_that_for_what_writes(
    plan: Any, tmp_path: Path, config: Mapping[str, Any]
) -> None:
    facts = facts_of(tmp_path, config)
    found = plan(CLASSIFY, facts=facts)
    assert {step.plugin for step in found.steps} == {"huggingface"}
    with pytest.raises(PlanError, match=r'\[train\] method = "classification"'):
        plan(facts=facts)


def test_a_vision_model_is_no_classifier_of_texts(plan: Any) -> None:
    with pytest.raises(PlanError, match="does classification, but not for models that take pictures"):
        plan(CLASSIFY, facts=replace(FACTS, task="vision"))


@pytest.mark.parametrize(
    ("family", "context", "length"),
    [("bert", 512, 512), ("roberta", 514, 512), ("modernbert", 8192, None)],
)
def test_an_encoder_reads_no_more_tokens_than_it_has_positions_for(
    plan: Any, family: str, context: int, length: int | None
) -> None:
    facts = replace(FACTS, task="other", architectures=("XForMaskedLM",), model_type=family, context=context)
    decided = {each.key: each.value for each in plan(CLASSIFY, facts=facts).decisions}
    assert decided.get("model.max_seq_length") == length
    if length:
        with pytest.raises(PlanError, match=f"is beyond the model's {length} positions"):
            plan(CLASSIFY.replace("[model]\n", f"[model]\nmax_seq_length = {length + 1}\n"), facts=facts)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('labels = ["a", "a"]', "labels names one of them twice"),
        ('labels = ["a"]', "there is nothing to tell it from"),
        ('labels = ["a", "b"]\nproblem_type = "regression"', "a regression gives a number and has no labels"),
        ('problem_type = "regression"\nlabel_smoothing_factor = 0.1', "label_smoothing_factor is for one label"),
        ("loss_type = 1", "loss_type"),
        ("[data.x]", "x"),
    ],
)
def test_keys_of_a_classifier_that_contradict_each_other_are_mistakes(plan: Any, keys: str, words: str) -> None:
    with pytest.raises(JobError, match=words):
        plan(CLASSIFY + keys + "\n")


@pytest.mark.parametrize("name", ["seq_cls", "text-classification", "sequence_classification", "regression"])
def test_other_tools_words_for_it_are_answered(plan: Any, name: str) -> None:
    with pytest.raises(JobError, match='write method = "classification"'):
        plan(CLASSIFY.replace("classification", name))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('metrics = ["rouge"]', "a classifier gives labels or a number, and rouge is for answers"),
        ("max_new_tokens = 8", "a classifier writes no answers that it could be about"),
    ],
)
def test_an_evaluation_of_labels_takes_no_keys_for_answers(plan: Any, table: str, words: str) -> None:
    text = CLASSIFY.replace("[data]\n", "[data]\neval_size = 2\n")
    plan(text + '[eval]\nmetrics = ["accuracy"]\n')
    with pytest.raises(JobError, match=words):
        plan(f"{text}[eval]\n{table}\n")

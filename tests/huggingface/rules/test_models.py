"""Models that were made for something else than writing text are refused by their config.json."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import PlanError
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

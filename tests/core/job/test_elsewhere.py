"""Methods and adapters of other tools are met with what to write here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import JobError
from forge.job.elsewhere import ADAPTERS, folded
from forge.job.read import parse
from forge_huggingface.arguments.foreign import METHODS

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue

BASE = '[model]\nid = "m"\n[data]\npath = "d"\n'


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return discover({})


def said(text: str, folder: Path, catalogue: Catalogue) -> str:
    with pytest.raises(JobError) as caught:
        parse(BASE + text, "job.toml", folder, PluginKeys(catalogue))
    return str(caught.value)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("ppo", 'TRL removed it (not in 1.14 any more); write method = "grpo" or "rloo", which need no value model'),
        ("rlhf", 'it is several methods: "dpo" or "kto" on what people prefer'),
        ("qlora", 'write method = "sft" with [model] load_in_4bit = true'),
        ("lora", 'write method = "sft"; LoRA is [adapter] type = "lora", the default'),
        ("simpo", 'write method = "cpo" with loss_type = "simpo" and cpo_alpha = 0.0'),
        ("ipo", 'write method = "dpo" with loss_type = ["ipo"]'),
        ("gkd", 'write method = "distill"'),
        ("online_dpo", "it is in trl.experimental, and forge does not have it"),
        ("nash_md", "TRL removed it"),
        ("Nash-MD", "TRL removed it"),
        ("xpo", "TRL removed it"),
        ("prm", '"reward" judges whole answers'),
        ("bco", 'for rated rows write method = "kto"'),
        ("distillation", 'write method = "distill"'),
        ("gspo", 'write method = "grpo" with importance_sampling_level = "sequence"'),
        ("dr_grpo", 'loss_type = "dr_grpo" and scale_rewards = "none"'),
        ("Dr. GRPO", 'loss_type = "dr_grpo"'),
        ("dapo", 'write method = "grpo" with loss_type = "dapo"'),
        ("pretrain", 'rows of the format "text"'),
        ("cpt", 'rows of the format "text"'),
        ("full", '[adapter] type = "none"'),
        ("PPO", "TRL removed it"),
    ],
)
def test_a_method_of_another_tool_gets_the_words_of_this_one(
    tmp_path: Path, catalogue: Catalogue, word: str, words: str
) -> None:
    text = said(f'[train]\nmethod = "{word}"\n', tmp_path, catalogue)
    assert f'job.toml:6: train.method: no installed plugin knows method "{word}"; ' in text
    assert words in text


@pytest.mark.parametrize("word", ADAPTERS)
def test_an_adapter_of_another_tool_gets_the_keys_of_this_one(tmp_path: Path, catalogue: Catalogue, word: str) -> None:
    text = said(f'[adapter]\ntype = "{word}"\n', tmp_path, catalogue)
    assert f'job.toml:6: adapter.type: no installed plugin knows type "{word}"; {ADAPTERS[word]}' in text


def test_no_word_of_another_tool_is_one_of_forge(catalogue: Catalogue) -> None:
    assert not set(METHODS) & PluginKeys(catalogue).words("train")
    assert not set(ADAPTERS) & PluginKeys(catalogue).words("adapter")
    assert [word for word in (*METHODS, *ADAPTERS) if folded(word) != word] == []


def test_every_method_that_is_advised_is_there(catalogue: Catalogue) -> None:
    there = PluginKeys(catalogue).words("train")
    for word, advice in METHODS.items():
        advised = re.findall(r'"(\w+)"', re.sub(r'\w+ = (?:\[[^\]]*\]|"\w+")(?: or \["\w+"\])?', _method_only, advice))
        assert set(advised) - {"text"} <= there, word


def _method_only(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("method = ") else ""


@pytest.mark.parametrize("word", [word for word, advice in METHODS.items() if advice.startswith("write method")])
def test_what_is_advised_is_a_job(tmp_path: Path, catalogue: Catalogue, word: str) -> None:
    method = re.search(r'method = "(\w+)"', METHODS[word])
    assert method is not None
    keys = dict(re.findall(r'(?<!\w)(\w+) = (\[[^\]]*\]|"\w+"|[\d.]+|true)', METHODS[word]))
    tables: dict[str, dict[str, str]] = {"train": {}, "adapter": {}, "model": {}}
    homes = {"type": "adapter", "use_dora": "adapter", "load_in_4bit": "model"}
    for key, value in keys.items():
        tables[homes.get(key, "train")][key] = value
    tables["model"]["id"] = '"m"'
    text = "".join(f"[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in t.items()) for name, t in tables.items())
    job: Any = parse(text + '[data]\npath = "d"\n', "job.toml", tmp_path, PluginKeys(catalogue)).job
    assert job.train.method == method[1]
    assert tomli.loads(text)["train"].items() <= {"method": job.train.method, **job.train.options}.items()

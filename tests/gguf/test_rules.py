"""What is said of a GGUF export before anything is imported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Stage
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import ForgeError, JobError, PlanError
from forge.job.read import parse
from forge.machine.probe import probe
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan

if TYPE_CHECKING:
    from pathlib import Path

JOB = '[model]\nid = "model"\n[data]\npath = "rows.jsonl"\n[[export]]\nformat = "gguf"\n'
THERE = {
    "gguf": "0.19.0",
    "xllamacpp": "2026.10.11549",
    "libggml-python": "0.20.2",
    "torch": "2.13.0",
    "peft": "0.21.2",
    "transformers": "5.23.0",
    "accelerate": "1.15.0",
    "trl": "1.16.0",
    "datasets": "5.2.0",
    "pillow": "13.0.0",
}
LLAMA = ModelFacts(id="model", source="folder", architectures=("LlamaForCausalLM",), model_type="llama", task="text")


@pytest.fixture(autouse=True)
def no_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have named a llama.cpp tree for others of them."""
    monkeypatch.delenv("FORGE_LLAMA_CPP", raising=False)


def planned(folder: Path, text: str = JOB, facts: ModelFacts = LLAMA, **versions: str | None) -> Any:
    file = parse(text, "job.toml", folder, PluginKeys(discover({})))
    there = {name: version for name, version in {**THERE, **versions}.items() if version is not None}
    return make_plan(file, discover({}), replace(probe(), versions=there), facts)


def refused(folder: Path, *arguments: Any, **named: Any) -> str:
    with pytest.raises(ForgeError) as caught:
        planned(folder, *arguments, **named)
    return str(caught.value)


def test_a_llama_is_exported_by_this_plugin_with_defaults_written_out(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert plan.step(Stage.EXPORT).plugin == "gguf"
    assert plan.step(Stage.EXPORT).preflight == "forge_gguf.trial.preflight:preflight"
    assert plan.job["export"][0]["types"] == ["q4_k_m"]
    adapter = planned(tmp_path, JOB + "adapter = true\n")
    assert adapter.job["export"][0]["types"] == ["f16"]


def test_packages_that_are_missing_are_named_with_the_line_that_installs_them(tmp_path: Path) -> None:
    said = refused(tmp_path, xllamacpp=None)
    assert "xllamacpp is not installed" in said
    assert "pip install" in said


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"architectures": ("FooForCausalLM",)}, "architecture FooForCausalLM is not built in"),
        ({"quantized": "torchao"}, "the base is stored in torchao"),
        ({"task": "vision", "architectures": ("Idefics3ForConditionalGeneration",)}, "--mmproj"),
        ({"task": "seq2seq"}, "seq2seq"),
    ],
)
def test_what_cannot_be_written_is_refused_before_training(facts: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in refused(tmp_path, JOB, replace(LLAMA, **facts))


@pytest.mark.parametrize(
    ("method", "words"), [("reward", "a reward model ends in one number"), ("classification", "ends in labels")]
)
def test_a_model_that_gives_numbers_is_refused(tmp_path: Path, method: str, words: str) -> None:
    assert words in refused(tmp_path, f'{JOB}[train]\nmethod = "{method}"\n')


def test_other_architectures_go_through_a_tree_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(LLAMA, architectures=("FooForCausalLM",))
    assert "has no convert_hf_to_gguf.py" in refused(tmp_path, JOB + f"converter = '{tmp_path}'\n", other)
    (tmp_path / "convert_hf_to_gguf.py").write_text("")
    text = JOB + f"converter = '{tmp_path}'\n"
    assert "make q4_k_m of them with llama-quantize" in refused(tmp_path, text, other)
    assert planned(tmp_path, text + 'types = ["q8_0"]\n', other).step(Stage.EXPORT).plugin == "gguf"
    monkeypatch.setenv("FORGE_LLAMA_CPP", str(tmp_path))
    assert planned(tmp_path, JOB + 'types = ["f16"]\n', other).step(Stage.EXPORT).plugin == "gguf"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('types = ["q4_k_x"]', "types has q4_k_x"),
        ("types = []", "types is empty"),
        ('adapter = true\ntypes = ["q4_k_m"]', "an adapter is written as one of"),
        ("adaptor = true", "did you mean adapter?"),
        ('adapter = true\n[adapter]\ntype = "none"', "there is no adapter to export"),
        ("adapter = true\n[adapter]\nuse_dora = true", "no DoRA"),
        ('adapter = true\n[adapter]\nmodules_to_save = ["lm_head"]', "modules that were trained whole (lm_head)"),
        ('adapter = true\n[adapter]\nbias = "all"', "cannot hold trained biases"),
    ],
)
def test_mistakes_of_the_table_are_told_with_their_key(more: str, words: str, tmp_path: Path) -> None:
    said = refused(tmp_path, JOB + more + "\n")
    assert words in said
    assert "job.toml:" in said


def test_the_mistakes_are_mistakes_of_the_job(tmp_path: Path) -> None:
    with pytest.raises(JobError):
        planned(tmp_path, JOB + 'types = ["q4_k_x"]\n')
    with pytest.raises(PlanError):
        planned(tmp_path, JOB, replace(LLAMA, quantized="gptq"))


def test_describing_the_plugin_imports_nothing_of_it() -> None:
    import subprocess
    import sys

    code = (
        "import sys; import forge_gguf; list(forge_gguf.forge_offers()); "
        "heavy = {'pydantic', 'numpy', 'gguf', 'torch', 'xllamacpp', 'forge_gguf.file.quants'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

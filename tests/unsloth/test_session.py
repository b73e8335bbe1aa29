"""How Unsloth is called: with every key of the job. A double stands in for it, as it runs on GPUs alone."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from forge.api import BackendImportError, Loaded, ModelError, PluginError
from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.job.decisions import settle
from forge.job.read import parse
from forge.job.tables import AdapterTable
from forge.planning.planner import make_plan
from forge.testing import check_implementation, check_plugin
from forge_huggingface.facts.describe import describe
from forge_unsloth import session
from forge_unsloth_text.adapt import adapt
from forge_unsloth_text.load import load
from support import machines

if TYPE_CHECKING:
    from forge.machine.machine import Machine


class Double:
    """Stands in for ``FastLanguageModel``: transformers and peft, and notes of the arguments."""

    def __init__(self) -> None:
        self.loaded: dict[str, Any] = {}
        self.adapted: dict[str, Any] = {}
        self.bits16 = True

    def from_pretrained(self, **arguments: Any) -> tuple[Any, Any]:
        import torch
        from transformers import AutoModelForCausalLM

        self.loaded = arguments
        dtype = torch.bfloat16 if self.bits16 else torch.float32
        return AutoModelForCausalLM.from_pretrained(arguments["model_name"], dtype=dtype), SimpleNamespace()

    def get_peft_model(self, model: Any, **arguments: Any) -> Any:
        from peft import LoraConfig, get_peft_model

        self.adapted = dict(arguments)
        for own in ("random_state", "use_gradient_checkpointing"):
            del arguments[own]
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **arguments))


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Double:
    double, module = Double(), ModuleType("unsloth")
    vars(module).update(FastLanguageModel=double, DEVICE_TYPE="cuda")
    monkeypatch.setitem(sys.modules, "unsloth", module)
    return double


def prepared(
    tmp_path: Path, folder: Path, machine: Machine = machines.FIT, **tables: Any
) -> tuple[Any, Run, list[Any]]:
    """Return the settled job and the run of a job on a machine that is fit for Unsloth."""
    catalogue = discover({"FORGE_PLUGINS": "huggingface,unsloth-text"})
    base: dict[str, Any] = {"model": {"id": str(folder), "max_seq_length": 128}, "data": {"path": "rows.jsonl"}}
    for name, table in tables.items():
        base[name] = {**base.get(name, {}), **table}
    file = parse(tomli_w.dumps(base), "job.toml", tmp_path, PluginKeys(catalogue))
    plan = make_plan(file, catalogue, machine, describe(str(folder), None, tmp_path))
    assert plan.preload[0] == "unsloth"
    told: list[Any] = []
    return settle(file.job, plan.decisions), Run(folder=tmp_path, plan=plan, sink=told.append), told


def test_a_model_is_loaded_as_the_job_says(tmp_path: Path, tiny_model: Path, double: Double) -> None:
    job, run, told = prepared(tmp_path, tiny_model, train={"seed": 7, "gradient_checkpointing": True})
    loaded = load(job, run, SimpleNamespace())  # type: ignore[arg-type]  # a double
    modes = [double.loaded[f"load_in_{bits}bit"] for bits in (4, 8, 16)]
    assert (modes, double.loaded["full_finetuning"]) == ([False, False, True], False)
    assert double.loaded["model_name"] == str(tiny_model)
    assert double.loaded["max_seq_length"] == 128
    assert double.loaded["use_exact_model_name"] is True
    assert double.loaded["local_files_only"] is True
    assert (double.loaded["random_state"], double.loaded["use_gradient_checkpointing"]) == (7, "unsloth")
    assert "fast_inference" not in double.loaded
    assert loaded.traits == {"hf-model", "unsloth-patched"}
    assert loaded.model.config._name_or_path == str(tiny_model)
    assert told[-1].kind == "loaded"
    assert (told[-1].values["bits"], told[-1].values["path"]) == ("16bit", str(tiny_model))


def test_vllm_gets_its_share_and_the_adapters_rank(tmp_path: Path, tiny_model: Path, double: Double) -> None:
    table = {"unsloth-text": {"fast_inference": True, "gpu_memory_utilization": 0.25}}
    machine = machines.with_versions(vllm="0.11.0")
    job, run, _ = prepared(tmp_path, tiny_model, machine, plugins=table, adapter={"r": 4})
    load(job, run, SimpleNamespace())  # type: ignore[arg-type]  # a double
    passed = {name: double.loaded[name] for name in ("fast_inference", "gpu_memory_utilization", "max_lora_rank")}
    assert passed == {"fast_inference": True, "gpu_memory_utilization": 0.25, "max_lora_rank": 4}


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"model": {"load_in_4bit": True}}, "load_in_4bit"),
        ({"model": {"load_in_8bit": True}}, "load_in_8bit"),
        ({"model": {"load_in_16bit": True}}, "load_in_16bit"),
        ({}, "load_in_16bit"),
        ({"adapter": {"type": "none"}}, "full_finetuning"),
    ],
)
def test_exactly_one_mode_is_passed(
    tmp_path: Path, tiny_model: Path, double: Double, tables: dict[str, Any], expected: str
) -> None:
    job, run, _ = prepared(tmp_path, tiny_model, **tables)
    double.bits16 = expected != "full_finetuning"
    if expected in {"load_in_4bit", "load_in_8bit"}:  # the double quantises nothing, and that is seen
        with pytest.raises(ModelError, match="Unsloth loaded 16bit weights: the job asks for"):
            session.load(double, job, run)
    else:
        session.load(double, job, run)
    modes = ("load_in_4bit", "load_in_8bit", "load_in_16bit", "full_finetuning")
    assert [name for name in modes if double.loaded[name]] == [expected]


def test_every_key_of_the_adapter_is_passed(tmp_path: Path, tiny_model: Path, double: Double) -> None:
    table: dict[str, Any] = {
        "r": 4,
        "lora_alpha": 12,
        "lora_dropout": 0.1,
        "target_modules": ["q_proj", "v_proj"],
        "exclude_modules": ["layers.0.self_attn.v_proj"],
        "modules_to_save": ["lm_head"],
        "layers_to_transform": [1],
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"q_proj": 3},
        "use_rslora": True,
        "use_dora": True,
        "init_lora_weights": "gaussian",
    }
    parts = {name for name in AdapterTable.model_fields if name.startswith("finetune_")}  # of vision models
    refused = {
        "from_",
        "revision",
        "digest",
        "target_parameters",
        "ensure_weight_tying",
    }  # by words of offers or a rule
    assert table.keys() | {"type", "bias"} == AdapterTable.model_fields.keys() - parts - refused
    job, _, _ = prepared(tmp_path, tiny_model, adapter=table, train={"seed": 7})
    values = session.lora(job)
    passed = values | {name: table[name] for name in ("target_modules", "modules_to_save")}
    assert {name: passed[name] for name in table} == table
    assert (values["bias"], values["random_state"]) == ("none", 7)


def test_the_adapter_is_what_the_job_asks_for(tmp_path: Path, tiny_model: Path, double: Double) -> None:
    job, run, told = prepared(tmp_path, tiny_model, adapter={"r": 4, "target_modules": ["q_proj", "v_proj"]})
    loaded = load(job, run, SimpleNamespace())  # type: ignore[arg-type]  # a double
    adapted = adapt(job, run, loaded)
    assert double.adapted["target_modules"] == ["q_proj", "v_proj"]
    assert told[-1].kind == "adapted"
    assert told[-1].values["targets"] == ["q_proj", "v_proj"]
    assert 0 < told[-1].values["trainable"] < told[-1].values["all"]
    assert adapted.trainer == {"loss_type": "nll"}


def test_other_modules_than_the_jobs_are_an_error(
    tmp_path: Path, tiny_model: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, run, _ = prepared(tmp_path, tiny_model, adapter={"r": 4, "target_modules": ["q_proj", "v_proj"]})
    loaded = load(job, run, SimpleNamespace())  # type: ignore[arg-type]  # a double
    right = double.get_peft_model
    wrong: Any = lambda model, **arguments: right(model, **{**arguments, "target_modules": ["q_proj"]})  # noqa: E731
    monkeypatch.setattr(double, "get_peft_model", wrong)
    with pytest.raises(PluginError, match="Unsloth adapted q_proj"):
        adapt(job, run, loaded)


def test_a_target_that_fits_nothing_is_named(tmp_path: Path, tiny_model: Path, double: Double) -> None:
    job, run, _ = prepared(tmp_path, tiny_model, adapter={"target_modules": ["q_prj"]})
    loaded = load(job, run, SimpleNamespace())  # type: ignore[arg-type]  # a double
    with pytest.raises(ModelError, match="did you mean q_proj"):
        adapt(job, run, loaded)


def test_another_device_than_the_planned_is_a_failed_import(
    tmp_path: Path, tiny_model: Path, double: Double, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path, tiny_model)
    monkeypatch.setattr(sys.modules["unsloth"], "DEVICE_TYPE", "cpu")
    with pytest.raises(BackendImportError, match="it took the device cpu"):
        session.begin()


def test_packed_rows_carry_their_lengths_for_unsloths_attention() -> None:
    from forge_huggingface.data.layout import _tokens

    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3], "seq_lengths": [2, 1]}]
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa"))
    job = parse(
        '[model]\nid = "m"\n[data]\npath = "d"\npacking = true\n', "job.toml", Path("/jobs"), PluginKeys(discover({}))
    ).job
    batches = [
        _tokens(0, job, Loaded(model=model, traits=frozenset(traits)))(rows)
        for traits in ({"hf-model"}, {"hf-model", "unsloth-patched"})
    ]
    assert "packed_seq_lengths" not in batches[0]
    assert batches[1]["packed_seq_lengths"].tolist() == [2, 1]


@pytest.mark.filterwarnings("ignore:.* is not imported")  # where Unsloth is not installed
def test_the_plugin_keeps_the_contract() -> None:
    plugin = check_plugin("unsloth-text")
    for offer in plugin.offers:
        check_implementation(offer)


def test_unsloth_is_lent_torchs_attention_for_rows_of_unequal_length(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def of_torch_2_11(q: Any, k: Any, *, scale: Any = None, window_size: Any = (-1, -1)) -> None:
        calls.append((q, k, scale, window_size))

    from torch.nn.attention import varlen

    dispatch = ModuleType("unsloth.utils.attention_dispatch")
    vars(dispatch).update(
        _TORCH_VARLEN_ATTN=None,
        _visible_capabilities=lambda: ((9, 0),),
        _native_beats_xformers=lambda _, loaded: loaded,
    )
    monkeypatch.setitem(sys.modules, "unsloth.utils.attention_dispatch", dispatch)
    session.lend_attention()
    assert vars(dispatch)["_TORCH_VARLEN_ATTN"] is None, "a newer torch's function Unsloth takes by itself"
    monkeypatch.setattr(varlen, "varlen_attn", of_torch_2_11)
    session.lend_attention()
    vars(dispatch)["_TORCH_VARLEN_ATTN"]("q", "k", scale=1.0, window_size=(-1, 0), enable_gqa=True)
    assert calls == [("q", "k", 1.0, (-1, 0))]
    assert vars(dispatch)["_NATIVE_BEATS_XFORMERS"] is True

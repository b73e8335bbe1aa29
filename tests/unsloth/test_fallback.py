"""Where Unsloth serves a job and where transformers does, each with its reason in the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w

from forge.api.plan import Plan
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import BackendImportError, ForgeError, PlanError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.job.read import JobFile, parse
from forge.model.facts import ModelFacts
from forge.parent.run import run
from forge.planning.planner import make_plan
from forge_huggingface.facts.describe import describe
from forge_unsloth.families import COMPARED
from support import machines
from support.projects import merged

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue
    from forge.machine.machine import Machine

LLAMA: dict[str, Any] = {
    "id": "m",
    "source": "folder",
    "architectures": ("LlamaForCausalLM",),
    "model_type": "llama",
    "task": "text",
    "context": 4096,
    "dtype": "bfloat16",
}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return discover({"FORGE_PLUGINS": "huggingface,unsloth-text"})


def job(catalogue: Catalogue, **tables: Any) -> JobFile:
    base = {"model": {"id": "m"}, "data": {"path": "rows.jsonl"}}
    return parse(tomli_w.dumps(merged(base, tables)), "job.toml", Path(), PluginKeys(catalogue))


def plan(
    catalogue: Catalogue, machine: Machine = machines.FIT, facts: dict[str, Any] | None = None, **tables: Any
) -> Plan:
    return make_plan(job(catalogue, **tables), catalogue, machine, ModelFacts(**{**LLAMA, **(facts or {})}))


def chosen(planned: Plan) -> dict[str, str]:
    return {step.stage.value: step.plugin for step in planned.steps}


def reason(planned: Plan, label: str = "load") -> str:
    verdict = next(v for v in planned.verdicts if (v.label, v.plugin) == (label, "unsloth-text"))
    assert not verdict.chosen
    return verdict.reason


@pytest.mark.parametrize("machine", [machines.FIT, machines.WSL, machines.with_card("9.0"), machines.with_card("7.0")])
def test_a_job_that_names_no_backend_runs_on_unsloth_where_the_machine_allows(
    catalogue: Catalogue, machine: Machine
) -> None:
    planned = plan(catalogue, machine)
    expected = {"collate": "huggingface", "load": "unsloth-text", "adapt": "unsloth-text", "train": "huggingface"}
    assert chosen(planned) == expected
    assert planned.preload[0] == "unsloth"


def test_the_worker_gets_unsloths_environment(catalogue: Catalogue) -> None:
    environment = plan(catalogue).environment
    assert environment["UNSLOTH_DISABLE_STATISTICS"] == "1"
    assert environment["UNSLOTH_AUTO_INSTALL"] == "0"
    assert environment["UNSLOTH_DISABLE_CPU_FALLBACK"] == "1"
    assert Path(environment["UNSLOTH_COMPILE_LOCATION"]).is_absolute()
    assert not plan(catalogue, use={"backend": "huggingface"}).environment


def test_what_unsloth_decides_stands_in_the_plan_once(catalogue: Catalogue) -> None:
    planned = plan(catalogue)
    decided = {decision.key: decision.value for decision in planned.decisions}
    assert len(decided) == len(planned.decisions)
    assert decided["train.loss_type"] == "nll"
    assert decided["model.dtype"] == "bfloat16"
    assert decided["train.bf16"] is True
    old = plan(catalogue, machines.with_card("7.5"))
    decided = {decision.key: decision.value for decision in old.decisions}
    assert (decided["model.dtype"], decided["train.fp16"], decided["train.bf16"]) == ("float16", True, False)


MACHINES = {
    "Windows": (machines.WINDOWS, "platform is win32"),
    "macOS": (machines.MACOS, "platform is darwin"),
    "no GPU": (machines.NO_GPU, "needs an accelerator (cuda); there is none"),
    "a CPU build of torch beside a GPU": (machines.CPU_TORCH, "torch 2.13.0+cpu is a CPU build beside an NVIDIA"),
    "a GPU of 2016": (machines.with_card("6.1"), "compute capability 6.1; Unsloth needs 7.0"),
    "a newer Unsloth": (machines.with_versions(unsloth="2026.10.9"), "unsloth is 2026.10.9; needs ==2026.10.7"),
    "an older Unsloth": (machines.with_versions(unsloth="2025.10.1"), "unsloth is 2025.10.1"),
    "no Unsloth": (machines.with_versions(unsloth=None), 'unsloth is not installed (pip install "unsloth==2026.10.7")'),
    "a newer transformers": (machines.with_versions(transformers="5.23.0"), "transformers is 5.23.0"),
    "a newer trl": (machines.with_versions(trl="1.16.0"), "trl is 1.16.0; needs"),
    "a newer datasets": (machines.with_versions(datasets="5.2.0"), "datasets is 5.2.0"),
    "no triton": (machines.with_versions(triton=None), "triton is not installed"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_on_other_machines_it_runs_on_transformers_and_says_why(catalogue: Catalogue, name: str) -> None:
    machine, why = MACHINES[name]
    planned = plan(catalogue, machine)
    assert {plugin for stage, plugin in chosen(planned).items()} == {"huggingface"}
    assert why in reason(planned)
    assert "unsloth" not in planned.preload


@pytest.mark.parametrize("name", MACHINES)
def test_naming_unsloth_there_is_an_error_with_the_same_reason(catalogue: Catalogue, name: str) -> None:
    machine, why = MACHINES[name]
    with pytest.raises(PlanError) as error:
        plan(catalogue, machine, use={"backend": "unsloth"})
    assert why in str(error.value)


JOBS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "the model's own length": ({"model": {"max_seq_length": -1}}, {}, "max_seq_length = -1: Unsloth needs a fixed"),
    "a longer row than the model takes": (
        {"model": {"max_seq_length": 8192, "config": {"max_position_embeddings": 8192}}},
        {},
        "does not do config",
    ),
    "an attention by name": ({"model": {"attn_implementation": "eager"}}, {}, "Unsloth chooses the attention itself"),
    "a model stored in torchao": ({}, {"quantized": "torchao"}, "stored in torchao"),
    "float32": ({"model": {"dtype": "float32"}}, {}, "Unsloth's kernels compute in 16 bit"),
    "all weights in 16 bit": (
        {"model": {"load_in_16bit": True}, "adapter": {"type": "none"}},
        {},
        "without float32 weights",
    ),
    "one matrix at both ends": (
        {"adapter": {"modules_to_save": ["lm_head"], "ensure_weight_tying": True}},
        {},
        "Unsloth trains embedding and output layer apart",
    ),
    "the CPU": ({"train": {"use_cpu": True}}, {}, "Unsloth trains on a GPU"),
    "a loss that needs logits": ({"train": {"loss_type": "dft"}}, {}, "Unsloth computes its own fused loss"),
    "TRL's chunked loss": ({"train": {"loss_type": "chunked_nll"}}, {}, "Unsloth computes its own fused loss"),
    "checkpointing in detail": (
        {"train": {"gradient_checkpointing_kwargs": {"use_reentrant": False}}},
        {},
        "recomputes in its own way",
    ),
    "code of the model's own": ({"model": {"trust_remote_code": True}}, {}, "does not do remote-code"),
    "an architecture that Unsloth does not list": ({}, {"model_type": "gpt2"}, "does not list the architecture gpt2"),
    "a module that Unsloth does not train whole": (
        {"adapter": {"modules_to_save": ["score"]}},
        {},
        "trains only lm_head and embed_tokens whole, not score",
    ),
    "a part of the base": (
        {"adapter": {"init_lora_weights": "pissa"}},
        {},
        "forge has it for transformers alone",
    ),
    "biases": ({"adapter": {"bias": "all"}}, {}, "no kernels for it"),
    "vLLM that is not there": (
        {"plugins": {"unsloth-text": {"fast_inference": True}}},
        {},
        "vllm is not installed (pip install vllm)",
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_what_unsloth_would_not_do_as_the_job_says_runs_on_transformers(catalogue: Catalogue, name: str) -> None:
    tables, facts, why = JOBS[name]
    planned = plan(catalogue, facts=facts, **tables)
    assert chosen(planned)["load"] == chosen(planned)["adapt"] == "huggingface"
    assert why in reason(planned)


def test_a_length_left_to_the_model_names_the_common_ones_if_unsloth_is_named(catalogue: Catalogue) -> None:
    with pytest.raises(PlanError, match="512, 1024, 2048, 4096 or 8192"):
        plan(catalogue, model={"max_seq_length": -1}, use={"backend": "unsloth"})


def test_old_gpus_and_bfloat16_exclude_each_other(catalogue: Catalogue) -> None:
    with pytest.raises(PlanError, match='dtype = "bfloat16": this GPU has none'):
        plan(catalogue, machines.with_card("7.5"), model={"dtype": "bfloat16"})
    named = {"load": "unsloth-text", "adapt": "unsloth-text"}
    with pytest.raises(PlanError, match="gemma3_text needs bfloat16"):
        plan(catalogue, machines.with_card("7.5"), facts={"model_type": "gemma3_text"}, use=named)


@pytest.mark.parametrize(
    ("tables", "capability", "expected"),
    [
        ({}, "9.0", ("bfloat16", True, False)),
        ({}, "7.5", ("float16", False, True)),
        ({"train": {"fp16": True}}, "9.0", ("float16", False, True)),
        ({"model": {"dtype": "float16"}}, "9.0", ("float16", False, True)),
        ({"model": {"load_in_4bit": True}, "train": {"fp16": True}}, "9.0", ("float16", False, True)),
        ({"model": {"dtype": "bfloat16"}}, "9.0", ("bfloat16", True, False)),
        ({"adapter": {"type": "none"}}, "9.0", ("float32", True, False)),
        ({"adapter": {"type": "none"}}, "7.5", ("float32", False, True)),
    ],
)
def test_unsloth_gets_the_precision_that_transformers_would_get(
    catalogue: Catalogue, tables: dict[str, Any], capability: str, expected: tuple[str, bool, bool]
) -> None:
    planned = plan(catalogue, machines.with_card(capability), **tables)
    assert chosen(planned)["load"] == "unsloth-text"
    settled = settle(load_job(planned.job), planned.decisions)
    options = settled.train.options
    assert (settled.model.dtype, options["bf16"], options["fp16"]) == expected


def test_a_family_that_nobody_has_compared_runs_on_unsloth_only_if_that_is_named(catalogue: Catalogue) -> None:
    facts = {"model_type": "apertus"}
    planned = plan(catalogue, facts=facts)
    assert "forge has not compared apertus on Unsloth and on transformers" in reason(planned)
    assert chosen(plan(catalogue, facts=facts, use={"backend": "unsloth"}))["load"] == "unsloth-text"


@pytest.mark.parametrize("bits", [{}, {"load_in_4bit": True}])
@pytest.mark.parametrize("model_type", sorted(COMPARED))
def test_families_that_were_compared_run_on_unsloth_by_themselves(
    catalogue: Catalogue, model_type: str, bits: dict[str, Any]
) -> None:
    planned = plan(catalogue, facts={"model_type": model_type}, model=bits)
    assert chosen(planned)["load"] == chosen(planned)["adapt"] == "unsloth-text"


@pytest.mark.parametrize("model_type", ["gemma", "gemma2"])
def test_families_whose_comparison_was_not_finished_do_not(catalogue: Catalogue, model_type: str) -> None:
    assert "has not compared" in reason(plan(catalogue, facts={"model_type": model_type}))


def test_vllm_is_needed_where_unsloth_is_to_generate_with_it(catalogue: Catalogue) -> None:
    tables: dict[str, Any] = {"plugins": {"unsloth-text": {"fast_inference": True}}, "use": {"backend": "unsloth"}}
    with pytest.raises(PlanError, match=r"fast_inference: vllm is not installed \(pip install vllm\)"):
        plan(catalogue, **tables)
    assert chosen(plan(catalogue, machines.with_versions(vllm="0.11.0"), **tables))["load"] == "unsloth-text"


@pytest.mark.parametrize(("name", "model_type"), [("BartForConditionalGeneration", "bart"), ("T5Model", "t5")])
def test_models_that_encode_first_are_none_of_unsloths(
    catalogue: Catalogue, tmp_path: Path, name: str, model_type: str
) -> None:
    config = {"architectures": [name], "model_type": model_type, "is_encoder_decoder": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    facts = describe(str(tmp_path), None, tmp_path)
    assert facts.task == "seq2seq"
    planned = make_plan(job(catalogue), catalogue, machines.FIT, facts)
    assert set(chosen(planned).values()) == {"huggingface"}
    assert "seq2seq" in reason(planned) or "sequence-to-sequence" in reason(planned)
    with pytest.raises(PlanError, match="unsloth-text: "):
        make_plan(job(catalogue, use={"backend": "unsloth"}), catalogue, machines.FIT, facts)


def test_load_and_adapt_come_from_one_backend_or_not_at_all(catalogue: Catalogue) -> None:
    for use in ({"load": "huggingface", "adapt": "unsloth-text"}, {"load": "unsloth-text", "adapt": "huggingface"}):
        with pytest.raises(PlanError, match="do not fit together"):
            plan(catalogue, use=use)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Path:
    """A folder with a job, and a double of the package unsloth that fails at import as the real one does."""
    double = tmp_path / "site" / "unsloth"
    double.mkdir(parents=True)
    (double / "__init__.py").write_text('raise NotImplementedError("You need a GPU (a double says so)")\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = tomli_w.dumps({"model": {"id": str(tiny_model), "max_seq_length": 128}, "data": {"path": "org/none"}})
    (tmp_path / "job.toml").write_text(text)
    return tmp_path


def test_an_unsloth_that_fails_at_import_is_planned_around_and_told(catalogue: Catalogue, broken: Path) -> None:
    shown: list[Any] = []
    file = parse((broken / "job.toml").read_text(), "job.toml", broken, PluginKeys(catalogue))
    # The second attempt ends early: there is no hub to read the rows from.
    with pytest.raises(ForgeError, match="org/none"):
        run(file, catalogue, machines.FIT, broken / "runs", shown.append)
    (folder,) = broken.glob("runs/*/*")
    first, second = Plan.read(folder / "plan.json"), Plan.read(folder / "plan.2.json")
    assert (chosen(first)["load"], chosen(second)["load"]) == ("unsloth-text", "huggingface")
    assert chosen(second)["adapt"] == "huggingface"
    assert "unsloth" not in second.preload
    assert not second.environment
    assert "failed in attempt 1: cannot import unsloth: NotImplementedError: You need a GPU" in reason(second)
    assert any(event.kind == "warning" and "trying again with another plan" in event.message for event in shown)


def test_an_unsloth_that_fails_at_import_is_an_error_if_it_is_named(catalogue: Catalogue, broken: Path) -> None:
    text = (broken / "job.toml").read_text() + '\n[use]\nbackend = "unsloth"\n'
    file = parse(text, "job.toml", broken, PluginKeys(catalogue))
    with pytest.raises(BackendImportError, match="You need a GPU"):
        run(file, catalogue, machines.FIT, broken / "runs", lambda _event: None)
    assert len(list(broken.glob("runs/*/*/plan*.json"))) == 1

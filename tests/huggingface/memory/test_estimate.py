"""The estimate: near the peaks that were measured, honest about what it does not know, and it names what helps."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Estimate
from forge.api.plan import Plan, Task
from forge.api.run import Run
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.job.decisions import settle
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan
from forge.text.memory import describe
from forge_huggingface.memory.estimate import estimate
from forge_huggingface.memory.levers import contradicts_itself, with_changes
from forge_huggingface.memory.parts import LOADS
from forge_huggingface.methods import METHODS, splits
from forge_huggingface.training.probe import EVALUATING, PROBING, explain_out_of_memory
from forge_unsloth.estimate import estimate as unsloth
from support.measuring import llama, make_job, on_gpu
from support.planning import BASE, planner
from support.projects import Project

if TYPE_CHECKING:
    from collections.abc import Callable

GIB = 2**30
PLAIN = {"loss_type": "chunked_nll"}  # what forge decides under TRL 1.14
FULL = {"model": {"dtype": "float32"}, "adapter": {"type": "none"}}
FOUR = {"model": {"load_in_4bit": True}}
NO, YES = {"gradient_checkpointing": False}, {"gradient_checkpointing": True}
GRPO = {"method": "grpo", "max_completion_length": 256, "num_generations": 8, "beta": 0.0, **NO}
MEASURED: list[tuple[str, str, int, dict[str, Any], dict[str, Any], float]] = [
    # Model, backend, rows of 2048 tokens, the job's tables, trainer's arguments, GiB: docs/memory.md says where from.
    ("1b", "huggingface", 4, {}, PLAIN, 4.42),
    ("1b", "huggingface", 4, FOUR, PLAIN, 2.79),
    ("1b", "huggingface", 4, {}, {**PLAIN, **NO}, 17.36),
    ("1b", "huggingface", 4, {}, {"loss_type": "nll"}, 14.80),
    ("8b", "huggingface", 2, {}, PLAIN, 17.81),
    # Measured with an adapter in bfloat16; in float32 its 41,943,040 values take 8 bytes more each.
    ("8b", "huggingface", 2, FOUR, PLAIN, 7.57 + 0.31),
    ("1b", "unsloth", 4, {}, {}, 3.69),
    ("1b", "unsloth", 4, FOUR, {}, 2.38),
    ("1b", "unsloth", 4, {}, NO, 11.33),
    ("8b", "unsloth", 2, {}, {}, 16.30),
    ("8b", "unsloth", 2, FOUR, {}, 6.88),
    ("1b", "huggingface", 8, {"model": {"max_seq_length": 256 + 32}}, GRPO, 8.64),
    ("1b", "huggingface", 8, {"model": {"max_seq_length": 256 + 330}}, {**GRPO, **YES}, 4.78),
    ("1b", "huggingface", 8, {"model": {"max_seq_length": 256 + 330}}, {**GRPO, **YES, "method": "sdpo"}, 3.67),
]
ANSWERS = {"max_completion_length": 256, "num_generations": 4}
METHODS_MEASURED: list[tuple[str, str, str, str, int, float]] = [
    # Method, what is trained, backend, TRL, tokens of the longest row or prompt, GiB; 4 rows: `memory.py --methods`.
    ("dpo", "LoRA", "huggingface", "1.14.2", 1024, 12.82),
    ("dpo", "full", "huggingface", "1.14.2", 1024, 29.89),
    ("dpo", "LoRA", "unsloth", "1.14.2", 1024, 12.34),
    ("dpo", "LoRA", "huggingface", "1.14.2", 880, 11.36),
    ("dpo", "LoRA", "unsloth", "1.14.2", 880, 10.95),
    ("kto", "LoRA", "huggingface", "1.14.2", 1024, 9.56),
    ("kto", "LoRA", "huggingface", "1.14.2", 880, 8.30),
    ("kto", "LoRA", "unsloth", "1.14.2", 1024, 9.32),
    ("kto", "LoRA", "unsloth", "1.14.2", 880, 8.10),
    ("orpo", "LoRA", "huggingface", "1.14.2", 1024, 12.81),
    ("cpo", "LoRA", "huggingface", "1.14.2", 1024, 12.81),
    ("reward", "LoRA", "huggingface", "1.14.2", 880, 4.20),
    ("reward", "full", "huggingface", "1.14.2", 880, 18.59),
    ("grpo", "LoRA", "huggingface", "1.14.2", 364, 3.64),
    ("grpo", "full", "huggingface", "1.14.2", 364, 19.48),
    ("grpo", "LoRA", "unsloth", "1.14.2", 364, 2.96),
    ("rloo", "LoRA", "huggingface", "1.14.2", 364, 3.64),
    ("dpo", "LoRA", "huggingface", "1.16.0", 880, 4.20),
    ("dpo", "LoRA", "huggingface", "1.16.0", 432, 3.33),
    ("dpo", "full", "huggingface", "1.16.0", 880, 24.17),
    ("kto", "LoRA", "huggingface", "1.16.0", 880, 3.35),
    ("orpo", "LoRA", "huggingface", "1.16.0", 880, 11.36),
    ("orpo", "LoRA", "huggingface", "1.16.0", 432, 6.83),
    ("cpo", "LoRA", "huggingface", "1.16.0", 880, 11.36),
    ("grpo", "LoRA", "huggingface", "1.16.0", 305, 3.02),
    ("rloo", "LoRA", "huggingface", "1.16.0", 305, 3.02),
]


def gpu_job(tables: dict[str, Any] | None = None, rows: int = 1, **train: Any) -> Any:
    tables = {name: dict(table) for name, table in (tables or {}).items()}
    tables["model"] = {"dtype": "bfloat16", "max_seq_length": 2048} | tables.get("model", {})
    values = {"bf16": True, "gradient_checkpointing": True, "per_device_train_batch_size": rows} | train
    return make_job(tables, **values)


def test_the_shapes_are_those_that_were_measured() -> None:
    assert llama("1b").parameters == 1_235_814_400
    assert llama("8b").parameters == 8_030_261_248


@pytest.mark.parametrize(("size", "backend", "rows", "tables", "train", "gib"), MEASURED)
def test_the_peak_is_near_what_an_h200_measured(
    size: str, backend: str, rows: int, tables: dict[str, Any], train: dict[str, Any], gib: float
) -> None:
    function: Callable[..., Estimate | None] = unsloth if backend == "unsloth" else estimate
    job = gpu_job(tables, rows, **{"kernels": ["mask"], **train})  # all rows were full, so that none had a mask
    found = function(on_gpu(140 * GIB, "1.14.2"), job, llama(size))
    assert found is not None
    assert found.peak == pytest.approx(gib * GIB, rel=0.06)
    assert found.process == found.peak + next(part.bytes for part in found.parts if part.name == "overhead")


@pytest.mark.parametrize(("method", "what", "backend", "trl", "longest", "gib"), METHODS_MEASURED)
def test_the_peak_of_other_methods_is_near_what_an_h200_measured(
    method: str, what: str, backend: str, trl: str, longest: int, gib: float
) -> None:
    online = {**ANSWERS, "beta": 0.05 if method == "rloo" else 0.0} if method in {"grpo", "rloo"} else {}
    job = gpu_job(FULL if what == "full" else {"model": {"max_seq_length": 1024}}, 4, method=method, **online)
    function: Callable[..., Estimate | None] = unsloth if backend == "unsloth" else estimate
    found = function(on_gpu(140 * GIB, trl), job, llama("1b"), longest=longest)
    assert found is not None
    assert found.peak == pytest.approx(gib * GIB, rel=0.1)


@pytest.mark.parametrize(
    ("keys", "share"),
    [({}, 0.3), ({"vllm_gpu_memory_utilization": 0.5}, 0.5), ({"vllm_mode": "server"}, 0.0)],
    ids=["default", "half", "server"],
)
def test_vllm_takes_the_share_that_it_is_given(keys: dict[str, Any], share: float) -> None:
    def peak(**more: Any) -> int:
        found = estimate(
            on_gpu(80 * GIB), gpu_job(method="grpo", beta=0.0, max_completion_length=256, **more), llama("1b")
        )
        assert found is not None
        return found.peak or 0

    assert peak(use_vllm=True, **keys) - peak() == pytest.approx(share * 80 * GIB, abs=0.1 * GIB)
    asleep = peak(use_vllm=True, vllm_enable_sleep_mode=True, **keys)
    assert asleep <= peak(use_vllm=True, **keys)


@pytest.mark.parametrize("what", ["LoRA", "full"])
@pytest.mark.parametrize("method", METHODS)
def test_what_would_take_less_is_a_job_that_can_be_run(method: str, what: str) -> None:
    more: list[dict[str, Any]] = [{}, {"sync_ref_model": True}] if method == "dpo" else [{}]
    if method in {"grpo", "rloo"}:
        more = [{"num_generations": 4}, {"num_generations": 4, "steps_per_generation": 2}]
    for options in more:
        loss = {"loss_type": "kto"} if method == "kto" else {}
        job = gpu_job(FULL if what == "full" else None, 4, method=method, **loss, **options)
        found = estimate(on_gpu(6 * GIB), job, llama("1b"))
        assert found is not None
        cure = tuple(change for lever in found.cure for change in lever.changes)
        for changes in (*(lever.changes for lever in found.levers), cure):
            changed = with_changes(job, changes)
            assert not contradicts_itself(changed), changes
            assert splits(method, job.train.options) or "train.per_device_train_batch_size" not in dict(changes)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_reference_need_not_stay_if_it_is_asked_before(method: str) -> None:
    found = estimate(on_gpu(140 * GIB), gpu_job(FULL, method=method), llama("1b"))
    assert found is not None
    assert "reference" in {part.name for part in found.parts}
    lever = next(each for each in found.levers if each.changes == (("train.precompute_ref_log_probs", True),))
    assert lever.saves == pytest.approx(4 * 1_235_814_400, rel=0.1)
    other = estimate(on_gpu(140 * GIB), gpu_job(method=method), llama("1b"))
    assert other is not None
    assert not any("precompute" in str(each.changes) for each in other.levers), "an adapter is switched off"


def test_each_part_says_how_it_is_known() -> None:
    found = estimate(on_gpu(24 * GIB), gpu_job(), llama("1b"))
    assert found is not None
    assert {part.name: part.how for part in found.parts} == dict.fromkeys(
        ("adapter", "gradients", "optimizer", "activations", "logits", "overhead"), "estimated"
    ) | {"weights": "measured"}
    without = estimate(on_gpu(24 * GIB), gpu_job(), replace(llama("1b"), parameters=None, source="hub"))
    assert without is not None
    assert without.parts[0].how == "estimated"
    assert "config.json alone" in without.parts[0].note
    assert without.parts[0].bytes == found.parts[0].bytes


def test_what_is_unknown_is_said_and_not_counted_as_nothing() -> None:
    vision = estimate(on_gpu(24 * GIB), gpu_job(), replace(llama("1b"), task="vision"))
    assert vision is not None
    assert ("pictures", None, "unknown") in {(part.name, part.bytes, part.how) for part in vision.parts}
    assert "at least" in describe(vision)[0]
    assert describe(vision)[0].endswith(": it may fit")
    assert estimate(on_gpu(24 * GIB), gpu_job(), replace(llama("1b"), shape=None)) is None
    assert estimate(on_gpu(24 * GIB), gpu_job(), replace(llama("1b"), task="seq2seq")) is None
    assert estimate(on_gpu(24 * GIB), gpu_job(method="stranger/own"), llama("1b")) is None
    assert "unknown" in describe(None)[0]


def test_every_lever_saves_what_it_says() -> None:
    machine, job, facts = on_gpu(24 * GIB), gpu_job(rows=4, **NO), llama("8b")
    found = estimate(machine, job, facts)
    assert found is not None
    assert found.peak is not None
    keys = {key for lever in found.levers for key, _ in lever.changes}
    assert {"train.gradient_checkpointing", "train.per_device_train_batch_size", "model.load_in_4bit"} <= keys
    assert {"train.gradient_accumulation_steps", "model.max_seq_length"} <= keys
    for lever in found.levers:
        other = estimate(machine, with_changes(job, lever.changes), facts)
        assert other is not None
        assert other.peak == found.peak - lever.saves
    assert [lever.saves for lever in found.levers] == sorted((lever.saves for lever in found.levers), reverse=True)


def test_a_job_that_does_not_fit_is_told_what_makes_it_fit() -> None:
    machine, job, facts = on_gpu(16 * GIB), gpu_job(rows=4, **NO), llama("8b")
    found = estimate(machine, job, facts)
    assert found is not None
    assert found.fits is False
    for lever in found.cure:
        job = with_changes(job, lever.changes)
    cured = estimate(machine, job, facts)
    assert cured is not None
    assert cured.fits
    assert cured.process == found.cured
    assert "it does not fit" in describe(found)[0]
    hopeless = estimate(on_gpu(2 * GIB), gpu_job(), llama("8b"))
    assert hopeless is not None
    assert (hopeless.fits, hopeless.cure) == (False, ())
    assert any("smaller model" in line for line in describe(hopeless))


def test_full_training_is_offered_an_adapter_in_16_bit() -> None:
    found = estimate(on_gpu(24 * GIB), gpu_job(FULL), llama("8b"))
    assert found is not None
    assert found.levers[0].changes == (("adapter.type", "lora"),)
    assert found.levers[0].saves > 100 * GIB


def test_a_cure_goes_on_from_what_it_has_changed() -> None:
    found = estimate(on_gpu(10 * GIB), gpu_job(FULL), llama("8b"))
    assert found is not None
    keys = {key for lever in found.cure for key, _ in lever.changes}
    assert {"adapter.type", "model.load_in_4bit"} <= keys
    assert (found.cured or 0) <= 10 * GIB


def test_what_cannot_run_here_is_not_offered() -> None:
    machine = on_gpu(24 * GIB)
    versions = {name: text for name, text in machine.versions.items() if name != "bitsandbytes"}
    found = estimate(replace(machine, versions=versions), gpu_job(), llama("8b"))
    assert found is not None
    assert not {"model.load_in_4bit", "train.optim"} & {key for lever in found.levers for key, _ in lever.changes}


def test_the_longest_row_counts_and_not_the_limit_where_it_is_known() -> None:
    machine, job = on_gpu(24 * GIB), gpu_job(rows=4)
    at_most, real = estimate(machine, job, llama("1b")), estimate(machine, job, llama("1b"), longest=128)
    assert at_most is not None
    assert real is not None
    assert (at_most.batch, real.batch) == ("4 rows of up to 2,048 tokens", "4 rows of 128 tokens")
    assert (real.peak or 0) < (at_most.peak or 0)


def test_gradients_of_earlier_batches_are_there_beside_the_activations() -> None:
    machine, tables = on_gpu(140 * GIB), FULL
    once = estimate(machine, gpu_job(tables, 8, **NO), llama("1b"))
    often = estimate(machine, gpu_job(tables, 8, **NO, gradient_accumulation_steps=2), llama("1b"))
    assert once is not None
    assert often is not None
    gradients = next(part.bytes for part in once.parts if part.name == "gradients")
    assert 0.5 * gradients < (often.peak or 0) - (once.peak or 0) <= gradients


def test_of_several_processes_each_has_the_whole_model_or_a_part() -> None:
    found = {}
    for name, launch in {
        "one": {},
        "whole": {"processes": 4, "shard": "none"},
        "twice": {"processes": 4, "shard": "none"},
        "parts": {"processes": 4, "shard": "full"},
    }.items():
        more = {"gradient_accumulation_steps": 4, **YES}
        if name == "twice":
            more["gradient_accumulation_steps"] = 8
        job = make_job({**FULL, "launch": launch}, **PLAIN, **more)
        said = estimate(PRESETS["linux-cuda"], job, llama("1b"))
        assert said is not None
        found[name] = {part.name: part.bytes or 0 for part in said.parts} | {"peak": said.peak or 0}
    for part in ("weights", "gradients", "optimizer"):
        assert found["whole"][part] == found["one"][part]
        assert found["parts"][part] == found["one"][part] // 4
    assert "buckets" not in found["whole"]  # they are the gradients
    assert found["twice"]["buckets"] == found["one"]["gradients"]
    assert found["parts"]["peak"] < 0.5 * found["one"]["peak"] < found["one"]["peak"] <= found["whole"]["peak"]


def test_adapters_in_16_bit_are_counted_where_forges_kernels_compute_them() -> None:
    found = {}
    for kernels in ("none", ["lora"]):
        said = estimate(on_gpu(80 * GIB), gpu_job({}, 2, kernels=kernels), llama("1b"))
        assert said is not None
        found[str(kernels)] = {part.name: part.bytes or 0 for part in said.parts}
    assert "rounded" not in found["none"]
    assert found["['lora']"]["rounded"] == found["none"]["adapter"] // 2


def test_methods_differ_in_what_they_hold() -> None:
    def part(method: str, tables: dict[str, Any] | None = None, **train: Any) -> dict[str, int | None]:
        found = estimate(on_gpu(140 * GIB), gpu_job(tables, 2, method=method, **train), llama("1b"))
        assert found is not None
        return {each.name: each.bytes for each in found.parts} | {"peak": found.peak}

    sft, pairs = part("sft"), part("dpo")
    assert pairs["activations"] == pytest.approx(2 * (sft["activations"] or 0), rel=0.1)
    assert "reference" not in pairs
    whole = part("dpo", FULL)
    assert whole["reference"] == whole["weights"]
    assert (part("reward")["logits"] or 0) < (pairs["logits"] or 0)
    assert "cache" not in sft
    written = {"max_completion_length": 256, "num_generations": 2}
    assert (part("grpo", **written)["cache"] or 0) < (part("grpo", **written, steps_per_generation=4)["cache"] or 0)
    assert "reference" not in part("grpo", FULL, **written, beta=0.0)
    assert part("grpo", FULL, **written, beta=0.1)["reference"] == whole["weights"]
    assert part("distill", **written)["teacher"] is None


def test_every_method_of_the_plugin_has_a_row() -> None:
    assert METHODS.keys() <= LOADS.keys()


def test_an_estimate_survives_being_written_down() -> None:
    found = estimate(on_gpu(16 * GIB), gpu_job(rows=4, **NO), llama("8b"))
    assert found is not None
    assert Estimate.from_json(json.loads(json.dumps(found.to_json()))) == found


JOB = '[model]\nid = "m"\n[data]\npath = "rows.jsonl"\n'


def plan(catalogue: Catalogue, machine: str = "linux-cuda", facts: ModelFacts | None = None) -> Plan:
    return make_plan(
        parse(JOB, "job.toml", Path("/jobs"), PluginKeys(catalogue)), catalogue, PRESETS[machine], facts or llama("1b")
    )


def test_a_plan_holds_the_estimate_of_what_it_decided() -> None:
    found = plan(discover({}))
    assert found.estimate is not None
    assert found.estimate.device == "NVIDIA GeForce RTX 4090"
    assert found.estimate.room == 24 * GIB
    assert Plan.from_json(json.loads(json.dumps(found.to_json()))).estimate == found.estimate
    on_cpu = plan(discover({}), "linux-cpu")
    assert on_cpu.estimate is not None
    weights = {found_.parts[0].bytes for found_ in (found.estimate, on_cpu.estimate)}
    assert weights == {2 * 1_235_814_400, 4 * 1_235_814_400}  # the plan decides bfloat16 there and float32 here


def test_a_plugin_that_fails_to_estimate_costs_a_note_and_not_the_plan() -> None:
    known = discover({})
    broken = []
    for plugin in known.plugins:
        offers = tuple(replace(o, estimate="nowhere:at_all") if o.estimate else o for o in plugin.offers)
        broken.append(replace(plugin, offers=offers) if plugin.offers else plugin)
    assert all(isinstance(plugin, Plugin) for plugin in broken)
    found = plan(replace(known, plugins=tuple(broken)))
    assert found.estimate is None
    assert any("huggingface failed at it" in note and "nowhere" in note for note in found.notes)


def test_forge_plan_shows_the_estimate_and_imports_no_torch(tmp_path: Path, tiny_model: Path) -> None:
    project = Project(tmp_path / "project", tiny_model)
    shown = project.forge("plan", "job.toml")
    assert "memory    about" in shown
    assert "weights" in shown
    code = "import sys, forge_huggingface.memory.estimate, forge_unsloth.estimate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_dry_run_measures_beside_the_estimate(tmp_path: Path, tiny_model: Path) -> None:
    project = Project(tmp_path / "project", tiny_model)
    project.write(export=[{"format": "merged"}])
    done = project.perform(task=Task.DRY_RUN)
    event = next(event for event in done.events if event["kind"] == "dry-run")
    found = Estimate.from_json(event["estimate"])
    expected = {part.name: part.bytes or 0 for part in found.parts}
    measured = event["measured"]
    assert measured["gradients"] == expected["gradients"]
    assert measured["optimizer"] == expected["optimizer"]
    assert measured["weights"] == pytest.approx(expected["weights"] + expected["adapter"], rel=0.01)  # buffers
    assert event["longest"] == done_longest(done)
    assert f"of {event['longest']} tokens" in found.batch
    disk = event["disk"]
    assert disk["checkpoint"] == measured["gradients"] + measured["optimizer"]
    assert disk["kept"] == 2  # four steps, saved every second
    assert disk["total"] == 2 * disk["checkpoint"] + disk["weights"] + disk["exports"] < disk["free"]


def done_longest(done: Any) -> int:
    return int(next(event for event in done.events if event["kind"] == "data")["longest"])


def test_out_of_memory_names_the_levers_with_numbers(catalogue: Catalogue, tmp_path: Path) -> None:
    from types import SimpleNamespace

    text = f'{BASE}[train]\nper_device_train_batch_size = 4\nkernels = "none"\n'
    plan = planner(catalogue)(text, on_gpu(75 * GIB), llama("8b"))
    run = Run(folder=tmp_path, plan=plan)
    job = settle(plan.asked(), plan.decisions)
    assert job.train.options["gradient_checkpointing_kwargs"] == {"every_n_layers": 4}
    args = SimpleNamespace(per_device_train_batch_size=4, per_device_eval_batch_size=8)
    model = SimpleNamespace(named_parameters=list)
    trainer: Any = SimpleNamespace(args=args, state=SimpleNamespace(global_step=0), model=model)
    data: Any = SimpleNamespace(summary={"longest": 2048})
    ran_out = RuntimeError("CUDA out of memory")
    error = explain_out_of_memory(ran_out, trainer, data, job, run, when=PROBING)
    assert error.do is not None
    assert "[train] gradient_checkpointing_kwargs = { every_n_layers = 1 } (about" in error.do
    assert "GiB less)" in error.do
    changes = {change["key"]: change["value"] for change in error.relief}
    assert changes == {
        "train.gradient_checkpointing": True,
        "train.gradient_checkpointing_kwargs": {"every_n_layers": 2},
    }
    held_out = explain_out_of_memory(ran_out, trainer, data, job, run, when=EVALUATING)
    assert {change["key"]: change["value"] for change in held_out.relief} == {
        "train.gradient_checkpointing": True,
        "train.gradient_checkpointing_kwargs": {"every_n_layers": 4},
        "train.per_device_eval_batch_size": 4,
    }, "recomputing does not help an evaluation, and what was decided stays"
    later = explain_out_of_memory(ran_out, trainer, data, job, run)
    assert (later.probing, later.relief) == (False, [])


def test_the_numbers_in_the_docs_are_near_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "docs")
    memory = importlib.import_module("parts.memory")
    ratios = [float(line.split("|")[-2]) for line in memory.measured().splitlines()[2:]]
    assert ratios == pytest.approx([1.0] * len(ratios), abs=0.06)


@pytest.mark.parametrize(
    ("card", "main", "beside"),
    [
        (80, 512, False),  # 32 GB beside a part of 4
        (24, 512, True),
        (24, 256, False),  # eight times 32 GB are more: then it does not fit, and the estimate says so
    ],
)
def test_weights_that_a_gpu_has_no_room_for_beside_its_part_are_read_into_main_memory(
    card: int, main: int, beside: bool
) -> None:
    one = on_gpu(card * GIB)
    machine = replace(one, accelerators=one.accelerators * 8, memory=main * GIB)
    launch = {"processes": 8, "shard": "full"}
    job = make_job(
        {**FULL, "launch": launch}, **PLAIN, **YES, per_device_train_batch_size=1, gradient_accumulation_steps=8
    )
    found = estimate(machine, job, llama("8b"))
    assert found is not None
    weights = next(part for part in found.parts if part.name == "weights")
    assert ("into main memory" in weights.note) is beside
    assert found.fits is (card == 80 or beside)
    if not beside:
        assert (found.peak or 0) >= 9 * (weights.bytes or 0)  # all of them, and the part that is taken out


def test_a_reference_that_is_parted_too_is_there_as_a_whole_before() -> None:
    one = on_gpu(48 * GIB)
    machine = replace(one, accelerators=one.accelerators * 8, memory=512 * GIB)
    found = {}
    for method in ("sft", "dpo"):
        tables = {**FULL, "launch": {"processes": 8, "shard": "full"}}
        job = make_job(
            tables, **PLAIN, **YES, method=method, per_device_train_batch_size=1, gradient_accumulation_steps=8
        )
        found[method] = estimate(machine, job, llama("8b"))
    assert found["sft"] is not None
    assert found["dpo"] is not None
    weights = next(part.bytes or 0 for part in found["sft"].parts if part.name == "weights")
    assert (found["sft"].peak or 0) >= 9 * weights
    assert (found["dpo"].peak or 0) >= 17 * weights  # both, and the part of one
    assert (found["sft"].fits, found["dpo"].fits) == (True, False)

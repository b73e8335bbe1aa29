"""Needs: what a job asks of each stage, and what its method asks of the others."""

from __future__ import annotations

from pathlib import Path

from forge.api import Offer, Stage
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.discovery.keys import PluginKeys
from forge.job.job import Job
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.needs import asks, needs
from forge.planning.planner import make_plan

FACTS = ModelFacts(id="m", source="unknown", task="text")
BASE = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\n'


def job(**tables: object) -> Job:
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "d.jsonl"}, **tables})


def offer(stage: Stage, *serves: str, supports: str = "text tokens pairs", **more: object) -> Offer:
    given = {"serves": frozenset(serves), "supports": frozenset(supports.split())} | more
    return Offer(stage=stage, impl=f"nowhere:{stage}", **given)  # type: ignore[arg-type]


def plugin(name: str, *offers: Offer, own: bool = False) -> Plugin:
    return Plugin(name=name, distribution=OWN if own else f"forge-{name}", version="1", offers=offers)


def test_the_rows_are_those_that_the_named_trainer_asks_for() -> None:
    """Forge's own trainer asks for tokens; the one that the job names asks for pairs, and gets them."""
    pairs = {Stage.COLLATE: frozenset({"pairs"})}
    found = Catalogue(
        (
            plugin("own", offer(Stage.COLLATE), offer(Stage.LOAD), offer(Stage.ADAPT, "lora"), own=True),
            plugin("own-train", offer(Stage.TRAIN, "sft", supports=""), own=True),
            plugin("mlx", offer(Stage.TRAIN, "sft", supports="", asks=pairs)),
        )
    )
    assert asks(job(), FACTS, found, PRESETS["linux-cpu"]) == {}
    assert asks(job(use={"train": "mlx"}), FACTS, found, PRESETS["linux-cpu"]) == pairs
    file = parse(f'{BASE}[use]\ntrain = "mlx"\n', "job.toml", Path("/jobs"), PluginKeys(found))
    plan = make_plan(file, found, PRESETS["linux-cpu"], FACTS)
    assert plan.step(Stage.TRAIN).plugin == "mlx"
    assert plan.step(Stage.COLLATE).words == ("pairs", "text")


def test_each_stage_has_its_own_words() -> None:
    asked = job(
        model={"id": "m", "load_in_4bit": True, "trust_remote_code": True},
        adapter={"use_dora": True},
        data={"path": "d", "packing": True},
        export=[{"format": "merged"}, {"format": "gguf", "push_to_hub": "a/b"}],
        eval={},
    )
    assert {need.label: sorted(need.words) for need in needs(asked, FACTS)} == {
        "collate": ["packing", "text", "tokens"],
        "load": ["4bit", "remote-code", "text"],
        "adapt": ["dora", "lora"],
        "train": ["sft"],
        "generate (base)": ["base", "text"],
        "generate (tuned)": ["adapter", "text"],
        "evaluate": ["text"],
        "export 1 (merged)": ["merged"],
        "export 2 (gguf)": ["gguf", "push"],
    }


def test_a_backend_is_asked_of_what_loads_and_adapts_only() -> None:
    asked = job(use={"backend": "quick", "adapt": "other"})
    found = {need.stage: (need.plugin, need.backend) for need in needs(asked, FACTS)}
    assert found[Stage.LOAD] == (None, "quick")
    assert found[Stage.ADAPT] == ("other", None)
    assert found[Stage.TRAIN] == (None, None)


def test_an_ability_of_a_plugin_is_no_method() -> None:
    """``mlx/quantised`` says what an offer can also do; a job cannot ask for it as a method."""
    trainer = offer(Stage.TRAIN, "sft", supports="mlx/quantised")
    keys = PluginKeys(Catalogue((plugin("mlx", trainer),)))
    assert keys.words("train") == {"sft"}
    assert keys.models("train", "mlx/quantised", {}) == []

"""Selection: one joint choice, and a reason for every offer that was not taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Offer, Stage
from forge.api.plan import Verdict
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.discovery.requirements import missing_requirement
from forge.errors import PlanError
from forge.job.job import Job
from forge.machine.machine import TorchBuild
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.needs import Need, needs
from forge.planning.selection import refuse_unable, select

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.machine.machine import Machine

CUDA, CPU = PRESETS["linux-cuda"], PRESETS["linux-cpu"]
MIXED, MAC = PRESETS["windows-cuda-cpu-torch"], PRESETS["macos"]
FACTS = ModelFacts(id="m", source="unknown", task="text")
WORDS = {
    Stage.COLLATE: {"text", "tokens", "streaming", "packing"},
    Stage.LOAD: {"text", "4bit", "full"},
    Stage.ADAPT: {"lora", "none"},
    Stage.TRAIN: {"sft"},
    Stage.EXPORT: {"adapter", "merged"},
}


def offer(stage: Stage, **values: Any) -> Offer:
    values.setdefault("supports", frozenset(WORDS[stage]))
    return Offer(stage=stage, impl=f"nowhere:{stage}", **values)


def plugin(name: str, *offers: Offer, own: bool = True) -> Plugin:
    return Plugin(name=name, distribution=OWN if own else f"forge-{name}", version="1", offers=offers)


def job(**tables: Any) -> Job:
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "d.jsonl"}, **tables})


LOAD = Need(Stage.LOAD, frozenset({"text"}), "load")


def choose(
    plugins: Sequence[Plugin], wanted: Sequence[Need] = (LOAD,), machine: Machine = CUDA, **more: Any
) -> tuple[dict[str, str], dict[tuple[str, str], Verdict]]:
    """Return the chosen plugin of each need, and the verdicts by need and plugin."""
    asked = more.pop("job", None) or job()
    chosen, verdicts = select(wanted, Catalogue(tuple(plugins)), machine, asked, FACTS, **more)
    return {choice.need.label: choice.plugin.name for choice in chosen}, {(v.label, v.plugin): v for v in verdicts}


def reason(candidate: Offer, machine: Machine = CUDA, need: Need = LOAD) -> str:
    """Return why an offer was not taken, another being there that is always fit."""
    _, verdicts = choose(
        [plugin("fit", offer(Stage.LOAD, supports=need.words)), plugin("x", candidate)], [need], machine
    )
    verdict = verdicts[need.label, "x"]
    assert not verdict.chosen
    return verdict.reason


def test_the_first_reason_against_an_offer_is_the_one_that_no_later_remedy_helps() -> None:
    hopeless = {
        "supports": frozenset({"vision"}),
        "platforms": frozenset({"win32"}),
        "accelerators": frozenset({"mps"}),
        "requires_dist": ("forge-surely-not-there",),
        "probe": lambda *_: "the probe says no",
        "priority": 90,
    }
    expected = ["does not do text", "platform is linux", "needs an accelerator", "the probe says no", "not installed"]
    for drop, words in zip(["supports", "platforms", "accelerators", "probe", "requires_dist"], expected, strict=True):
        assert words in reason(offer(Stage.LOAD, **hopeless))
        del hopeless[drop]
    chosen, _ = choose([plugin("fit", offer(Stage.LOAD)), plugin("x", offer(Stage.LOAD, **hopeless))])
    assert chosen == {"load": "x"}


def test_an_offer_that_lacks_a_word_says_which() -> None:
    need = replace(LOAD, words=frozenset({"text", "4bit", "remote-code"}))
    said = reason(offer(Stage.LOAD, supports=frozenset({"text"})), need=need)
    assert said == "does not do 4bit, remote-code"


def test_words_that_a_plugin_has_only_apart_are_said_with_what_goes_together() -> None:
    need = Need(Stage.TRAIN, frozenset({"kto", "vision"}), "train")
    texts, pictures = (
        offer(Stage.TRAIN, serves=frozenset({"kto"})),
        offer(Stage.TRAIN, serves=frozenset({"sft"}), supports=frozenset({"vision"})),
    )
    with pytest.raises(PlanError, match="x: does kto, but not for models that take pictures; for those it does sft"):
        choose([plugin("x", texts, pictures)], [need])
    with pytest.raises(PlanError, match="x: does kto, but not for models that take pictures; for those it does sft"):
        refuse_unable(need, Catalogue((plugin("x", texts, pictures),)))
    with pytest.raises(PlanError, match="x: does kto, but not for models that take pictures; see"):
        choose([plugin("x", texts)], [need])  # a plugin that knows no pictures at all
    both = offer(Stage.TRAIN, serves=frozenset({"kto"}), supports=frozenset({"vision"}), platforms=frozenset({"win32"}))
    refuse_unable(need, Catalogue((plugin("x", both),)))  # another machine can


def test_an_offer_for_other_platforms_says_which() -> None:
    said = reason(offer(Stage.LOAD, platforms=frozenset({"darwin", "win32"})))
    assert said == "platform is linux; needs darwin or win32"


def test_an_accelerator_that_is_not_there_is_a_reason() -> None:
    candidate = offer(Stage.LOAD, accelerators=frozenset({"cuda", "rocm"}))
    assert reason(candidate, CPU) == "needs an accelerator (cuda or rocm); there is none"
    assert reason(candidate, MAC) == "needs an accelerator (cuda or rocm); there is mps"


def test_a_cpu_build_of_torch_beside_a_gpu_is_named_with_the_line_that_mends_it() -> None:
    said = reason(offer(Stage.LOAD, accelerators=frozenset({"cuda"})), MIXED)
    assert "torch 2.13.0+cpu is a CPU build beside an NVIDIA GeForce RTX 4090" in said
    assert "pip install --force-reinstall torch --index-url" in said


def test_a_gpu_without_any_torch_is_a_missing_torch_and_not_a_missing_gpu() -> None:
    bare = replace(CUDA, torch=None, versions={k: v for k, v in CUDA.versions.items() if k != "torch"})
    said = reason(offer(Stage.LOAD, accelerators=frozenset({"cuda"}), requires_dist=("torch>=2.4",)), bare)
    assert said == 'torch is not installed (pip install "torch>=2.4")'


def test_a_missing_or_wrong_requirement_comes_with_one_line_that_installs_all() -> None:
    needed = ("torch>=2.4", "trl>=1.14.2,<1.16", "flash-linear-attention>=0.3", 'pywin32; sys_platform == "win32"')
    assert reason(offer(Stage.LOAD, requires_dist=needed)) == (
        "trl is 1.16.0; needs <1.16,>=1.14.2, flash-linear-attention is not installed "
        '(pip install "trl>=1.14.2,<1.16" "flash-linear-attention>=0.3")'
    )


@pytest.mark.parametrize(
    ("marker", "linux", "windows", "mac"),
    [
        ('sys_platform == "win32"', False, True, False),
        ('platform_system == "Darwin"', False, False, True),
        ('os_name == "nt"', False, True, False),
        ('platform_machine == "arm64"', False, False, True),
        ('python_version < "3.0"', False, False, False),
    ],
)
def test_markers_are_read_for_the_machine_planned_for(marker: str, linux: bool, windows: bool, mac: bool) -> None:
    for machine, asked in ((CUDA, linux), (MIXED, windows), (MAC, mac)):
        assert bool(missing_requirement([f"nothing-such; {marker}"], machine)) == asked


def test_names_of_distributions_are_compared_as_pip_does() -> None:
    machine = replace(CPU, versions={"bits-and-bytes": "1.0", "pre": "2.0rc1"})
    assert missing_requirement(["Bits_And.Bytes>=1", "pre>=2.0rc1,<3"], machine) is None


def test_a_requirement_that_cannot_be_read_is_its_plugins_reason_and_nobody_elses() -> None:
    assert "cannot be read" in reason(offer(Stage.LOAD, requires_dist=("torch >>= 2",)))


def test_a_probe_that_raises_is_its_plugins_reason_and_nobody_elses() -> None:
    def probe(*_: Any) -> str | None:
        raise KeyError("trl")

    assert reason(offer(Stage.LOAD, probe=probe)) == "its probe failed: KeyError: 'trl'"


def test_a_probe_sees_machine_job_and_facts() -> None:
    seen: list[Any] = []
    asked = job(train={"method": "sft"})
    choose([plugin("a", offer(Stage.LOAD, probe=lambda *given: seen.append(given)))], job=asked)
    assert seen == [(CUDA, asked, FACTS)]


def test_a_named_plugin_that_is_unfit_is_an_error_with_its_reason() -> None:
    told = replace(LOAD, plugin="x", told='[use] load = "x"')
    with pytest.raises(PlanError) as caught:
        choose(
            [plugin("fit", offer(Stage.LOAD)), plugin("x", offer(Stage.LOAD, platforms=frozenset({"win32"})))], [told]
        )
    assert str(caught.value).startswith('[use] load = "x" cannot be followed: platform is linux; needs win32')


def test_a_named_plugin_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    told = replace(LOAD, plugin="unslot", told='[use] load = "unslot"')
    with pytest.raises(PlanError, match=r"there is no plugin unslot; install it, or take one of: fit"):
        choose([plugin("fit", offer(Stage.LOAD))], [told])


def test_a_named_plugin_that_is_broken_is_an_error_with_what_broke_it() -> None:
    told = replace(LOAD, plugin="x", told='[use] load = "x"')
    broken = replace(plugin("x"), status="broken", reason="imports torch at discovery")
    with pytest.raises(PlanError, match=r"plugin x is broken: imports torch at discovery"):
        choose([plugin("fit", offer(Stage.LOAD)), broken], [told])


def test_a_named_plugin_without_such_a_stage_is_an_error() -> None:
    told = replace(LOAD, plugin="x", told='[use] load = "x"')
    with pytest.raises(PlanError, match=r"it has no offer for the stage load"):
        choose([plugin("fit", offer(Stage.LOAD)), plugin("x", offer(Stage.TRAIN))], [told])


def test_a_named_plugin_wins_over_a_higher_priority_and_the_verdicts_say_why() -> None:
    told = replace(LOAD, plugin="slow", told='[use] load = "slow"')
    chosen, verdicts = choose(
        [plugin("fast", offer(Stage.LOAD, priority=50)), plugin("slow", offer(Stage.LOAD))], [told]
    )
    assert chosen == {"load": "slow"}
    assert verdicts["load", "slow"].reason == 'the job says [use] load = "slow"'
    assert verdicts["load", "fast"].reason == "the job names slow"


def test_a_named_backend_is_taken_and_an_unfit_one_is_an_error_with_its_reason_alone() -> None:
    told = replace(LOAD, backend="b", told='[use] backend = "b"')
    first = plugin("first", offer(Stage.LOAD, priority=50, backend="a"))
    chosen, verdicts = choose([first, plugin("second", offer(Stage.LOAD, backend="b"))], [told])
    assert chosen == {"load": "second"}
    assert verdicts["load", "first"].reason == "the job asks for the backend b"
    unfit = plugin("second", offer(Stage.LOAD, backend="b", accelerators=frozenset({"mps"})))
    with pytest.raises(PlanError) as caught:
        choose([first, unfit], [told])
    assert "second: needs an accelerator (mps)" in str(caught.value)
    assert "first" not in str(caught.value)


def test_a_backend_that_nobody_is_lists_those_there_are() -> None:
    told = replace(LOAD, backend="unslot", told='[use] backend = "unslot"')
    with pytest.raises(PlanError, match=r"no plugin is that backend; take one of: a"):
        choose([plugin("x", offer(Stage.LOAD, backend="a"))], [told])


def test_a_need_that_nothing_serves_gives_every_reason_and_the_broken_plugins() -> None:
    broken = replace(plugin("sick"), status="broken", reason="RuntimeError: no licence")
    with pytest.raises(PlanError) as caught:
        choose(
            [
                plugin("a", offer(Stage.LOAD, platforms=frozenset({"win32"}))),
                plugin("b", offer(Stage.LOAD, probe=lambda *_: "too small")),
                broken,
            ]
        )
    text = str(caught.value)
    assert text.startswith("nothing can load: a: platform is linux; needs win32; b: too small; ")
    assert "unusable plugins: sick (forge-train 1): RuntimeError: no licence" in text


def test_the_higher_priority_wins_and_ties_go_by_name() -> None:
    chosen, verdicts = choose(
        [
            plugin("c", offer(Stage.LOAD, priority=50)),
            plugin("a", offer(Stage.LOAD)),
            plugin("b", offer(Stage.LOAD, priority=50)),
        ]
    )
    assert chosen == {"load": "b"}
    assert verdicts["load", "b"].reason == "preferred among those that can"
    assert verdicts["load", "c"].reason == "able too; b is preferred"
    assert verdicts["load", "a"].reason == "able too; b is preferred"


def test_a_strangers_offer_for_any_machine_comes_after_forges_own_whatever_its_priority() -> None:
    own, stranger = plugin("own", offer(Stage.LOAD)), plugin("alien", offer(Stage.LOAD, priority=99), own=False)
    chosen, verdicts = choose([stranger, own])
    assert chosen == {"load": "own"}
    assert ("load", "alien") not in verdicts, "it never came into question"
    assert choose([stranger, own], every=True)[1]["load", "alien"].reason == (
        'not asked: forge\'s own plugins come first; [use] prefer = ["alien"] puts it before them'
    )


def test_a_strangers_offer_is_taken_if_named_or_if_it_alone_can() -> None:
    stranger = plugin("alien", offer(Stage.LOAD), own=False)
    own = plugin("own", offer(Stage.LOAD, priority=50))
    chosen, _ = choose([stranger, own], [replace(LOAD, plugin="alien", told='[use] load = "alien"')])
    assert chosen == {"load": "alien"}
    unfit = plugin("own", offer(Stage.LOAD, probe=lambda *_: "no"))
    chosen, verdicts = choose([stranger, unfit])
    assert chosen == {"load": "alien"}
    assert verdicts["load", "alien"].reason == "the only one that can"


PATCHED, PLAIN = frozenset({"hf-model", "unsloth-patched"}), frozenset({"hf-model"})
TRAIN = Need(Stage.TRAIN, frozenset({"sft"}), "train")
FAST = plugin("fast", offer(Stage.LOAD, priority=50, provides=PATCHED))
SLOW = plugin("slow", offer(Stage.LOAD, provides=PLAIN))


def test_a_loader_that_nothing_can_train_gives_way_and_the_verdict_says_why() -> None:
    trainer = plugin("sdpo", offer(Stage.TRAIN, depends=PLAIN, conflicts=frozenset({"unsloth-patched"})))
    chosen, verdicts = choose([FAST, SLOW, trainer], [LOAD, TRAIN])
    assert chosen == {"load": "slow", "train": "sdpo"}
    assert verdicts["load", "fast"].reason == "sdpo (train) conflicts with unsloth-patched"
    assert verdicts["load", "slow"].chosen


def test_the_faster_loader_stays_as_long_as_any_trainer_takes_its_model() -> None:
    picky = plugin("picky", offer(Stage.TRAIN, priority=90, conflicts=frozenset({"unsloth-patched"})))
    easy = plugin("easy", offer(Stage.TRAIN, depends=PLAIN))
    chosen, verdicts = choose([FAST, SLOW, picky, easy], [LOAD, TRAIN])
    assert chosen == {"load": "fast", "train": "easy"}
    assert verdicts["train", "picky"].reason == "picky (train) conflicts with unsloth-patched"


TOY = frozenset({"toy-model"})


@pytest.mark.parametrize(("stage", "word"), [(Stage.ADAPT, "dora"), (Stage.LOAD, "ddp")])
def test_a_backend_that_lacks_a_word_at_one_stage_says_so_at_the_others(stage: Stage, word: str) -> None:
    def made(at: Stage, **values: Any) -> Offer:
        served = {Stage.LOAD: "text", Stage.ADAPT: "lora", Stage.TRAIN: "sft"}[at]
        there = {"serves": frozenset({served}), "supports": frozenset({"dora", "ddp"} - {values.pop("lacks", "")})}
        return Offer(stage=at, impl=f"nowhere:{at}", **there, **values)

    def backend(traits: frozenset[str], lacks: str = "", **values: Any) -> list[Offer]:
        first, later = {"provides": traits}, {"depends": traits}
        return [
            made(at, lacks=lacks if at is stage else "", **(first if at is Stage.LOAD else later), **values)
            for at in (Stage.LOAD, Stage.ADAPT, Stage.TRAIN)
        ]

    toy = plugin("toy", *backend(TOY, word, platforms=frozenset({"linux"}), priority=9), own=False)
    own = plugin("own", *backend(PLAIN))
    needed = {Stage.LOAD: {"text"}, Stage.ADAPT: {"lora"}, Stage.TRAIN: {"sft"}}
    needed[stage] = needed[stage] | {word}
    wanted = [Need(at, frozenset(words), str(at)) for at, words in needed.items()]
    chosen, verdicts = choose([toy, own], wanted)
    assert set(chosen.values()) == {"own"}
    said = {"dora": "does lora, but not dora", "ddp": "does text, but not ddp"}[word]
    others = [verdicts[str(at), "toy"].reason for at in needed if at is not stage and (str(at), "toy") in verdicts]
    assert f"its own {stage} cannot: {said}" in others


def test_the_one_plugin_that_does_a_format_is_named_with_what_it_lacks() -> None:
    theirs = plugin("tar", Offer(stage=Stage.EXPORT, impl="nowhere:e", serves=frozenset({"tar/all"})), own=False)
    own = plugin("own", offer(Stage.EXPORT, serves=frozenset({"merged"})))
    need = Need(Stage.EXPORT, frozenset({"tar/all", "push"}), "export 1 (tar/all)")
    with pytest.raises(PlanError, match="nothing can serve export 1") as caught:
        choose([own, theirs], [need])
    assert str(caught.value.why).startswith("tar: does tar/all, but not push; own: ")


def test_who_does_something_else_is_left_out_where_others_would_do_it_but_for_a_reason() -> None:
    both = {"serves": frozenset({"sft"}), "supports": frozenset({"ddp"})}
    able = plugin("able", offer(Stage.TRAIN, probe=lambda *_: "too small", **both))
    near = plugin("near", offer(Stage.TRAIN, serves=frozenset({"sft"}), supports=frozenset()))
    other = plugin("other", offer(Stage.TRAIN, serves=frozenset({"dpo"}), supports=frozenset()))
    wanted = Need(Stage.TRAIN, frozenset({"sft", "ddp"}), "train")
    with pytest.raises(PlanError) as caught:
        choose([able, near, other], [wanted])
    assert caught.value.why == "able: too small; near: does sft, but not ddp"


def test_a_later_stage_depends_on_what_an_earlier_one_provides() -> None:
    tensors = plugin("tensors", offer(Stage.LOAD, priority=90, provides=frozenset({"gguf-model"})))
    trainer = plugin("t", offer(Stage.TRAIN, depends=PLAIN))
    chosen, verdicts = choose([tensors, SLOW, trainer], [LOAD, TRAIN])
    assert chosen == {"load": "slow", "train": "t"}
    assert verdicts["load", "tensors"].reason == "t (train) depends on hf-model"


def test_what_a_later_stage_provides_does_not_count_for_an_earlier_one() -> None:
    loader = plugin("l", offer(Stage.LOAD, conflicts=frozenset({"merged"})))
    trainer = plugin("t", offer(Stage.TRAIN, provides=frozenset({"merged"})))
    assert choose([loader, trainer], [LOAD, TRAIN])[0] == {"load": "l", "train": "t"}
    waiting = plugin("l", offer(Stage.LOAD, depends=frozenset({"merged"})))
    with pytest.raises(PlanError):
        choose([waiting, trainer], [LOAD, TRAIN])


def test_the_search_goes_back_over_several_stages() -> None:
    adapt = Need(Stage.ADAPT, frozenset({"lora"}), "adapt")
    a = plugin(
        "a", offer(Stage.LOAD, priority=9, provides=frozenset({"A"})), offer(Stage.ADAPT, depends=frozenset({"B"}))
    )
    b = plugin("b", offer(Stage.LOAD, provides=frozenset({"B"})))
    t = plugin("t", offer(Stage.TRAIN))
    assert choose([a, b, t], [LOAD, adapt, TRAIN])[0] == {"load": "b", "adapt": "a", "train": "t"}


def test_stages_that_do_not_fit_together_are_an_error_that_names_the_contradiction() -> None:
    trainer = plugin("sdpo", offer(Stage.TRAIN, conflicts=frozenset({"unsloth-patched"})))
    with pytest.raises(PlanError, match=r"do not fit together: sdpo \(train\) conflicts with unsloth-patched"):
        choose([FAST, trainer], [LOAD, TRAIN])


def test_traits_of_trained_weights_count_for_an_export() -> None:
    export = Need(Stage.EXPORT, frozenset({"merged"}), "export 1 (merged)")
    plugins = [plugin("e", offer(Stage.EXPORT, depends=PLAIN))]
    assert choose(plugins, [export], traits=PLAIN)[0] == {"export 1 (merged)": "e"}
    with pytest.raises(PlanError, match="depends on hf-model"):
        choose(plugins, [export])


def test_a_plugin_that_failed_before_is_left_out_with_that_reason() -> None:
    chosen, verdicts = choose([FAST, SLOW], excluded={"fast": "failed in attempt 1: cannot import unsloth"})
    assert chosen == {"load": "slow"}
    assert verdicts["load", "fast"].reason == "failed in attempt 1: cannot import unsloth"


def test_every_plugin_with_an_offer_has_exactly_one_verdict_and_the_chosen_comes_first() -> None:
    two = plugin("two", offer(Stage.LOAD, platforms=frozenset({"win32"})), offer(Stage.LOAD, priority=1))
    found = select([LOAD], Catalogue((FAST, SLOW, two)), CUDA, job(), FACTS)[1]
    assert [(verdict.plugin, verdict.chosen) for verdict in found] == [("fast", True), ("slow", False), ("two", False)]


@pytest.mark.parametrize(
    ("tables", "stage", "words"),
    [
        ({}, Stage.LOAD, {"text"}),
        ({"model": {"id": "m", "load_in_4bit": True}}, Stage.LOAD, {"text", "4bit"}),
        ({"model": {"id": "m", "load_in_8bit": True}}, Stage.LOAD, {"text", "8bit"}),
        ({"model": {"id": "m", "trust_remote_code": True}}, Stage.LOAD, {"text", "remote-code"}),
        ({"adapter": {"type": "none"}}, Stage.LOAD, {"text", "full"}),
        ({"adapter": {"type": "none"}}, Stage.ADAPT, {"none"}),
        ({"adapter": {"use_dora": True}}, Stage.ADAPT, {"lora", "dora"}),
        ({"data": {"path": "d", "streaming": True}}, Stage.COLLATE, {"text", "tokens", "streaming"}),
        ({"data": {"path": "d", "packing": True}}, Stage.COLLATE, {"text", "tokens", "packing"}),
        ({"train": {"method": "mlx/sft"}}, Stage.TRAIN, {"mlx/sft"}),
        ({"export": [{"format": "merged", "push_to_hub": "a/b"}]}, Stage.EXPORT, {"merged", "push"}),
    ],
)
def test_what_a_job_asks_for_becomes_what_an_offer_must_support(
    tables: dict[str, Any], stage: Stage, words: set[str]
) -> None:
    assert [need.words for need in needs(job(**tables), FACTS) if need.stage is stage] == [words]


def test_a_model_that_sees_needs_offers_for_vision() -> None:
    found = needs(job(), replace(FACTS, task="vision"))
    assert {need.stage for need in found if "vision" in need.words} == {Stage.COLLATE, Stage.LOAD, Stage.TRAIN}


def test_a_backend_concerns_loading_and_adapting_and_a_named_plugin_is_stronger() -> None:
    found = {need.stage: need for need in needs(job(use={"backend": "b", "load": "x"}), FACTS)}
    assert (found[Stage.LOAD].plugin, found[Stage.LOAD].backend) == ("x", None)
    assert (found[Stage.ADAPT].plugin, found[Stage.ADAPT].backend) == (None, "b")
    assert (found[Stage.TRAIN].plugin, found[Stage.TRAIN].backend, found[Stage.TRAIN].told) == (None, None, None)


def test_each_export_is_a_need_of_its_own() -> None:
    asked = job(export=[{"format": "adapter"}, {"format": "merged"}])
    labels = [need.label for need in needs(asked, FACTS) if need.stage is Stage.EXPORT]
    assert labels == ["export 1 (adapter)", "export 2 (merged)"]
    assert not [need for need in needs(job(), FACTS) if need.stage is Stage.EXPORT]


def test_the_machines_of_these_tests_are_what_they_are_taken_for() -> None:
    assert CUDA.usable_kinds == {"cuda"}
    assert MIXED.torch == TorchBuild("2.13.0+cpu")
    assert Path(job().folder) == Path()

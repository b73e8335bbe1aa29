"""Which plugin is taken where several can serve: the user's wish, what a plugin is made for, its priority."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forge.api import Offer, Stage
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.discovery.keys import PluginKeys
from forge.errors import JobError, PlanError
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.planning import fitting
from forge.planning.fitting import clash
from forge.planning.planner import export_plan, make_plan
from forge.text.plan import describe
from support.planning import BASE, FACTS

CPU, MAC = PRESETS["linux-cpu"], PRESETS["macos"]
HF = frozenset({"hf-model"})
WORDS = {
    Stage.COLLATE: {"supports": frozenset({"text", "tokens", "pairs"})},
    Stage.LOAD: {"supports": frozenset({"text", "full"})},
    Stage.ADAPT: {"serves": frozenset({"lora", "none"})},
    Stage.TRAIN: {"serves": frozenset({"sft"})},
    Stage.GENERATE: {"supports": frozenset({"text", "adapter", "base", "full"})},
    Stage.EVALUATE: {"supports": frozenset({"text"})},
    Stage.EXPORT: {"serves": frozenset({"merged", "adapter"})},
}
KEYS = "from forge.api import Table\nclass Mine(Table):\n    shiny: bool = True\nclass Own(Table):\n    dull: int = 1\n"


def offer(stage: Stage, **values: Any) -> Offer:
    return Offer(stage=stage, impl=f"nowhere:{stage}", **{**WORDS[stage], **values})


def plugin(name: str, *offers: Offer, own: bool = False) -> Plugin:
    return Plugin(name=name, distribution=OWN if own else f"forge-{name}", version="1", offers=offers)


OWNS = plugin(
    "own",
    offer(Stage.COLLATE),
    offer(Stage.LOAD, provides=HF, backend="own"),
    offer(Stage.ADAPT, depends=HF, backend="own"),
    offer(Stage.TRAIN, depends=HF),
    offer(Stage.GENERATE, depends=HF),
    offer(Stage.EVALUATE),
    offer(Stage.EXPORT, depends=HF),
    own=True,
)


def plan(*others: Plugin, text: str = "", machine: Any = CPU, config: str | None = None, every: bool = False) -> Any:
    found = Catalogue((OWNS, *others))
    file = parse(BASE + text, "job.toml", Path("/jobs"), PluginKeys(found, machine))
    return make_plan(replace(file, config=config), found, machine, FACTS, every=every)


def loader(name: str, **values: Any) -> Plugin:
    return plugin(name, offer(Stage.LOAD, provides=HF, **values))


def test_a_plugin_that_is_made_for_the_machine_wins_by_its_priority_and_says_how_to_do_without() -> None:
    mlx = loader("mlx", platforms=frozenset({"darwin"}), accelerators=frozenset({"mps"}), priority=50)
    there = plan(mlx, machine=MAC)
    assert there.step(Stage.LOAD).plugin == "mlx"
    assert "mlx  (made for darwin and mps: priority 50 against 0 of own; FORGE_PLUGINS=-mlx goes" in describe(there)
    elsewhere = plan(mlx)
    assert elsewhere.step(Stage.LOAD).plugin == "own"
    assert "mlx: platform is linux; needs darwin" in describe(elsewhere)
    assert plan(mlx).step(Stage.TRAIN).plugin == "own"


def test_a_stranger_that_is_taken_since_forges_own_does_not_fit_is_praised_for_that() -> None:
    mine = plugin(
        "mine",
        offer(Stage.LOAD, provides=frozenset({"m"}), backend="mine"),
        offer(Stage.ADAPT, depends=frozenset({"m"}), backend="mine"),
        offer(Stage.TRAIN, depends=frozenset({"m"})),
    )
    found = describe(plan(mine, text='[use]\nload = "mine"\n'))
    assert "adapt     mine  (own goes before it, and does not fit what serves the other stages; FORGE_P" in found


def test_without_a_higher_priority_or_a_machine_of_its_own_a_stranger_comes_after_and_leaves_no_trace() -> None:
    alone = plan()
    for other in (
        loader("any", priority=99),
        loader("tie", platforms=frozenset({"linux"})),
        loader("mac", platforms=frozenset({"darwin"})),
        loader("lacks", requires_dist=("forge-surely-not-there",)),
    ):
        assert plan(other) == alone
        assert other.name in describe(plan(other, every=True))


def test_among_strangers_the_higher_priority_wins_and_ties_go_by_name() -> None:
    linux = frozenset({"linux"})
    a, b, c = (loader(name, platforms=linux, priority=value) for name, value in (("a", 20), ("b", 30), ("c", 30)))
    assert plan(a, c, b).step(Stage.LOAD).plugin == "b"


def test_what_the_job_prefers_is_taken_in_its_order_wherever_it_can_serve() -> None:
    quick = plugin("quick", offer(Stage.LOAD, provides=HF, backend="fast"), offer(Stage.EXPORT, probe=lambda *_: "no"))
    other = loader("other")
    text = '[use]\nprefer = ["missing", "fast", "other"]\n[[export]]\nformat = "merged"\n'
    found = plan(quick, other, text=text)
    assert [step.plugin for step in found.steps] == ["own", "quick", "own", "own", "own"]
    assert found.notes == (
        "[use] prefer names missing, and there is no such plugin or backend here; see `forge plugins`",
        "[use] prefer names other, and nothing of it was taken",
    )
    assert 'load      quick  ([use] prefer = ["missing", "fast", "other"])' in describe(found)
    (slip, *_) = plan(quick, text='[use]\nprefer = ["quik"]\n').notes
    assert slip == "[use] prefer names quik, and there is no such plugin or backend here; did you mean quick?"
    assert plan(quick, other, text='[use]\nprefer = ["other"]\n').step(Stage.LOAD).plugin == "other"
    refused = plan(quick, text='[use]\nprefer = ["quick"]\n[[export]]\nformat = "merged"\n')
    assert "quick: no" in describe(refused)


def test_what_was_preferred_and_failed_to_import_gives_way() -> None:
    quick = loader("quick")
    found = Catalogue((OWNS, quick))
    file = parse(f'{BASE}[use]\nprefer = ["quick"]\n', "job.toml", Path("/jobs"), PluginKeys(found))
    again = make_plan(file, found, CPU, FACTS, excluded={"quick": "failed in attempt 1: no licence"})
    assert again.step(Stage.LOAD).plugin == "own"
    assert "quick: failed in attempt 1: no licence" in describe(again)


def test_the_file_of_what_a_user_always_prefers_is_named_where_it_acts() -> None:
    found = plan(loader("quick"), text='[use]\nprefer = ["quick"]\n', config="/home/me/config.toml")
    assert found.notes == ("/home/me/config.toml prefers quick: taken for load",)


def test_a_probe_of_a_stranger_is_asked_only_where_it_would_be_taken() -> None:
    def never(*_: Any) -> str | None:
        raise AssertionError("it was asked")

    assert plan(loader("last", probe=never)).step(Stage.LOAD).plugin == "own"
    first = plan(loader("first", probe=never), text='[use]\nprefer = ["first"]\n')
    assert first.step(Stage.LOAD).plugin == "own"
    assert "first: its probe failed: AssertionError: it was asked" in describe(first)


def test_a_trait_that_a_stage_takes_away_is_gone_for_those_that_follow() -> None:
    odd = plugin("odd", offer(Stage.ADAPT, depends=HF, removes=HF, provides=frozenset({"odd-model"})))
    trainer = plugin("odd-trainer", offer(Stage.TRAIN, depends=frozenset({"odd-model"})))
    use = '[use]\nadapt = "odd"\n'
    assert plan(odd, trainer, text=use).step(Stage.TRAIN).plugin == "odd-trainer"
    with pytest.raises(PlanError, match=r"own \(train\) depends on hf-model"):
        plan(odd, text=use)
    with pytest.raises(PlanError, match=r"own \(generate\) depends on hf-model"):
        plan(odd, trainer, text=f"{use}[eval]\n")


def test_what_is_known_of_a_plugin_that_would_fit_is_said_where_the_stages_do_not() -> None:
    load = offer(Stage.LOAD, provides=frozenset({"toy-model"}), requires_dist=("toytorch>=2",))
    toy = plugin("toy", load, offer(Stage.TRAIN, depends=frozenset({"toy-model"})))
    with pytest.raises(PlanError) as caught:
        plan(toy, text='[use]\ntrain = "toy"\n')
    assert str(caught.value) == (
        "the stages do not fit together: toy (train) depends on toy-model; toy could load, but toytorch is not "
        'installed (pip install "toytorch>=2"); mend that cause'
    )


def test_two_chosen_offers_that_want_a_variable_otherwise_are_refused() -> None:
    one = plugin("one", offer(Stage.LOAD, provides=HF, environment={"A": "1"}))
    two = plugin("two", offer(Stage.TRAIN, depends=HF, environment={"A": "2"}))
    with pytest.raises(PlanError, match="A is to be 1 and 2"):
        plan(one, two, text='[use]\nload = "one"\ntrain = "two"\n')


def test_what_an_unchosen_stranger_wants_of_workers_is_not_heeded() -> None:
    greedy = loader("greedy", sheds=("PATH",), patches=frozenset({"json"}), environment={"A": "1"}, preload=("x",))
    assert plan(greedy) == plan()


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "preference_keys.py").write_text(KEYS)
    monkeypatch.syspath_prepend(tmp_path)
    return "preference_keys"


def test_keys_and_defaults_come_from_the_chosen_offer_alone(keys: str) -> None:
    duo = plugin("duo", offer(Stage.EXPORT, depends=HF, options=f"{keys}:Mine"))
    export = '[[export]]\nformat = "merged"\n'
    assert plan(duo, text=export).job == plan(text=export).job
    with pytest.raises(JobError, match="unknown key; it may be a key of duo: name it in \\[use\\] export"):
        plan(duo, text=f"{export}shiny = true\n")
    for use in ('export = "duo"', 'prefer = ["duo"]'):
        mine = plan(duo, text=f"[use]\n{use}\n{export}")
        assert mine.job["export"][0]["shiny"] is True


def test_keys_are_read_again_where_another_plugin_serves_than_was_expected(keys: str) -> None:
    """Which plugin is taken, its probe decides; until then its keys are expected to count."""
    mine = offer(Stage.EXPORT, depends=HF, options=f"{keys}:Mine", probe=lambda *_: "not today")
    export = '[use]\nprefer = ["duo"]\n[[export]]\nformat = "merged"\n'
    found = plan(plugin("duo", mine), text=export)
    assert found.steps[-1].plugin == "own"
    assert "shiny" not in found.job["export"][0]
    with pytest.raises(JobError, match=r"export.0.shiny: unknown key; it may be a key of duo"):
        plan(plugin("duo", mine), text=f"{export}shiny = true\n")


def test_the_rows_are_those_that_the_taken_trainer_asks_for() -> None:
    asking = offer(Stage.TRAIN, depends=HF, asks={Stage.COLLATE: frozenset({"pairs"})})
    text = '[use]\nprefer = ["mine"]\n'
    assert plan(plugin("mine", asking), text=text).step(Stage.COLLATE).words == ("pairs", "text")
    refusing = replace(asking, probe=lambda *_: "not today")
    assert plan(plugin("mine", refusing), text=text).step(Stage.COLLATE).words == ("text", "tokens")


def test_an_export_with_the_keys_of_another_plugin_is_refused(keys: str) -> None:
    found = Catalogue((OWNS, plugin("duo", offer(Stage.EXPORT, depends=HF, options=f"{keys}:Mine"))))
    text = f'{BASE}[use]\nexport = "duo"\n[[export]]\nformat = "merged"\n'
    job = parse(text, "job.toml", Path("/jobs"), PluginKeys(found)).job
    assert export_plan(job, 0, found, CPU, FACTS, HF, "job.toml").steps[0].plugin == "duo"
    free = job.model_copy(update={"use": type(job.use)()})
    with pytest.raises(PlanError, match="own would, and the job has shiny, which is a key of another plugin's"):
        export_plan(free, 0, found, CPU, FACTS, HF, "job.toml")


def test_three_hundred_plugins_are_chosen_from_at_once_also_where_nothing_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []
    monkeypatch.setattr(fitting, "clash", lambda taken, *rest: looked.append(len(taken)) or clash(taken, *rest))
    stages = (Stage.COLLATE, Stage.LOAD, Stage.ADAPT, Stage.TRAIN, Stage.GENERATE, Stage.EVALUATE)
    crowd = [
        plugin(
            f"p{n}",
            *(offer(s, platforms=frozenset({"linux"}), priority=n, provides=frozenset({f"t{n}"})) for s in stages),
        )
        for n in range(300)
    ]
    picky = plugin("picky", offer(Stage.EXPORT, depends=frozenset({"t7", "t8"}), serves=frozenset({"picky/a"})))
    never = plugin("never", offer(Stage.EXPORT, depends=frozenset({"nowhere"}), serves=frozenset({"never/a"})))
    assert plan(*crowd, text="[eval]\n").step(Stage.LOAD).plugin == "p299"
    found = plan(*crowd, picky, text='[eval]\n[[export]]\nformat = "picky/a"\n')
    assert {"p7", "p8"} <= {step.plugin for step in found.steps}
    with pytest.raises(PlanError, match="never \\(export\\) depends on nowhere"):
        plan(*crowd, never, text='[eval]\n[[export]]\nformat = "never/a"\n')
    assert len(looked) < 10 * 300 * len(stages), "a product of the offers is 300 to the power of the stages"

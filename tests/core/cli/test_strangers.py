"""What a person sees of strangers' plugins: nothing of those that are not used, and what is known of the others."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.discovery.catalogue import OWN
from forge.discovery.discover import discover
from support.crowd import HEAD, install_broken, install_crowd, install_good, install_unreadable, offering
from support.sites import Site

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder
    from support.projects import Project

JOB = '[model]\nid = "org/none"\n[data]\npath = "rows.jsonl"\n[[export]]\nformat = "merged"\n'


def write(site: Site, more: str = "") -> None:
    (site.folder / "job.toml").write_text(f"{JOB}{more}", encoding="utf-8")


def without_machine(text: str, site: Site) -> Any:
    """Return a plan without what is installed and free on this machine, and without its folder."""
    plan = json.loads(re.sub(r"of [\d.]+ GiB free", "of what is free", text.replace(str(site.folder), "HERE")))
    free = {"versions": {}, "disk": 0, "memory": 0, "available": 0}
    return {**plan, "machine": {**plan["machine"], **free}}


@pytest.fixture
def both(tmp_path: Path) -> tuple[Site, Site]:
    """Two sites: one with nothing but forge, and one for a crowd."""
    return Site(tmp_path / "plain"), Site(tmp_path / "crowd")


def test_plan_and_schema_are_the_same_with_a_crowd_of_strangers_and_without(both: tuple[Site, Site]) -> None:
    plain, crowd = both
    install_crowd(crowd, 20, 30)
    install_unreadable(crowd)
    for site in both:
        write(site)
    listed = crowd.forge("plugins", "--json", FORGE_PLUGIN_SECONDS="1")
    assert listed.returncode == 0, listed.stderr
    status = [plugin["status"] for plugin in json.loads(listed.stdout) if plugin["name"].startswith(("good-", "bad-"))]
    assert (status.count("ok"), status.count("broken")) == (20, 30)
    assert listed_without(listed.stdout) == listed_without(plain.forge("plugins", "--json").stdout)
    first, second = (site.forge("plan", "job.toml", "--json") for site in both)
    assert second.stderr == ""
    assert without_machine(first.stdout, plain) == without_machine(second.stdout, crowd)
    for command in (["plan", "job.toml"], ["schema"]):
        first, second = (site.forge(*command) for site in both)
        assert (first.returncode, second.returncode, second.stderr) == (0, 0, "")
        assert second.stdout.replace(str(crowd.folder), "HERE") == first.stdout.replace(str(plain.folder), "HERE")


def test_the_lock_of_a_run_is_the_same_with_a_crowd_of_strangers_and_without(
    project: Project, both: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, crowd = both
    install_crowd(crowd, 10, 10)
    project.write(export=[{"format": "merged"}])
    monkeypatch.setenv("FORGE_CACHE", crowd.environment()["FORGE_CACHE"])
    monkeypatch.setenv("FORGE_PLUGIN_SECONDS", "1")
    locks = [lock_of(project.prepare()[1])]
    monkeypatch.syspath_prepend(crowd.folder)
    locks.append(lock_of(project.prepare()[1]))
    assert discover({}).find("good-0")
    assert locks[0] == locks[1]


def lock_of(run: RunFolder) -> str:
    return (run.path / "job.lock.toml").read_text(encoding="utf-8").replace(run.path.name, "RUN")


def listed_without(text: str) -> list[Any]:
    """Return what ``forge plugins --json`` says of forge's own."""
    return [plugin for plugin in json.loads(text) if plugin["distribution"] == OWN and plugin["status"] == "ok"]


def without_times(value: Any) -> Any:
    """Return JSON data without what a clock tells."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if "second" not in key and key != "time"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


QUICKSTART = Path(__file__).parents[3] / "examples" / "quickstart"


def furnish_quickstart(project: Project) -> list[str]:
    """Make a project that of the quick start, with its small model and few rows, and return how it is run."""
    for name in ("job.toml", "metrics.py"):
        shutil.copy(QUICKSTART / name, project.folder / name)
    (project.folder / "data").mkdir()
    for name, count in (("train", 16), ("eval", 4)):
        rows = [
            {
                "messages": [
                    {"role": "user", "content": f"Give the country card of {name} {number}."},
                    {"role": "assistant", "content": json.dumps({"capital": f"C{number}", "region": "R"})},
                ]
            }
            for number in range(count)
        ]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (project.folder / "data" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    small = ["train.max_steps=3", "train.eval_steps=3", "train.per_device_train_batch_size=2", "eval.max_new_tokens=4"]
    return ["job.toml", *(part for each in small for part in ("--set", each))]


@pytest.mark.slow
def test_three_hundred_plugins_cost_a_plan_and_a_run_next_to_nothing(project: Project, tmp_path: Path) -> None:
    """The quick start beside 300 plugins of which 50 are broken: the same output, lock, losses and answers."""
    crowd = Site(tmp_path / "crowd")
    install_crowd(crowd, 250, 50)
    job = furnish_quickstart(project)
    environ = crowd.environment(FORGE_PLUGIN_SECONDS="2")
    listed = json.loads(crowd.forge("plugins", "--json", FORGE_PLUGIN_SECONDS="2").stdout)
    status = [plugin["status"] for plugin in listed if plugin["name"].startswith(("good-", "bad-"))]
    assert (status.count("ok"), status.count("broken")) == (250, 50)
    times: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(5):
        for with_them, variables in ((False, {}), (True, environ)):
            start = time.monotonic()
            project.forge("plan", *job, **variables)
            times[with_them].append(time.monotonic() - start)
    assert min(times[True]) - min(times[False]) < 0.6, times  # 0.1 s on a machine that does nothing else
    found = []
    for variables in ({}, environ):
        said = {
            "plan": re.sub(r"[\d.]+ GiB free", "what is free", project.forge("plan", *job, **variables)),
            "schema": project.forge("schema", **variables),
            "plugins": listed_without(project.forge("plugins", "--json", **variables)),
        }
        project.forge("run", *job, **variables)
        run = project.newest()
        plan = run.plan()
        events = [event for event in map(json.loads, run.events.read_text().splitlines()) if event["kind"] == "step"]
        found.append(
            said
            | {
                "lock": lock_of(run),
                "steps": plan.steps,
                "environment": plan.environment,
                "shed": plan.shed,
                "refused": plan.refused,
                "losses": [event["loss"] for event in events],
                "evaluation": without_times(json.loads((run.path / "evaluation.json").read_text())),
                "exported": sorted(path.name for path in (run.path / "exports" / "1-merged").iterdir()),
            }
        )
    assert found[0] == found[1]


def test_the_users_own_file_says_what_to_prefer_and_the_plan_says_that_it_did(site: Site, tmp_path: Path) -> None:
    text = offering(
        'yield Offer(stage=Stage.EXPORT, impl="a:b", serves=frozenset({"merged"}), options="quick_mod:Keys")'
    )
    text += "from forge.api import Table\nclass Keys(Table):\n    level: int = 6\n"
    site.install("forge-quick", {"quick_mod": text}, "[forge_v1]\nquick = quick_mod\n")
    write(site, "level = 9\n")
    config = tmp_path / "config.toml"
    config.write_text('[use]\nprefer = ["quick"]\n')
    done = site.forge("plan", "job.toml", FORGE_CONFIG=str(config))
    assert f"note: {config} prefers quick: taken for export 1 (merged)" in done.stdout
    plan = json.loads(site.forge("plan", "job.toml", "--json", FORGE_CONFIG=str(config)).stdout)
    assert plan["job"]["use"]["prefer"] == ["quick"]
    refused = site.forge("plan", "job.toml")
    assert (
        "job.toml:7: export.0.level: unknown key; it may be a key of quick: name it in [use] export" in refused.stderr
    )
    write(site, "[use]\nprefer = []\n")  # the job has the last word
    assert "merged) huggingface" in site.forge("plan", "job.toml", FORGE_CONFIG=str(config)).stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[use]\nprefre = ["x"]\n', 'config.toml:2: use.prefre: unknown key; it holds [use] prefer = ["…"]'),
        ('[used]\nprefer = ["x"]\n', "config.toml:1: used: unknown key"),
        ('[use]\nprefer = "x"\n', "config.toml:2: use.prefer: must be a list of names"),
        ("[use\n", "config.toml:1: not TOML"),
        ("use = 3\n", "config.toml:1: use: unknown key"),
    ],
)
def test_a_mistake_in_the_users_own_file_is_told(site: Site, tmp_path: Path, text: str, said: str) -> None:
    write(site)
    (tmp_path / "config.toml").write_text(text)
    done = site.forge("plan", "job.toml", FORGE_CONFIG=str(tmp_path / "config.toml"))
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize(
    ("word", "variables", "said"),
    [
        ("sick/tar", {}, "plugin sick cannot be used: it is broken: RuntimeError: no licence"),
        ("fine/own", {"FORGE_PLUGINS": "-fine"}, "plugin fine cannot be used: it is disabled: switched off by FORGE_"),
        ("twin/tar", {}, "plugin twin cannot be used: it is duplicate: two plugins have this name: forge-a 1.0 and"),
        ("nobody/tar", {}, "there is no plugin nobody: install it (often `pip install forge-nobody`)"),
        ("fien/own", {}, "there is no plugin fien; did you mean fine?"),
        ("fine/onw", {}, 'did you mean "fine/own"?'),
    ],
)
def test_what_is_known_of_the_plugin_of_a_word_is_said(
    site: Site, word: str, variables: dict[str, str], said: str
) -> None:
    install_good(site, "fine")
    install_broken(site, "sick", "raises")
    for name in "ab":
        site.install(f"forge-{name}", {}, "[forge_v1]\ntwin = nowhere\n")
    write(site, f'[[export]]\nformat = "{word}"\n')
    done = site.forge("plan", "job.toml", **variables)
    assert done.returncode == 2
    assert f'no installed plugin knows format "{word}"; {said}' in done.stderr


def test_the_schema_has_the_keys_of_the_strangers_that_are_named(site: Site) -> None:
    install_good(site, "fine")
    install_broken(site, "sick", "raises")
    properties = json.loads(site.forge("schema", "fine").stdout)["$defs"]["ExportTable"]["properties"]
    assert "shiny" in properties
    done = site.forge("schema", "sick")
    assert done.stderr == (
        "error: the keys of plugin sick are unknown: it is broken: RuntimeError: no licence; see `forge plugins`\n"
    )


def test_a_plugin_that_prints_does_not_print_into_json(site: Site) -> None:
    text = HEAD.replace("from", "print('imported')\nfrom", 1) + (
        "def probe(*_):\n    print('asked')\n\n@hookimpl\ndef forge_offers():\n    print('offers')\n"
        '    yield Offer(stage=Stage.EXPORT, impl="a:b", serves=frozenset({"merged"}), probe=probe)\n'
    )
    site.install("forge-loud", {"loud_mod": text}, "[forge_v1]\nloud = loud_mod\n")
    write(site, '[use]\nprefer = ["loud"]\n')
    for command in (["plugins", "--json"], ["plan", "job.toml", "--json"], ["schema", "loud"], ["doctor", "--json"]):
        done = site.forge(*command)
        assert json.loads(done.stdout), done.stderr
        assert done.stderr == ""
    assert json.loads(site.forge("plan", "job.toml", "--json").stdout)["steps"][-1]["plugin"] == "loud"


TRAINER = (
    offering(
        """for stage, more in (
        (Stage.LOAD, dict(supports=frozenset({"text"}), provides=frozenset({"swift-model"}), backend="swift")),
        (Stage.ADAPT, dict(serves=frozenset({"lora"}), depends=frozenset({"swift-model"}), backend="swift")),
        (Stage.TRAIN, dict(serves=frozenset({"sft"}), depends=frozenset({"swift-model"}), options="MODULE:Keys",
                           provides=frozenset({"hf-model"}))),
    ):
        yield Offer(stage=stage, impl="a:b", platforms=frozenset({"linux"}), priority=100, **more)"""
    )
    + """
from typing import Literal
from forge.api import Mistake, Table
class Keys(Table):
    max_steps: int = 3
    lr_scheduler_type: Literal["linear"] = "linear"
    def contradictions(self):
        if self.max_steps == 7:
            yield Mistake("7 contradicts itself; take another number", ("max_steps",))
"""
)
"""A backend that is made for Linux and knows two keys."""


@pytest.mark.parametrize(
    ("more", "taken", "said"),
    [
        ("max_steps = 9", True, ""),
        ('optim = "adafactor"', False, "it has no key optim for [train]"),
        ('lr_scheduler_type = "cosine"', False, '[train] lr_scheduler_type must be "linear", not the string "cosine"'),
    ],
)
@pytest.mark.parametrize("prefer", [False, True])
def test_a_backend_made_for_the_machine_serves_the_jobs_whose_keys_it_takes_and_no_other(
    site: Site, more: str, taken: bool, said: str, prefer: bool
) -> None:
    site.install(
        "forge-swift", {"swift_mod": TRAINER.replace("MODULE", "swift_mod")}, "[forge_v1]\nswift = swift_mod\n"
    )
    write(site, f"[train]\n{more}\n[use]\nprefer = {['swift'] if prefer else []}\n")
    done = site.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu")
    assert done.returncode == 0, done.stderr
    for stage in ("load", "adapt", "train"):
        assert re.search(rf"^{stage} +{'swift' if taken else 'huggingface'} ", done.stdout, re.MULTILINE), done.stdout
    if not taken:
        assert f"swift: {said}" in done.stdout
        assert f"swift: its own train cannot: {said}" in done.stdout


def test_what_contradicts_itself_is_a_mistake_and_no_reason_against_a_backend(site: Site) -> None:
    site.install(
        "forge-swift", {"swift_mod": TRAINER.replace("MODULE", "swift_mod")}, "[forge_v1]\nswift = swift_mod\n"
    )
    write(site, "[train]\nmax_steps = 7\n")
    done = site.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu")
    assert "job.toml:8: train.max_steps: 7 contradicts itself; take another number" in done.stderr


def test_a_backend_whose_keys_cannot_be_read_here_costs_no_job(site: Site) -> None:
    here = "import os\nassert 'SWIFT' not in os.environ, 'no keys'\nfrom swift_mod import Keys\n"
    modules = {"swift_mod": TRAINER.replace("MODULE", "swift_keys"), "swift_keys": here}
    site.install("forge-swift", modules, "[forge_v1]\nswift = swift_mod\n")
    write(site)
    assert re.search("^train +swift", site.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu").stdout, re.MULTILINE)
    done = site.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu", SWIFT="1")
    assert re.search("^train +huggingface", done.stdout, re.MULTILINE), done.stderr
    assert "swift: its own train cannot: " in done.stdout
    assert "no keys" in done.stdout


def test_a_key_that_no_backend_takes_and_one_of_a_named_backend_are_mistakes(site: Site) -> None:
    site.install(
        "forge-swift", {"swift_mod": TRAINER.replace("MODULE", "swift_mod")}, "[forge_v1]\nswift = swift_mod\n"
    )
    write(site, "[train]\nlerning_rate = 1.0\n")
    done = site.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu")
    assert "train.lerning_rate: unknown key; did you mean learning_rate?" in done.stderr
    write(site, '[train]\noptim = "adafactor"\n[use]\ntrain = "swift"\n')
    done = site.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu")
    assert "train.optim: unknown key; it may be a key of huggingface or mlx: name it in [use] train" in done.stderr
    write(site, '[train]\noptim = "adafactor"\n[use]\nbackend = "swift"\n')
    done = site.forge("plan", "job.toml", FORGE_MACHINE="linux-cpu")
    assert "swift could train, but it has no key optim for [train]" in done.stderr


def test_a_plugin_in_one_file_is_shown_and_adds_its_keys_to_the_schema(site: Site) -> None:
    text = offering('yield Offer(stage=Stage.EXPORT, impl="a:b", serves=frozenset({"mine/tar"}), options="mine:Keys")')
    text += "from forge.api import Table\nclass Keys(Table):\n    level: int = 6\n"
    (site.folder / "mine.py").write_text(text)
    (site.folder / "sick.py").write_text("raise RuntimeError('no licence')\n")
    shown = json.loads(site.forge("plugins", "./mine.py", "--json").stdout)
    assert (shown["name"], shown["status"], shown["offers"][0]["serves"]) == ("mine", "ok", ["mine/tar"])
    assert "broken\nRuntimeError: no licence" in site.forge("plugins", "./sick.py").stdout
    assert "level" in json.loads(site.forge("schema", "./mine.py").stdout)["$defs"]["ExportTable"]["properties"]
    for words in (("plugins", "./none.py"), ("schema", "./none.py")):
        done = site.forge(*words)
        assert (done.returncode, "./none.py cannot be used as a plugin: there is no file" in done.stderr) == (2, True)


CHECKS = f"""{HEAD}
import os, sys
from forge.api import Check, Finding

@hookimpl
def forge_checks():
    for name in ("fine", "tells", "exits", "ends", "odd", "grave", "gone"):
        yield Check(name, "Looks.", f"looks_mod:{{name}}")

def fine(machine): print("looking"); return ()
def tells(machine): yield Finding("warning", f"no key on {{machine.platform}}", "buy one")
def exits(machine): sys.exit(3)
def ends(machine): os._exit(4)
def odd(machine): return ["a text"]
def grave(machine): yield Finding("grave", "no")
"""


def test_doctor_tells_what_the_checks_of_a_plugin_find_and_which_of_them_fail(site: Site) -> None:
    site.install("forge-looks", {"looks_mod": CHECKS}, "[forge_v1]\nlooks = looks_mod\n")
    done = site.forge("doctor", "--json", FORGE_MACHINE="linux-cpu")
    mine = next(each for each in json.loads(done.stdout)["plugins"] if each["name"] == "looks")
    told = {each["check"]: f"{each['severity']}: {each['message']}" for each in mine["checks"]}
    failed = "error: plugin looks (forge-looks 1.0): its check"
    assert told == {
        "fine": "note: fine: ok",
        "tells": "warning: no key on linux",
        "exits": f"{failed} exits failed: SystemExit: 3",
        "ends": f"{failed} ends failed: it ended the process that asked it, with code 4",
        "odd": f"{failed} odd failed: it yields str where forge.api.Finding is due",
        "grave": f"{failed} grave failed: ValueError: severity: input should be 'error', 'warning' or 'note', "
        "not 'grave'",
        "gone": f"{failed} gone failed: ImportError: looks_mod has no gone",
    }
    text = site.forge("doctor", FORGE_MACHINE="linux-cpu").stdout
    assert "looks: ok\n" in text
    assert "  warning: no key on linux; buy one\n" in text
    assert "  check fine        Looks." in site.forge("plugins", "looks").stdout

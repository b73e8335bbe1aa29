"""The command: fast, light, honest about mistakes, and the same as its own table of commands says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import tomli

import forge
from forge import cli
from forge.api import API, Stage
from forge.cli.commands.init import job_text
from forge.cli.scaffold import scaffold
from forge.discovery.keys import PluginKeys
from forge.disk.events import EventLog
from forge.disk.folder import RunFolder
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan
from support.sites import FORGE

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue
    from support.sites import Site

HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "unsloth"}
JOB = '[model]\nid = "org/name"\n[data]\npath = "d.jsonl"\n'


class Command:
    """Runs ``forge`` in this process, which is ten times as fast as in one of its own."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys

    def __call__(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        with self.monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("FORGE_")]:
                patch.delenv(name)
            for name, value in {"HF_HUB_OFFLINE": "1", "FORGE_PLUGINS": "huggingface", **variables}.items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["forge", *arguments])
            with pytest.raises(SystemExit) as caught:
                cli.main()
        shown = self.capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return subprocess.CompletedProcess(list(arguments), caught.value.code, shown.out, shown.err)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    (tmp_path / "job.toml").write_text(JOB)
    return Command(tmp_path, monkeypatch, capsys)


OPENED = """
import json, sys
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
sys.argv = ["forge", "--help"]
from forge.cli import main
try:
    main()
finally:
    sys.stdout.flush()
    print("\\n" + json.dumps(opened))
"""


SEARCHES = """
import gc, sys
searches = []
gc.callbacks.append(lambda phase, told: searches.append(told["generation"]) if phase == "start" else None)
sys.argv[0] = "forge"
from forge.cli import main
del searches[:]
try:
    main()
finally:
    sys.stdout.flush()
    print(f"\\n{len(searches)} {gc.isenabled()}")
"""


def modules(site: Site, *arguments: str) -> set[str]:
    """Return the modules that a command loads."""
    (site.folder / "job.toml").write_text(JOB)
    return site.modules(*arguments)


def loaded(site: Site, *arguments: str) -> set[str]:
    """Return the top-level modules that a command loads."""
    return {name.partition(".")[0] for name in modules(site, *arguments)}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["plugins"],
        ["plugins", "huggingface"],
        ["schema"],
        ["plan", "job.toml"],
        ["plan", "job.toml", "--json"],
        ["init", "new.toml"],
        ["doctor"],
        ["runs"],
        ["run", "--help"],
    ],
)
def test_what_only_looks_loads_nothing_heavy(site: Site, arguments: list[str]) -> None:
    assert not HEAVY & loaded(site, *arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["plugins"]])
def test_help_and_the_list_of_plugins_load_neither_pydantic_nor_rich(site: Site, arguments: list[str]) -> None:
    assert not {"pydantic", "rich", "numpy", "packaging"} & loaded(site, *arguments)


@pytest.mark.parametrize(
    ("arguments", "most"), [(["--help"], 115), (["plugins"], 285), (["schema"], 395), (["plan", "job.toml"], 480)]
)
def test_what_only_looks_loads_few_modules(site: Site, arguments: list[str], most: int) -> None:
    # A third more than on Python 3.11 with pydantic 2.12. Importing torch alone loads 1,500; `benchmarks/startup.py`
    # tells the times.
    assert len(modules(site, *arguments)) < most


def test_what_only_looks_searches_next_to_nothing_for_garbage(site: Site) -> None:
    searched = site.python(SEARCHES, "schema").splitlines()[-1].split()
    assert int(searched[0]) < 20  # 800, were it searched as often as python does
    assert searched[1] == "True"  # what goes on for long needs it


def test_help_opens_no_file_but_its_modules(site: Site) -> None:
    opened = site.python(OPENED).splitlines()[-1]
    others = [path for path in json.loads(opened) if not path.endswith((".py", ".so")) and "__pycache__" not in path]
    assert others == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_table_of_commands_is_what_the_modules_are(name: str) -> None:
    assert import_module(f"forge.cli.commands.{name.replace('-', '_')}").command.name == name
    found = cli.cli.get_command(None, name)  # type: ignore[arg-type]  # click needs no context for it
    assert found is not None
    assert found.get_short_help_str(limit=200) == cli.COMMANDS[name]
    assert found.help
    assert all(parameter.help for parameter in found.params if isinstance(parameter, click.Option))


def test_every_module_of_a_command_is_in_the_table() -> None:
    modules = {path.stem for path in (Path(cli.__file__).parent / "commands").glob("*.py")} - {"__init__"}
    assert modules == {name.replace("-", "_") for name in cli.COMMANDS}


def test_help_lists_every_command_with_its_sentence(command: Command) -> None:
    shown = command("--help").stdout
    for name, text in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", shown, re.MULTILINE)


def test_the_version_is_the_distributions(command: Command) -> None:
    assert command("--version").stdout.strip() == forge.__version__


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plna"], "No such command 'plna'. Did you mean 'plan'?"),
        (["zzz"], "No such command 'zzz'."),
        (["plan"], "Missing argument 'JOB'"),
        (["plan", "--jsn", "job.toml"], "--jsn"),
        (["plan", "nothing.toml"], "error: there is no job file nothing.toml; did you mean job.toml?"),
        (
            ["plan", "job.toml", "--set", "model.idd=x"],
            "job.toml: model.idd: unknown key (from --set); did you mean id?",
        ),
        (["plugins", "hugingface"], "error: there is no plugin hugingface: there are "),
        (["plugins", "a", "b"], "Got unexpected extra argument (b)"),
        (["plugins", "new"], "Missing argument 'NAME'"),
        (["plugins", "new", "A_b"], "error: A_b is no name for a plugin; begin with a lower-case"),
        (["plugins", "new", "train"], "error: train is taken: forge-train or forge_train is installed already"),
        (["plugins", "new", "gguf"], "error: gguf is taken: forge-gguf or forge_gguf is installed already"),
        (["runs", "nothing"], "error: there is no run nothing"),
        (["resume", "nothing"], "error: there is no run nothing"),
        (["export", "nothing"], "error: there is no run nothing"),
        (["init", "nowhere/job.toml"], "error: there is no folder nowhere; make it first"),
    ],
)
def test_a_mistake_in_the_command_is_one_message_and_the_exit_code_2(
    command: Command, arguments: list[str], words: str
) -> None:
    done = command(*arguments)
    assert words in done.stderr
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_forge_debug_adds_the_traceback_and_changes_nothing_else(command: Command) -> None:
    quiet, loud = (command("plan", "nothing.toml", **env) for env in ({"FORGE_DEBUG": "0"}, {"FORGE_DEBUG": "1"}))
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr
    assert loud.stderr.endswith(quiet.stderr)
    assert quiet.returncode == loud.returncode == 2


def test_what_nobody_foresaw_is_a_sentence_and_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FORGE_DEBUG", raising=False)
    monkeypatch.setattr(sys, "argv", ["forge", "plugins"])
    monkeypatch.setattr("forge.discovery.discover.discover", lambda **_: 1 / 0)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("forge itself failed: ZeroDivisionError: division by zero; FORGE_DEBUG=1")


def test_what_really_runs_refuses_a_pretended_machine(command: Command) -> None:
    done = command("run", "job.toml", FORGE_MACHINE="linux-cuda")
    assert done.returncode == 2
    assert "FORGE_MACHINE is set: it describes another machine, for plans only; unset it" in done.stderr
    assert not (command.folder / "runs").exists()


@pytest.mark.parametrize("machine", PRESETS)
def test_a_plan_for_another_machine_names_it_and_says_why(command: Command, machine: str) -> None:
    done = command("plan", "job.toml", FORGE_MACHINE=machine)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"machine   {PRESETS[machine].platform} {PRESETS[machine].arch}, ")
    assert "model     org/name: architecture unknown" in lines[1]
    for stage in ("collate", "load", "adapt", "train"):
        assert f"{stage:<10}huggingface  (the only one that can)" in lines
    assert any(re.match(r'model\.dtype = "\w+": .+', line) for line in lines)
    assert any(line.startswith("note: not in the cache") for line in lines)


def test_a_plan_as_json_is_the_plan(command: Command) -> None:
    plan = json.loads(command("plan", "job.toml", "--json", FORGE_MACHINE="macos").stdout)
    assert plan["machine"]["platform"] == "darwin"
    assert [step["stage"] for step in plan["steps"]] == ["collate", "load", "adapt", "train"]


@pytest.mark.parametrize("machine", PRESETS)
def test_the_job_that_init_writes_is_valid_and_can_be_planned_on_its_machine(
    catalogue: Catalogue, machine: str
) -> None:
    text = job_text(PRESETS[machine], 'a "strange" \\ folder', "rows.jsonl")
    file = parse(text, "job.toml", Path(), PluginKeys(catalogue))
    assert file.job.model.id == 'a "strange" \\ folder'
    facts = ModelFacts(id="m", source="unknown", task="text")
    plan = make_plan(file, catalogue, PRESETS[machine], facts)
    assert plan.decided("train.eval_strategy") == "epoch"
    rows, steps = (
        plan.decided(f"train.{name}") for name in ("per_device_train_batch_size", "gradient_accumulation_steps")
    )
    assert rows * steps == 16


def test_every_line_that_init_comments_out_is_valid_too(catalogue: Catalogue) -> None:
    text = job_text(PRESETS["linux-cuda"], "m", "rows.jsonl")
    whole = re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)
    assert whole.count("\n# ") < text.count("\n# ") - 3
    job = parse(whole, "job.toml", Path(), PluginKeys(catalogue)).job
    assert (job.model.load_in_4bit, job.export[0].push_to_hub) == (True, "user/name")


def test_init_writes_a_file_once_and_never_over_another_unless_forced(command: Command) -> None:
    (command.folder / "job.toml").unlink()
    assert command("init", "--model", "org/first").returncode == 0
    text = (command.folder / "job.toml").read_text()
    assert 'id = "org/first"' in text
    again = command("init", "--model", "org/second")
    assert (again.returncode, (command.folder / "job.toml").read_text()) == (2, text)
    assert "error: job.toml exists; choose another name, or --force" in again.stderr
    assert command("init", "--model", "org/second", "--force").returncode == 0
    assert 'id = "org/second"' in (command.folder / "job.toml").read_text()


def test_doctor_says_what_works_and_the_line_that_mends_the_rest(command: Command, tmp_path: Path) -> None:
    report = json.loads(command("doctor", "--json", FORGE_MACHINE="linux-cuda").stdout)
    assert report["machine"]["platform"] == "linux"
    good = next(line for line in report["plugins"] if line["name"] == "huggingface")
    assert good["works"] == ["collate", "load", "adapt", "train", "generate", "evaluate", "export"]
    assert (good["status"], good["reasons"], good["mend"]) == ("ok", [], None)
    wishes = {line["key"]: line["mend"] for line in good["values"]}
    assert wishes['[train] optim = "schedule_free_radam"'] == 'pip install "schedulefree>=1.4"'
    bare = PRESETS["linux-cuda"].to_json()
    bare["versions"] = {name: bare["versions"][name] for name in ("torch", "transformers", "accelerate", "datasets")}
    (tmp_path / "bare.json").write_text(json.dumps(bare))
    shown = command("doctor", "--json", FORGE_MACHINE=str(tmp_path / "bare.json"))
    ill = next(line for line in json.loads(shown.stdout)["plugins"] if line["name"] == "huggingface")
    assert ill["works"] == ["collate", "load", "evaluate"]
    assert ill["reasons"][0] == "adapt: peft is not installed"
    assert ill["mend"] == 'pip install "forge-train[huggingface]"'
    assert (
        'mend it: pip install "forge-train[huggingface]"'
        in command("doctor", FORGE_MACHINE=str(tmp_path / "bare.json")).stdout
    )


def test_doctor_names_the_commands_of_plugins(command: Command) -> None:
    plugins = json.loads(command("doctor", "--json", FORGE_PLUGINS="").stdout)["plugins"]
    report = {line["name"]: line for line in plugins}
    assert (report["report"]["status"], report["report"]["works"]) == ("ok", ["forge report"])


def test_doctor_tells_what_a_value_needs_once(command: Command) -> None:
    said = command("doctor", FORGE_MACHINE="linux-cpu", FORGE_PLUGINS="").stdout
    assert said.count("torchdistx is not installed") == 1
    assert re.search(
        r"^sdpo: works here\n  train: yes\n .*:\n    \d\d that are told of huggingface above$", said, re.MULTILINE
    )


def test_doctor_lists_the_machines_that_can_be_planned_for(command: Command) -> None:
    lines = command("doctor", "--machines").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(PRESETS)
    assert list(json.loads(command("doctor", "--machines", "--json").stdout)) == list(PRESETS)
    assert command("doctor", "--machines", "--measure").returncode == 2


def test_doctor_mends_by_extras_that_there_are(command: Command) -> None:
    said = command("doctor", FORGE_MACHINE="linux-h100", FORGE_PLUGINS="").stdout
    extras = set(re.findall(r"forge-train\[([\w-]+)\]", said))
    assert "unsloth" in extras
    assert extras <= set(metadata("forge-train").get_all("Provides-Extra") or ())


def test_doctor_names_a_broken_plugin_with_its_reason(site: Site) -> None:
    site.install("forge-sick", {"sick": "raise RuntimeError('no licence')"}, f"[{API}]\nsick = sick\n")
    done = site.forge("doctor")
    assert done.returncode == 0
    assert "sick: broken\n  RuntimeError: no licence" in done.stdout


def test_plugins_lists_each_with_distribution_version_and_stages_or_reason(site: Site) -> None:
    site.install("forge-sick", {"sick": "import torch"}, f"[{API}]\nsick = sick\n", "3.1")
    shown = site.forge("plugins").stdout
    assert re.search(
        r"^huggingface +forge-train \S+ +collate, load, adapt, train, generate, evaluate, export$", shown, re.MULTILINE
    )
    assert re.search(r"^sick +forge-sick 3\.1 +broken: imports torch at discovery", shown, re.MULTILINE)
    off = site.forge("plugins", FORGE_PLUGINS="-sick").stdout
    assert re.search(r"^sick .*disabled: switched off by FORGE_PLUGINS$", off, re.MULTILINE)
    found = {plugin["name"]: plugin for plugin in json.loads(site.forge("plugins", "--json").stdout)}
    assert found["sick"]["status"] == "broken"
    stages = [offer["stage"] for offer in found["huggingface"]["offers"]]
    assert list(dict.fromkeys(stages)) == [*map(str, Stage)]
    methods = {
        word for offer in found["huggingface"]["offers"] if offer["stage"] == "train" for word in offer["serves"]
    }
    assert {"sft", "dpo", "kto", "orpo", "cpo", "reward", "grpo", "rloo", "distill"} <= methods


def test_one_plugin_is_shown_with_its_offers(command: Command) -> None:
    shown = command("plugins", "huggingface").stdout
    assert shown.startswith("huggingface: forge-train ")
    assert "  train    forge_huggingface.training.train:train\n    serves       kto\n" in shown
    assert json.loads(command("plugins", "huggingface", "--json").stdout)["offers"][1]["backend"] == "huggingface"


def test_a_new_plugin_passes_its_own_test(site: Site, tmp_path: Path) -> None:
    done = site.forge("plugins", "new", "my-tool")
    assert done.returncode == 0
    root = site.folder / "forge-my-tool"
    assert {str(root.parent / line) for line in done.stdout.split()} == {
        str(path) for path in root.rglob("*") if path.is_file()
    }
    project = tomli.loads((root / "pyproject.toml").read_text())["project"]
    points = project["entry-points"][API]
    assert points == {"my-tool": "forge_my_tool"}
    lines = "\n".join(f"{name} = {module}" for name, module in points.items())
    modules = {f"forge_my_tool.{path.stem}": path.read_text() for path in (root / "forge_my_tool").glob("*.py")}
    site.install(project["name"], modules, f"[{API}]\n{lines}\n", project["version"])
    test = root / "tests" / "test_plugin.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(root), str(test)]
    ran = subprocess.run(command, capture_output=True, text=True, env=site.environment(), cwd=tmp_path, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 passed" in ran.stdout
    assert "my-tool" in site.forge("plugins").stdout


def test_a_new_plugin_is_never_written_over_an_old_one(tmp_path: Path) -> None:
    scaffold("tool", tmp_path)
    with pytest.raises(forge.errors.UsageError, match="exists; choose another name"):
        scaffold("tool", tmp_path)


def test_runs_says_that_there_are_none_and_how_to_begin(command: Command) -> None:
    assert command("runs").stdout.strip() == "no runs in runs; begin one with `forge run JOB`"
    assert json.loads(command("runs", "--json").stdout) == []


def test_runs_lists_a_run_and_shows_one(command: Command, catalogue: Catalogue) -> None:
    from forge.api import Custom

    file = parse(JOB, "tale.toml", command.folder, PluginKeys(catalogue))
    folder = RunFolder.create(command.folder / "runs", file)
    facts = ModelFacts(id="org/name", source="unknown", task="text")
    folder.add_plan(make_plan(file, catalogue, PRESETS["linux-cpu"], facts))
    log = EventLog(folder.events)
    log.append(Custom("training", more={"steps": 10, "from": 0}))
    log.append(Custom("step", more={"step": 4, "of": 10, "loss": 1.5}))
    log.append(Custom("failed", more={"error": {"type": "ForgeError", "what": "it broke"}}))
    log.close()
    line = json.loads(command("runs", "--json").stdout)[0]
    assert line["run"] == f"tale/{folder.path.name}"
    assert (line["state"], line["step"], line["of"], line["loss"]) == ("failed", 4, 10, 1.5)
    assert re.search(r"^tale/\S+ +failed +step 4/10  loss 1\.5000  it broke$", command("runs").stdout, re.MULTILINE)
    shown = command("runs", "tale").stdout
    assert "error       it broke" in shown
    assert "load      huggingface" in shown
    assert command("runs", "--json", FORGE_RUNS=str(command.folder / "elsewhere")).stdout.strip() == "[]"


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [found for item in value.values() for found in references(item)]
    return [found for item in value for found in references(item)] if isinstance(value, list) else []


def test_the_schema_describes_the_core_and_the_installed_plugins(command: Command) -> None:
    schema = json.loads(command("schema").stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (schema["type"], schema["required"]) == ("object", ["model", "data"])
    tables = {"model", "adapter", "data", "train", "eval", "generation", "launch", "export", "use", "plugins"}
    assert set(schema["properties"]) == {"name", *tables}
    for reference in references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"], reference
    train = schema["$defs"]["TrainTable"]
    assert {"method", "learning_rate", "per_device_train_batch_size", "seed"} <= set(train["properties"])
    assert "options" not in train["properties"]
    assert "max_length" not in train["properties"]
    assert "with" in schema["$defs"]["UseTable"]["properties"]
    for name in ("ModelTable", "AdapterTable", "DataTable", "TrainTable", "ExportTable", "UseTable", "Source"):
        table = schema["$defs"][name]
        assert table["additionalProperties"] is False, name
        for key, value in table["properties"].items():
            assert value.get("description") or "$ref" in value, f"{name}.{key} has no description"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script_that_completes(site: Site, shell: str) -> None:
    done = site.forge(_FORGE_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert "_FORGE_COMPLETE" in done.stdout


def test_completion_knows_commands_and_options(site: Site) -> None:
    found = site.forge(_FORGE_COMPLETE="bash_complete", COMP_WORDS="forge pl", COMP_CWORD="1").stdout.split()
    assert found == ["plain,plan", "plain,plugins"]
    found = site.forge(_FORGE_COMPLETE="bash_complete", COMP_WORDS="forge run --dr", COMP_CWORD="2").stdout.split()
    assert found == ["plain,--dry-run"]


def test_a_reader_that_goes_away_is_no_error(site: Site) -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE); "
    )
    code += "p.stdout.read(1); p.stdout.close(); print(p.stderr.read().decode())"
    assert "Traceback" not in site.python(code, FORGE, "schema")

"""Plugins that are one file beside the job: they work as installed ones do, and the run keeps what it was made with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import tomli_w

from forge.api import JobError, RunError
from forge.api.code import Code, known_code
from forge.discovery.catalogue import OWN, Catalogue, Plugin
from forge.discovery.discover import discover
from forge.disk.folder import RunFolder
from forge.job.read import change_of
from forge.machine.probe import probe
from forge.parent.resume import resume
from forge.planning.opening import open_job
from forge.testing import light, run_job

if TYPE_CHECKING:
    from forge.api import Event
    from support.sites import Site

PLUGIN = '''\
"""All that a plugin can bring, in one file."""

# /// script
# dependencies = ["forge-train>=0.1", "pydantic>=2"]
# ///

from forge.api import Decision, Exported, Extension, Function, Offer, Stage, Table, hookimpl


class Keys(Table):
    word: str = "weights"


class Config(Table):
    colour: str = "blue"


def cannot(machine, job, facts):
    return "no red here" if job.plugins.get("mine", {}).get("colour") == "red" else None


@hookimpl
def forge_offers():
    yield Offer(
        stage=Stage.EXPORT,
        impl="mine:export",
        serves=frozenset({"mine/list"}),
        options="mine:Keys",
        config="mine:Config",
        probe=cannot,
    )
    yield Extension(impl="mine")
    yield Function(name="mine/rows", impl="mine:rows")


@hookimpl
def forge_event(event, run):
    if event.kind in {"trained", "exported"}:
        with (run.folder / "seen.txt").open("a") as file:
            print(event.kind, file=file)


def rows(path):
    for number in range(int(path)):
        said = [("user", f"say {number}"), ("assistant", str(number))]
        yield {"messages": [{"role": role, "content": content} for role, content in said]}


def export(run, export, out):
    (out / "list.txt").write_text(f"{export.options['word']} {run.config['colour']}")
    return Exported(files=("list.txt",))
'''
USE = '[use]\nplugins = ["./mine.py"]\n'
OBSERVING = PLUGIN.replace('    yield Extension(impl="mine")\n', "").replace("mine", "sees")
PAGE = Path(__file__).parents[3] / "docs" / "plugins" / "one-file.md"
LIGHT = Plugin(name="light", distribution=OWN, version="0", offers=tuple(light.offers()))
JOB = USE + '[[export]]\nformat = "mine/list"\nword = "all"\n[plugins.mine]\ncolour = "green"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plugin in a file, and a cache of its own."""
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORGE_PLUGINS", raising=False)
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path


def forge(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "forge", *arguments]
    environment = {**os.environ, "FORGE_CONFIG": "", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def refused(folder: Path, text: str, **options: Any) -> str:
    path = folder / "bad.toml"
    path.write_text('[model]\nid = "m"\n[data]\npath = "d"\n' + text)
    with pytest.raises(JobError) as caught:
        open_job(path, probe(), **options)
    return str(caught.value)


def test_a_file_works_as_an_installed_plugin_does(folder: Path) -> None:
    ran = run_job(JOB + '[data]\npath = "mine/rows:6"\n', folder)
    assert (ran.exports[0] / "list.txt").read_text() == "all green"
    assert (ran.folder / "seen.txt").read_text().split() == ["trained", "exported"], (
        "its observer acts: the job names it"
    )
    digest = Code("mine", folder, PLUGIN.encode()).digest
    assert ran.plan.code == {"mine": digest}
    assert ran.plan.plugins["mine"] == f"local code {digest[:12]}"
    note = f"local code: this job runs ./mine.py (sha256 {digest[:12]}…), as [use] plugins says"
    assert note in ran.plan.notes
    lock = tomli.loads((ran.folder / "job.lock.toml").read_text())
    assert lock["use"]["versions"] == {"mine": f"sha256:{digest}"}
    assert lock["use"]["plugins"] == [str(ran.folder / "plugins" / "mine.py")]
    assert (ran.folder / "plugins" / "mine.py").read_bytes() == PLUGIN.encode()


@pytest.mark.slow
def test_the_command_says_so_in_the_plan_and_mistakes_in_its_keys_have_their_lines(folder: Path) -> None:
    run_job("", folder)  # which makes the model and the rows
    (folder / "job.toml").write_text('[model]\nid = "model"\n[data]\npath = "rows.jsonl"\n' + JOB)
    said = forge(folder, "plan", "job.toml")
    assert "note: local code: this job runs ./mine.py" in said.stdout, said.stderr
    wrong = forge(folder, "plan", "job.toml", "--set", "plugins.mine.color=1", "--set", "export.0.wrod=2")
    assert "plugins.mine.color" in wrong.stderr
    assert "did you mean word" in wrong.stderr
    red = forge(folder, "plan", "job.toml", "--set", "plugins.mine.colour=red")
    assert "no red here" in red.stderr, "its probe is asked"


def test_a_run_goes_on_and_is_exported_by_its_copy_when_the_file_is_gone_or_another(folder: Path) -> None:
    ran = run_job(JOB, folder)
    (folder / "mine.py").unlink()
    shutil.rmtree(ran.folder / "exports")
    (ran.folder / "trained.json").unlink()
    events: list[Event] = []
    run = RunFolder(ran.folder)
    resume(run, with_light(run), probe(), events.append)
    assert (ran.exports[0] / "list.txt").read_text() == "all green"
    assert not [event for event in events if event.kind == "warning"]
    (folder / "mine.py").write_text(PLUGIN.replace("weights", "others"))
    shutil.rmtree(ran.folder / "exports")
    resume(run, with_light(run), probe(), events.append)
    warned = [str(event.values["message"]) for event in events if event.kind == "warning"]
    assert [text for text in warned if "mine.py has changed since this run began" in text]
    assert (ran.exports[0] / "list.txt").read_text() == "all green"


def with_light(run: RunFolder) -> Catalogue:
    return Catalogue((*discover(code=run.code()).plugins, LIGHT))


def test_a_copy_that_was_changed_or_is_gone_is_refused(folder: Path) -> None:
    ran = run_job(JOB, folder)
    copy = ran.folder / "plugins" / "mine.py"
    copy.write_text(PLUGIN + "\nimport os\n")
    with pytest.raises(RunError, match="is not the code that this run began with"):
        RunFolder(ran.folder).code()
    assert "is not the code that this run began with" in forge(folder, "export", str(ran.folder)).stderr
    copy.unlink()
    with pytest.raises(RunError, match=r"mine.py cannot be read"):
        RunFolder(ran.folder).code()


@pytest.mark.slow
def test_a_lock_runs_its_copy_and_refuses_another_file(folder: Path) -> None:
    ran = run_job(JOB, folder)
    lock = ran.folder / "job.lock.toml"
    file, catalogue = open_job(lock, probe(), beside=[LIGHT])
    assert catalogue.code[0].path == ran.folder / "plugins" / "mine.py"
    assert file.job.plugins == {"mine": {"colour": "green"}}
    text = lock.read_text().replace(str(ran.folder / "plugins"), str(folder))
    (folder / "mine.py").write_text(PLUGIN.replace("weights", "others"))
    (folder / "other.toml").write_text(text)
    with pytest.raises(
        JobError, match=r"the lock was made with another mine.py.*use.versions|use.versions.*another mine"
    ):
        open_job(folder / "other.toml", probe(), beside=[LIGHT])


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.py", None, "there is no file"),
        ("folder.py", "/", "cannot be read: Is a directory"),
        ("mine.txt", "", "is no Python file"),
        ("my-plugin.py", "", "gives no name for a plugin; use letters"),
        ("json.py", "", "there is a module json already, which it would hide; rename the file"),
        ("torch.py", "", "there is a module torch already"),
        ("huggingface.py", "", "an installed plugin is called huggingface; rename the file"),
        ("latin.py", b"# \xe9", "is not UTF-8 (byte 2)"),
        ("wrong.py", "x = 1\ny = (\n", "SyntaxError: '(' was never closed (wrong.py, line 2)"),
        ("raises.py", "x = 1\n\nraise ValueError('no')\n", "ValueError: no (raises.py, line 3)"),
        ("ends.py", "import os\nos._exit(3)\n", "it ended the process that asked it, with code 3"),
        ("heavy.py", "import torch\n", "imports torch at discovery"),
        ("empty.py", "x = 1\n", "offers nothing"),
        ("sees.py", OBSERVING, 'has a forge_event, and offers no Extension(impl="sees")'),
        ("later.py", '# /// script\n# dependencies = ["forge-train>=99"]\n# ///\n', "it needs forge >=99"),
        (
            "needs.py",
            '# /// script\n# dependencies = ["no-such-package-x"]\n# ///\n',
            'pip install "no-such-package-x"',
        ),
        ("damaged.py", "# /// script\n# dependencies = 3\n# ///\n", "dependencies is no list of texts"),
    ],
)
def test_what_speaks_against_a_file_is_said_with_its_line_in_the_job(
    folder: Path, name: str, content: str | bytes | None, said: str
) -> None:
    path = folder / name
    if content == "/":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    told = refused(folder, f'[use]\nplugins = ["./{name}"]\n')
    assert said in told
    assert "bad.toml:6: use.plugins.0: " in told


@pytest.mark.parametrize("kind", ["Command", "Target"])
def test_a_file_that_brings_what_no_job_is_read_for_is_refused(folder: Path, kind: str) -> None:
    head = f"from forge.api import {kind}, hookimpl\n@hookimpl\ndef forge_{kind.lower()}s():\n"
    (folder / "orders.py").write_text(f"{head}    yield {kind}('x', 'X.', 'a:b')\n")
    said = f"brings {kind.lower()}s, which only an installed plugin can"
    assert said in refused(folder, '[use]\nplugins = ["./orders.py"]\n')


def test_a_file_that_is_named_twice_or_is_no_text_is_refused(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "mine.py").write_text(PLUGIN)
    assert "mine; rename the file" in refused(folder, '[use]\nplugins = ["./mine.py", "sub/mine.py"]\n')
    assert "must be" in refused(folder, "[use]\nplugins = [3]\n")
    assert "use.plugins" in refused(folder, '[use]\nplugins = "./mine.py"\n')


def test_a_file_that_forge_plugins_switches_off_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGE_PLUGINS", "")
    assert "mine.py cannot be used as a plugin: switched off by FORGE_PLUGINS" in refused(folder, USE)


def test_nothing_else_of_its_folder_can_be_imported(folder: Path) -> None:
    (folder / "helper.py").write_text("")
    (folder / "mine.py").write_text("import helper\n" + PLUGIN)
    assert "No module named 'helper'" in refused(folder, USE)


def test_the_parent_does_not_run_the_file_and_leaves_nothing_beside_it(folder: Path) -> None:
    (folder / "mine.py").write_text("import os\nopen('pid.txt', 'a').write(f'{os.getpid()} ')\n" + PLUGIN)
    before = Path.cwd()
    os.chdir(folder)
    try:
        path = folder / "job.toml"
        path.write_text('[model]\nid = "m"\n[data]\npath = "d"\n' + USE)
        open_job(path, probe())
    finally:
        os.chdir(before)
    assert str(os.getpid()) not in (folder / "pid.txt").read_text().split()
    assert not (folder / "__pycache__").exists()


def test_another_file_of_the_same_name_is_another_plugin(folder: Path) -> None:
    path = folder / "job.toml"
    path.write_text('[model]\nid = "m"\n[data]\npath = "d"\n' + JOB)
    open_job(path, probe())
    (folder / "mine.py").write_text(PLUGIN.replace('word: str = "weights"', "word: int = 3"))
    told = refused(folder, JOB)
    assert "export.0.word" in told
    code = known_code("mine")
    assert code is not None
    assert b"int = 3" in code.content


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (USE, "use.plugins.0"),
        ('[use]\n"\\u0070lugins" = ["./mine.py"]\n', "use.plugins.0"),
        ('[eval]\nmetrics = ["./mine.py:rows"]\n', "eval.metrics.0"),
        ('[eval]\nmetrics = ["exact-match", "subprocess:getoutput"]\n', "eval.metrics.1"),
        ("[adapter]\n[train]\n", ""),
    ],
)
def test_where_code_is_not_allowed_a_job_that_brings_some_is_refused_and_not_imported(
    folder: Path, text: str, key: str
) -> None:
    (folder / "mine.py").write_text("open('/proc/self/cwd/ran.txt', 'w').close()\n" + PLUGIN)
    if not key:
        path = folder / "fine.toml"
        path.write_text('[model]\nid = "m"\n[data]\npath = "d"\n' + text)
        assert open_job(path, probe(), allow_code=False)
        return
    told = refused(folder, text, allow_code=False)
    assert f"{key}: it would run code that comes with the job, and that is not allowed here" in told
    assert not Path("ran.txt").exists()


def test_code_of_the_model_and_of_changes_is_refused_too(folder: Path) -> None:
    told = refused(folder, "", allow_code=False, changes=[change_of("model.trust_remote_code=true")])
    assert "model.trust_remote_code: it would run code" in told
    told = refused(folder, "", allow_code=False, changes=[change_of('model.attn_implementation="org/kernels"')])
    assert "model.attn_implementation: it would run code" in told
    told = refused(folder, "", allow_code=False, changes=[change_of('use.plugins=["./mine.py"]')])
    assert "use.plugins.0: it would run code" in told


def test_versions_of_installed_plugins_stand_in_the_lock_and_changes_are_told(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    text = PLUGIN.replace("mine", "noted")
    site.install("forge-noted", {"noted": text}, "[forge_v1]\nnoted = noted\n", "1.0")
    ran = run_job('[use]\nwith = ["noted"]\n[[export]]\nformat = "noted/list"\n', folder)
    assert ran.plan.plugins["noted"] == "forge-noted 1.0"
    lock = ran.folder / "job.lock.toml"
    assert tomli.loads(lock.read_text())["use"]["versions"] == {"noted": "forge-noted 1.0"}
    info = site.folder / "forge_noted-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: forge-noted\nVersion: 1.1\n")
    was = "plugin noted was forge-noted 1.0 and is forge-noted 1.1: the results may differ"
    shutil.rmtree(ran.folder / "exports")
    events: list[Event] = []
    run = RunFolder(ran.folder)
    resume(run, with_light(run), probe(), events.append)
    assert [str(event.values["message"]) for event in events if event.kind == "warning"] == [was]
    said = forge(folder, "export", str(ran.folder), "--json")
    assert was in said.stdout, said.stderr
    note = (
        "the lock was made with plugin noted (forge-noted 1.0), and here it is forge-noted 1.1: the results may differ"
    )
    head = '[model]\nid = "model"\n[data]\npath = "rows.jsonl"\n'
    tables = f'{head}[use.versions]\nnoted = "forge-noted 1.0"\ngone = "x 1"\n'
    (folder / "locked.toml").write_text(tables)
    notes = json.loads(forge(folder, "plan", "locked.toml", "--json").stdout)["notes"]
    assert note in notes
    assert "the lock was made with plugin gone (x 1), which is not here" in notes


def test_a_run_goes_on_without_an_observer_that_is_gone_and_says_so(
    site: Site, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("PYTHONPATH", str(site.folder))
    site.install("forge-noted", {"noted": PLUGIN.replace("mine", "noted")}, "[forge_v1]\nnoted = noted\n", "1.0")
    ran = run_job('[use]\nwith = ["noted"]\n', folder)
    assert (ran.folder / "seen.txt").exists()
    for path in (ran.folder / "seen.txt", ran.folder / "trained.json"):
        path.unlink()
    shutil.rmtree(site.folder / "forge_noted-1.0.dist-info")
    events: list[Event] = []
    run = RunFolder(ran.folder)
    resume(run, with_light(run), probe(), events.append)
    warned = [str(event.values["message"]) for event in events if event.kind == "warning"]
    assert warned == ["plugin noted (forge-noted 1.0) is not installed any more"]
    assert run.trained() is not None
    assert not (ran.folder / "seen.txt").exists()


def test_the_page_has_an_example_that_works(folder: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    code, job = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)[0] for kind in ("python", "toml job"))
    (folder / "my_plugin.py").write_text(code)
    tables = tomli.loads(job)
    del tables["model"], tables["data"]
    ran = run_job(tomli_w.dumps(tables), folder)
    told = (ran.exports[0] / "files.txt").read_text()
    assert told == "green: adapter_config.json, adapter_model.safetensors"
    assert "1 2.0" in ran.log.splitlines()

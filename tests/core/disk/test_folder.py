"""Run folders: found by any of their names, owned by one process, and enough to run the job again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli

from forge.api import Custom, Failed, Stopped, Trained
from forge.api.plan import Plan
from forge.discovery.keys import PluginKeys
from forge.disk.checkpoints import mark, newest_marked
from forge.disk.events import EventLog
from forge.disk.files import write_json
from forge.disk.folder import RunFolder
from forge.errors import RunError
from forge.job.decisions import differences, settle
from forge.job.read import parse, read
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan

if TYPE_CHECKING:
    from forge.discovery.catalogue import Catalogue
    from forge.job.read import JobFile

BASE = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\n'


def make(runs: Path, name: str, id: str) -> Path:  # noqa: A002 - the run's id
    path = runs / name / id
    path.mkdir(parents=True)
    (path / "plan.json").write_text("{}")
    return path


@pytest.fixture
def planned(tmp_path: Path, catalogue: Catalogue) -> Any:
    """Make a run folder with a plan from a job's text."""

    def begin(text: str = BASE, facts: ModelFacts | None = None) -> tuple[RunFolder, JobFile, Plan]:
        file = parse(text, str(tmp_path / "my job.toml"), tmp_path, PluginKeys(catalogue))
        facts = facts or ModelFacts(id="m", source="unknown", task="text")
        plan = make_plan(file, catalogue, PRESETS["linux-cpu"], facts)
        folder = RunFolder.create(tmp_path / "runs", file)
        folder.add_plan(plan)
        return folder, file, plan

    return begin


def test_a_new_folder_is_named_after_the_job_and_keeps_its_text(planned: Any, tmp_path: Path) -> None:
    folder, file, _ = planned()
    assert folder.path.parent == tmp_path / "runs" / "my-job"
    assert (folder.path / "job.toml").read_text() == file.text
    named, _, _ = planned('name = "tale"\n' + BASE)
    assert named.path.parent.name == "tale"


@pytest.mark.parametrize(
    ("source", "name"),
    [("...toml", "job"), ("..toml", "job"), ("....toml", "job"), ("--help.toml", "help"), (".hidden.toml", "hidden")],
)
def test_a_run_lies_below_the_runs_whatever_its_job_is_called(
    source: str, name: str, planned: Any, tmp_path: Path
) -> None:
    _, file, _ = planned()
    file = replace(file, source=str(tmp_path / source), job=file.job.model_copy(update={"name": None}))
    assert RunFolder.create(tmp_path / "runs", file).path.parent == tmp_path / "runs" / name


def test_a_name_too_long_for_a_folder_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot look for the run"):
        RunFolder.find("a" * 300, tmp_path)


def test_runs_that_begin_in_the_same_second_get_folders_of_their_own(
    planned: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "strftime", lambda _format: "20261121-120000")
    ids = [planned()[0].path.name for _ in range(3)]
    assert ids == ["20261121-120000", "20261121-120000-2", "20261121-120000-3"]


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOENT, errno.ENOSPC, errno.EACCES, errno.ENOTDIR])
def test_a_folder_that_the_system_does_not_make_is_told_with_the_way_out(
    planned: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    _, file, _ = planned()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(RunError, match=f"cannot make {tmp_path}/.*: {os.strerror(code)}; choose another --runs-dir"):
        RunFolder.create(tmp_path / "elsewhere", file)


def test_a_file_or_a_dangling_link_in_the_way_and_a_long_name_are_told_too(planned: Any, tmp_path: Path) -> None:
    _, file, _ = planned()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for place in ("file", "link"):
        with pytest.raises(RunError, match=r"cannot make .*; choose another --runs-dir"):
            RunFolder.create(tmp_path / place, file)
    long = replace(file, job=file.job.model_copy(update={"name": "n" * 300}))
    with pytest.raises(RunError, match="File name too long; choose a shorter name, or another --runs-dir"):
        RunFolder.create(tmp_path / "runs", long)


def test_a_run_is_found_by_path_by_name_and_id_by_id_and_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    old, new = make(runs, "tale", "20261120-090000"), make(runs, "tale", "20261121-090000")
    make(runs, "other", "20261122-090000")
    monkeypatch.chdir(tmp_path)
    assert RunFolder.find(str(old), runs).path == old
    assert RunFolder.find("runs/tale/20261120-090000", runs).path == Path("runs/tale/20261120-090000")
    assert RunFolder.find("tale/20261120-090000", runs).path == old
    assert RunFolder.find("20261120-090000", runs).path == old
    assert RunFolder.find("20261120", runs).path == old
    assert RunFolder.find("tale", runs).path == new


def test_an_id_that_fits_several_runs_is_refused_with_all_of_them(tmp_path: Path) -> None:
    first, second = make(tmp_path, "a", "20261121-090000"), make(tmp_path, "b", "20261121-100000")
    with pytest.raises(RunError) as caught:
        RunFolder.find("20261121", tmp_path)
    assert str(caught.value) == f"20261121 fits several runs: {first}, {second}; name one of them"


def test_a_whole_id_is_not_ambiguous_because_another_begins_with_it(tmp_path: Path) -> None:
    whole = make(tmp_path, "a", "20261121-090000")
    make(tmp_path, "a", "20261121-090000-2")
    assert RunFolder.find("20261121-090000", tmp_path).path == whole


@pytest.mark.parametrize("text", ["nothing", "", "*", "[", "**", "/nowhere/at/all", "../.."])
def test_what_is_no_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    runs = tmp_path / "a" / "deep" / "runs"
    make(runs, "tale", "20261121-090000")
    monkeypatch.chdir(runs.parent)
    with pytest.raises(RunError, match="there is no run"):
        RunFolder.find(text, runs)


def test_plans_of_later_attempts_are_numbered_and_the_last_one_counts(planned: Any) -> None:
    folder, _, plan = planned()
    for attempt in range(2, 12):
        folder.add_plan(replace(plan, attempt=attempt))
    (folder.path / "plan.old.json").write_text("not one")
    assert [path.name for path in folder.plan_paths()][:3] == ["plan.json", "plan.2.json", "plan.3.json"]
    assert folder.plan().attempt == 11


HOLD = """
import sys
from pathlib import Path
from forge.disk.folder import RunFolder
with RunFolder(Path(sys.argv[1])).own():
    print("held", flush=True)
    sys.stdin.read(1)
"""


def test_two_processes_never_own_one_folder_and_a_dead_owner_does_not_count(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.busy()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "held\n"
        assert folder.busy()
        assert folder.state() == "running"
        with pytest.raises(RunError) as caught, folder.own():
            pass
        if sys.platform != "win32":  # there nobody can read a locked file
            assert (tmp_path / ".lock").read_text() == str(owner.pid)
            assert f"is in use: process {owner.pid} holds it; wait for it, or stop it" in str(caught.value)
        owner.kill()
    assert not folder.busy()
    with folder.own():
        assert folder.busy()
    assert not folder.busy()


def test_looking_whether_a_folder_is_busy_does_not_disturb_what_the_lock_says(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for _ in range(2):
        with folder.own():
            folder.busy()
            assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_the_state_says_in_a_word_what_became_of_a_run(planned: Any) -> None:
    folder, _, _ = planned()
    assert folder.state() == "planned"
    log = EventLog(folder.events)
    log.append(Custom("training", more={"steps": 3}))
    assert folder.state() == "failed"
    log.append(Stopped("stopped where there was nothing new to save"))
    assert folder.state() == "stopped"
    log.append(Custom("training", more={"steps": 3}))  # another attempt, killed without a word
    assert folder.state() == "failed"
    log.append(Stopped("stopped where there was nothing new to save"))
    log.append(Failed({"what": "the model cannot be read"}))
    assert folder.state() == "failed"
    log.close()
    checkpoint = folder.checkpoints / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    (checkpoint / "w").write_text("w")
    assert folder.state() == "failed"
    mark(checkpoint)
    assert folder.state() == "stopped"
    assert newest_marked(folder.checkpoints) == checkpoint
    left(folder)
    folder.write_trained(TRAINED)
    assert folder.state() == "trained"


TRAINED = Trained(
    weights="adapter",
    kind="adapter",
    task="text",
    base={"id": "m", "revision": None},
    processor="adapter",
    traits=frozenset({"hf-model"}),
    metrics={"train_loss": 0.5},
)


def left(folder: RunFolder) -> None:
    """Leave weights, as training does."""
    (folder.path / "adapter").mkdir()
    (folder.path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")


def test_weights_that_changed_since_training_are_not_taken(planned: Any) -> None:
    folder, _, _ = planned()
    left(folder)
    folder.write_trained(TRAINED)
    folder.check_trained()
    (folder.path / "adapter" / "adapter_model.safetensors").write_bytes(b"weightz")
    with pytest.raises(RunError, match="not as training left them"):
        folder.check_trained()


def test_what_training_left_is_read_back_as_it_was(planned: Any) -> None:
    folder, _, _ = planned()
    assert folder.trained() is None
    left(folder)
    folder.write_trained(TRAINED)
    assert folder.trained() == TRAINED


def test_what_collating_recorded_is_read_back(planned: Any) -> None:
    folder, _, _ = planned()
    assert folder.data() is None
    write_json(folder.path / "data.json", {"digest": "d"})
    assert folder.data() == {"digest": "d"}


SOURCES = """\
[model]
id = "org/name"
[data]
eval_path = "held.jsonl"
chat_template = "own.jinja"
[[data.sources]]
path = ["a.jsonl", "org/rows"]
[[data.sources]]
path = "more/*.jsonl"
weight = 0.5
[train]
seed = 7
[[export]]
format = "merged"
"""


def test_the_lock_is_a_runnable_job_that_means_the_same_wherever_it_lies(
    planned: Any, tmp_path: Path, catalogue: Catalogue
) -> None:
    for name in ("a.jsonl", "held.jsonl", "own.jinja"):
        (tmp_path / name).write_text("")
    folder, file, plan = planned(SOURCES, ModelFacts(id="org/name", source="hub", revision="abc123", task="text"))
    folder.write_lock(settle(file.job, plan.decisions), plan, "digest")
    path = folder.path / "job.lock.toml"
    job = read(path, PluginKeys(catalogue)).job
    assert (job.name, job.model.revision, job.data.digest, job.train.options["seed"]) == (
        "my-job",
        "abc123",
        "digest",
        7,
    )
    assert [source.path for source in job.data.sources] == [
        [str(tmp_path / "a.jsonl"), "org/rows"],
        str(tmp_path / "more" / "*.jsonl"),
    ]
    assert (job.data.eval_path, job.data.chat_template) == (str(tmp_path / "held.jsonl"), str(tmp_path / "own.jinja"))
    assert [source.weight for source in job.data.sources] == [1.0, 0.5]
    # Nothing is left open, so nothing can be decided otherwise another time.
    again = make_plan(read(path, PluginKeys(catalogue)), catalogue, PRESETS["linux-cuda"], plan.facts)
    assert {decision.key for decision in again.decisions} == set()
    assert path.read_text().startswith("# Written by forge ")
    assert tomli.loads(path.read_text())["train"]["bf16"] is False


def test_the_lock_of_a_local_model_names_its_folder_and_no_revision(planned: Any, catalogue: Catalogue) -> None:
    folder, file, plan = planned(facts=ModelFacts(id="m", source="folder", path="/models/m", task="text"))
    folder.write_lock(file.job, plan)
    job = read(folder.path / "job.lock.toml", PluginKeys(catalogue)).job
    assert (job.model.id, job.model.revision, job.data.digest) == ("/models/m", None, None)


def test_differences_are_named_by_key_with_both_values() -> None:
    before = {"train": {"max_steps": 10, "seed": 1}, "model": {"id": "m"}}
    after = {"train": {"max_steps": 20, "seed": 1}, "model": {"id": "m"}, "name": "x"}
    assert differences(before, after) == {
        "name": "name: None → x",
        "train.max_steps": "train.max_steps: 10 → 20",
    }
    assert differences(before, before) == {}


def test_each_export_has_a_folder_by_number_and_format(planned: Any, tmp_path: Path) -> None:
    folder, file, _ = planned(BASE + '[[export]]\nformat = "adapter"\n[[export]]\nformat = "merged"\n')
    assert [folder.export_folder(index, file.job).name for index in (0, 1)] == ["1-adapter", "2-merged"]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weights": 3}', "\x00"])
def test_a_damaged_record_of_a_run_is_named(planned: Any, text: str) -> None:
    folder, _, _ = planned()
    (folder.path / "trained.json").write_text(text)
    for ask in (folder.trained, folder.state, folder.check_trained):
        with pytest.raises(RunError, match=r"trained\.json is damaged: .*restore it from a copy"):
            ask()


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_export_is_named(planned: Any, text: str) -> None:
    folder, _, _ = planned()
    export = folder.path / "exports" / "1-merged"
    export.mkdir(parents=True)
    (export / "export.json").write_text(text)
    with pytest.raises(RunError, match=r"export\.json is damaged"):
        list(folder.exports())


def test_a_runs_own_folder_is_empty_or_holds_what_was_sent(tmp_path: Path, catalogue: Catalogue) -> None:
    file = parse('[model]\nid = "m"\n[data]\npath = "rows"\n', "job.toml", tmp_path, PluginKeys(catalogue))
    assert RunFolder.create(tmp_path / "runs", file, tmp_path / "mine").path == tmp_path / "mine"
    with pytest.raises(RunError, match=r"cannot be a run's own folder: it holds job\.toml"):
        RunFolder.create(tmp_path / "runs", file, tmp_path / "mine")
    (tmp_path / "mine" / "submit").mkdir()
    RunFolder.create(tmp_path / "runs", file, tmp_path / "mine")
    (tmp_path / "mine" / "plan.json").touch()
    with pytest.raises(RunError, match="holds a run already; go on with it: forge resume"):
        RunFolder.create(tmp_path / "runs", file, tmp_path / "mine")

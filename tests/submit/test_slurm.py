"""What is sent to Slurm, held against a real sbatch where one is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Bundle, Job, Status, Ticket
from forge_submit.slurm import Slurm, SlurmOptions, _status, seconds_of
from forge_submit.tools import call, lines_of

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash to read the script")

if TYPE_CHECKING:
    from support.projects import Project

JOB = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d"}})


def bundle(folder: Path) -> Bundle:
    run = folder / "runs" / "job" / "20261129-1200"
    (run / "submit").mkdir(parents=True)
    return Bundle(run=run, name="job/20261129-1200", job=JOB)


def slurm(**options: Any) -> Slurm:
    return Slurm(SlurmOptions(**options))


def checked_by_bash(text: str) -> str:
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return text


def test_the_script_asks_for_what_the_options_say_and_runs_nothing_but_forge(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    sent = slurm(account=1234, time="24:00:00", gpus_per_node="a100:4", mem="0", sbatch=["--exclusive"],
                 setup=["module load cuda"], seconds_before_limit=120, python="/opt/py thon")  # fmt: skip
    text = checked_by_bash(sent.write(made).read_text())
    for line in ("account=1234", "time=24:00:00", "gpus-per-node=a100:4", "mem=0", "exclusive", "requeue",
                 "signal=B:USR1@120", "nodes=1", "job-name=forge-job-20261129-1200"):  # fmt: skip
        assert f"\n#SBATCH --{line}\n" in text
    assert "\nmodule load cuda\n" in text
    assert "python='/opt/py thon'\n" in text
    assert "partition" not in text.replace("accounts and partitions", "")
    assert 'srun --kill-on-bad-exit=1 "$python" -P -m forge "$@" &' in text


def test_several_nodes_get_a_place_to_meet_and_a_worker_each(tmp_path: Path) -> None:
    made = bundle(tmp_path)
    job = Job.model_validate({"model": {"id": "m"}, "data": {"path": "d"}, "launch": {"nodes": 3}})
    text = checked_by_bash(slurm().text(Bundle(run=made.run, name=made.name, job=job)))
    assert "\n#SBATCH --nodes=3\n" in text
    assert '  "$python" -P -m forge worker-node "$run" --node "$SLURM_NODEID" &\n' in text
    assert "export MASTER_ADDR MASTER_PORT" in text


@pytest.mark.parametrize(
    ("line", "word", "asked"), [("false", "1", False), ("sleep 3", "130", True), ("exit 7", "7", False)]
)
def test_an_end_in_what_prepares_a_job_leaves_its_word(tmp_path: Path, line: str, word: str, asked: bool) -> None:
    made = bundle(tmp_path)
    script = slurm(setup=["echo preparing", line]).write(made)
    with subprocess.Popen(["bash", str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "preparing\n"
        if asked:
            process.terminate()
    assert (made.folder / "ended").read_text() == f"{word}\n"


def test_a_folder_with_signs_of_a_shell_stays_what_it_is(tmp_path: Path) -> None:
    made = bundle(tmp_path / "a $(b) 'c' 5%j")
    text = checked_by_bash(slurm().text(made))
    assert "5%%j/runs/job" in text.split("--output=")[1].split("\n")[0]
    line = next(line for line in text.splitlines() if line.startswith("run="))
    said = subprocess.run(["bash", "-c", f'{line}; printf %s "$run"'], capture_output=True, text=True).stdout
    assert said == str(made.run)


@pytest.mark.parametrize("value", ["two words", 'quo"te', "li\nne", ""])
def test_a_value_that_would_be_more_than_one_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="partition"):
        SlurmOptions(partition=value)
    with pytest.raises(ValueError, match="setup"):
        SlurmOptions(setup=["a\nb"])


def test_without_sbatch_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = slurm().check(bundle(tmp_path))
    assert finding.severity == "error"
    assert "sbatch is not installed here" in finding.message


def test_a_real_sbatch_takes_the_script_or_says_why_not(cluster: dict[str, str], tmp_path: Path) -> None:
    made = bundle(tmp_path)
    fine = list(slurm(time="1:00:00", cpus_per_task=1, mem="100M").check(made))
    assert {finding.severity for finding in fine} == {"note", "warning"}  # when it would start; and /tmp
    for options, why in (
        ({"partition": "nope"}, "Invalid partition name"),
        ({"time": "soon"}, "Invalid --time specification"),
        ({"gpus_per_node": 9}, "Invalid generic resource"),
        ({"sbatch": ["--no-such-option"]}, "unrecognized option"),
    ):
        said = [finding.message for finding in slurm(**options).check(made) if finding.severity == "error"]
        assert len(said) == 1
        assert why in said[0], said


def test_a_limit_that_leaves_no_time_to_train_is_refused(cluster: dict[str, str], tmp_path: Path) -> None:
    said = [each.message for each in slurm(time="5").check(bundle(tmp_path)) if each.severity == "error"]
    assert said == ["time = 5 is 300 s, of which seconds_before_limit leaves 0"]


def test_an_empty_queue_has_forgotten_a_job_that_left_its_end(cluster: dict[str, str], tmp_path: Path) -> None:
    made, ticket = bundle(tmp_path), Ticket(target="slurm", id="999999")
    assert slurm().status(ticket, made.run).state == "unknown"
    for code, state in (("0", "done"), ("130", "cancelled"), ("1", "failed")):
        (made.folder / "ended").write_text(f"{code}\n")
        assert slurm().status(ticket, made.run) == Status(state, f"exit code {code}")  # type: ignore[arg-type]


def test_of_a_job_that_slurm_has_forgotten_the_runs_own_files_tell(cluster: dict[str, str], project: Project) -> None:
    _, folder = project.prepare()
    folder.write_ticket(Ticket(target="slurm", id="999999"))
    said = project.forge("runs")
    assert "planned  slurm 999999: Slurm has forgotten the job, and it left no word of its end" in said
    (folder.path / "submit").mkdir()
    (folder.path / "submit" / "ended").write_text("1\n")
    assert "planned  slurm 999999: exit code 1" in project.forge("runs")
    ticket = folder.ticket()
    assert ticket is not None
    assert ticket.status.over


@pytest.mark.parametrize(
    ("word", "reason", "code", "told"),
    [
        ("PENDING", "Resources", "0", Status("waiting", "PENDING Resources")),
        ("RUNNING", "None", "0", Status("running", "RUNNING")),
        ("COMPLETED", "None", "0", Status("done", "COMPLETED")),
        ("TIMEOUT", "TimeLimit", "0", Status("failed", "TIMEOUT")),
        ("FAILED", "NonZeroExitCode", "2", Status("failed", "FAILED exit code 2")),
        ("CANCELLED+", "None", "0", Status("cancelled", "CANCELLED+")),
        ("NEW_STATE", "None", "0", Status("unknown", "NEW_STATE")),
    ],
)
def test_words_of_slurm(word: str, reason: str, code: str, told: Status) -> None:
    assert _status(word, reason, code) == told


def test_limits_of_time() -> None:
    assert [seconds_of(text) for text in ("90", "1:30", "24:00:00", "2-12", "1-0:30:0", "UNLIMITED")] == [
        5400, 90, 86400, 216000, 88200, None
    ]  # fmt: skip


def test_a_file_is_followed_to_its_last_line(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"one\ntwo\xff\nhalf")
    assert list(lines_of(file, follow=False, over=lambda: False)) == ["one", "two\ufffd", "half"]
    lines = lines_of(file, follow=True, over=lambda: True)
    assert next(lines) == "one"
    with file.open("ab") as opened:
        opened.write(b" line\nlast\n")
    assert list(lines) == ["two\ufffd", "half line", "last"]
    assert call(["false"])[0] == 1


def test_a_job_that_slurm_queues_again_by_itself_has_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "scontrol"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for requeue, state in ((1, "waiting"), (0, "failed")):
        tool.write_text(f"#!/bin/sh\necho JobId=1 JobState=NODE_FAIL Reason=None Requeue={requeue} ExitCode=0:0\n")
        tool.chmod(0o755)
        assert slurm().status(Ticket(target="slurm", id="1"), tmp_path).state == state

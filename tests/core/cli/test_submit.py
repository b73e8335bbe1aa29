"""`forge submit`, `logs`, `fetch` and `cancel`, with a target that a plugin of somebody else's brings."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from forge.disk.folder import RunFolder
from support.sites import FORGE

if TYPE_CHECKING:
    from pathlib import Path

    from support.sites import Site

PLUGIN = """
from forge.api import Target, hookimpl

@hookimpl
def forge_targets():
    yield Target("shelf", "A shelf in this room.", "shelf_target:Shelf")
    yield Target("nothing", "Names no submitter.", "shelf_target:NOTHING")
"""
TARGET = """
import shutil
from pathlib import Path
from typing import ClassVar
from pydantic import Field
from forge.api import Finding, ForgeError, MachineError, Status, Submitter, Table

NOTHING = 1


class Options(Table):
    place: str = Field(description="The shelf.")
    mood: str = Field("good", description="How it answers.")


class Shelf(Submitter):
    keys = Options
    limit: ClassVar[int] = 2000

    def check(self, bundle):
        if self.options.mood == "bad":
            yield Finding("error", "the shelf is full", "buy another")
            yield Finding("error", "the room is closed")
        yield Finding("note", "mind the step")

    def write(self, bundle):
        path = bundle.folder / "label.txt"
        path.write_text("\\n".join([bundle.name, *bundle.packages]) + "\\n")
        return path

    def submit(self, bundle):
        if self.options.mood == "odd":
            raise KeyError("drawer")
        if self.options.mood == "deaf":
            raise MachineError("no answer within 2 minutes")
        shutil.copytree(bundle.folder, Path(self.options.place) / "sent", dirs_exist_ok=True)
        return "7", "file://shelf"

    def status(self, ticket, run):
        if self.options.mood == "gone":
            raise ForgeError("the shelf is gone")
        there = Path(self.options.place) / "state"
        return Status(there.read_text() if there.exists() else "waiting", "says the shelf")

    def logs(self, ticket, run, *, follow):
        yield from ["one", "two \\x1b[2J"]

    def cancel(self, ticket, run):
        (Path(self.options.place) / "state").write_text("cancelled")

    def fetch(self, ticket, run):
        made = Path(self.options.place) / "made"
        if made.exists():
            shutil.copytree(made, run, dirs_exist_ok=True)
"""
JOB = """
name = "tale"
[model]
id = "org/name"
[data]
path = "rows/*.jsonl"
[train]
max_steps = 3
"""


class Room:
    """A folder with a job, and a shelf to send it to."""

    def __init__(self, site: Site, folder: Path) -> None:
        site.install("forge-shelf", {"shelf": PLUGIN, "shelf_target": TARGET}, "[forge_v1]\nshelf = shelf\n")
        self.site, self.folder, self.place = site, folder, folder / "shelf"
        self.place.mkdir(parents=True)
        (folder / "rows").mkdir()
        (folder / "rows" / "a.jsonl").write_text('{"text": "a"}\n')
        (folder / "job.toml").write_text(JOB)

    def forge(self, *arguments: str, code: int = 0, **variables: str) -> str:
        done = subprocess.run(
            [FORGE, *arguments],
            capture_output=True,
            text=True,
            env=self.site.environment(**variables),
            cwd=self.folder,
            timeout=60,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def submit(self, *arguments: str, code: int = 0, **variables: str) -> str:
        place = f"place={self.place}"
        return self.forge("submit", "job.toml", "--to", "shelf", "-o", place, *arguments, code=code, **variables)

    def run(self) -> Path:
        (found,) = self.folder.glob("runs/tale/*")
        return found


@pytest.fixture
def room(site: Site, tmp_path: Path) -> Room:
    return Room(site, tmp_path / "room")


def test_a_target_is_listed_with_its_plugin(room: Room) -> None:
    assert "--to shelf" in room.forge("plugins")
    assert "A shelf in this room." in room.forge("plugins", "shelf")


def test_a_job_whose_rows_are_not_here_is_not_sent(room: Room) -> None:
    said = room.submit("--set", "data.path=rows/b.jsonl", code=2)
    assert "data.path: rows/b.jsonl is not here; did you mean rows/a.jsonl?" in said
    assert not (room.folder / "runs").exists()


def test_what_is_sent_lies_in_the_run_folder_with_the_files_that_the_job_names(room: Room) -> None:
    said = room.submit("--set", "train.max_steps=5")
    assert "sent    shelf 7: file://shelf" in said
    assert "note: mind the step" in said
    sent = room.run() / "submit"
    job = (sent / "job.toml").read_text()
    assert 'path = "files/rows/*.jsonl"' in job
    assert "max_steps = 5" in job
    assert "per_device" not in job  # what the job leaves open is decided where it runs
    assert (sent / "files" / "rows" / "a.jsonl").read_text() == '{"text": "a"}\n'
    assert (room.place / "sent" / "job.toml").read_text() == job
    ticket = RunFolder(room.run()).ticket()
    assert ticket is not None
    assert (ticket.target, ticket.id) == ("shelf", "7")


def test_a_dry_run_prints_what_would_be_sent_and_sends_nothing(room: Room) -> None:
    said = room.submit("--dry-run")
    assert f"tale/{room.run().name}" in said
    assert "forge-train[huggingface]==" in said
    assert "nothing was sent" in said
    assert not (room.place / "sent").exists()
    assert not (room.run() / "ticket.json").exists()


def test_the_users_file_holds_options_and_those_of_the_command_win(room: Room) -> None:
    config = room.folder / "config.toml"
    config.write_text(f'[submit.shelf]\nplace = "{room.place}"\nmood = "bad"\nmachine = "linux-h100"\n')
    said = room.forge("submit", "job.toml", "--to", "shelf", code=2, FORGE_CONFIG=str(config))
    assert "this job cannot be sent to shelf: the shelf is full; the room is closed; buy another" in said
    assert not list(room.folder.glob("runs/*"))
    said = room.forge("submit", "job.toml", "--to", "shelf", "-o", "mood=good", FORGE_CONFIG=str(config))
    assert "does not know the machine" not in said


def test_what_is_wrong_is_said_before_anything_is_written(room: Room) -> None:
    assert "submit.shelf.moot: unknown key; did you mean mood?" in room.submit("-o", "moot=1", code=2)
    assert "no plugin sends jobs to shelv; did you mean shelf?" in room.forge(
        "submit", "job.toml", "--to", "shelv", code=2
    )
    assert "--option mood is no change" in room.submit("-o", "mood", code=2)
    assert "shelf_target:NOTHING is no forge.api.Submitter" in room.forge(
        "submit", "job.toml", "--to", "nothing", code=1
    )
    (room.folder / "rows" / "b.jsonl").write_text("x" * 3000)
    said = room.submit(code=2)
    assert "of local files would have to be sent to shelf, at most 2.0 KiB: rows/b.jsonl (2.9 KiB), rows/a" in said
    assert "push them to the hub" in said
    assert not list(room.folder.glob("runs/*"))


def test_a_login_among_the_options_is_refused(room: Room) -> None:
    said = room.submit("-o", "mood=export T=hf_abcdefghijklmnopqrstuvwxyz", code=2)
    assert "submit.shelf.mood: it holds a login, and options are written down" in said
    assert "abcdefghijkl" not in said


def test_a_target_that_fails_is_named_and_leaves_no_ticket(room: Room) -> None:
    assert "target shelf: its submit failed: KeyError: 'drawer'" in room.submit("-o", "mood=odd", code=1)
    assert not (room.run() / "ticket.json").exists()


def test_of_a_target_that_gave_no_answer_the_ticket_is_kept(room: Room) -> None:
    said = room.submit("-o", "mood=deaf", code=1)
    assert "nobody knows whether shelf took the job: no answer within 2 minutes; look there before you send it" in said
    assert (room.run() / "ticket.json").exists()
    assert "nobody knows whether" in room.forge("cancel", "tale", code=2)


def test_runs_tell_what_the_target_says_until_it_has_ended(room: Room) -> None:
    room.submit()
    assert "waiting  shelf 7: says the shelf" in room.forge("runs")
    assert json.loads(room.forge("runs", "tale", "--json"))["state"] == "waiting"
    assert "shelf 7: cancelled" in room.forge("cancel", "tale")
    (room.place / "state").write_text("running")  # it is not asked again
    assert "cancelled  shelf 7" in room.forge("runs")
    assert "has ended already" in room.forge("cancel", "tale", code=2)


def test_logs_are_the_targets_and_can_do_nothing_to_a_terminal(room: Room) -> None:
    room.submit()
    assert room.forge("logs", "tale", "--follow") == "one\ntwo \\u001b[2J\n"
    assert "the events of" in room.forge("logs", "tale", "--json", code=2)


def test_a_run_that_was_sent_is_none_of_this_machine_until_it_is_fetched(room: Room) -> None:
    room.submit()
    assert "was sent elsewhere: what it made is not here yet" in room.forge("resume", "tale", code=2)
    assert "has made nothing yet: shelf 7 is waiting" in room.forge("fetch", "tale", code=2)


def test_one_target_that_cannot_be_asked_hides_no_other_run(room: Room) -> None:
    room.submit()
    room.submit("-o", "mood=gone")
    said = room.forge("runs")
    assert "unknown  shelf 7: the shelf is gone" in said
    assert "waiting  shelf 7: says the shelf" in said


def test_a_run_of_this_machine_was_sent_nowhere(room: Room) -> None:
    room.submit("--dry-run")
    (room.run() / "plan.json").write_text("{}")
    assert "was not sent anywhere" in room.forge("cancel", "tale", code=2)

"""The run's own job: read again in one place, and its weights asked for in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.discovery.catalogue import Catalogue
from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.errors import RunError
from forge.job.read import Change, change_of, parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan

BASE = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\n'


@pytest.fixture
def folder(tmp_path: Path, catalogue: Catalogue) -> RunFolder:
    """A run that was begun with ``--set train.max_steps=7``."""
    changes = [change_of("train.max_steps=7")]
    file = parse(BASE, str(tmp_path / "job.toml"), tmp_path, PluginKeys(catalogue), changes)
    made = RunFolder.create(tmp_path / "runs", file)
    made.add_plan(make_plan(file, catalogue, PRESETS["linux-cpu"], ModelFacts(id="m", source="unknown", task="text")))
    return made


def test_the_job_is_read_with_the_changes_it_was_begun_with_and_more(
    folder: RunFolder, catalogue: Catalogue, tmp_path: Path
) -> None:
    job = folder.job_file(PluginKeys(catalogue), [Change("train.learning_rate", 0.5)]).job
    assert (job.train.options["max_steps"], job.train.options["learning_rate"]) == (7, 0.5)
    assert job.folder == tmp_path


@pytest.mark.parametrize("text", ['a"b', "a\\b", "[x]", "true", "1 # 2", "a\nb"])
def test_a_value_of_the_command_line_is_that_value_whatever_is_in_it(
    folder: RunFolder, catalogue: Catalogue, text: str
) -> None:
    change = Change("export.0.push_to_hub", text)
    job = folder.job_file(PluginKeys(catalogue), [Change("export.0.format", "merged"), change]).job
    assert job.export[0].push_to_hub == text
    assert change_of(str(change)).value == text


def test_what_has_not_been_trained_is_refused_in_one_wording(folder: RunFolder) -> None:
    with pytest.raises(RunError, match=r"has no trained weights: its training has not finished; `forge resume [^,]*$"):
        folder.weights_or_refuse()
    with folder.own(), pytest.raises(RunError, match=r"has no trained weights: it is training now; wait for its end$"):
        folder.weights_or_refuse()
    other = folder.path.with_name("19990101-000000")
    other.mkdir()
    for name in ("plan.json", "trained.json"):
        (other / name).touch()
    with pytest.raises(RunError, match=r"`forge resume .*, or name .*19990101-000000$"):
        folder.weights_or_refuse()

"""Other values in the model's config.json, and rows longer than the model was made for."""

from __future__ import annotations

from typing import Any

import pytest

from forge.errors import JobError, PlanError
from support.projects import Project, json_of

YARN = {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}


def made_for(project: Project) -> int:
    return int(json_of(project.folder / "model" / "config.json")["max_position_embeddings"])


def test_rows_longer_than_the_model_was_made_for_need_a_word_on_its_positions(project: Project) -> None:
    beyond = 8 * made_for(project)
    project.write(model={"max_seq_length": 2048})  # what a lock writes of a job that leaves it open
    assert made_for(project) < 2048
    project.prepare()
    project.write(model={"max_seq_length": beyond})
    with pytest.raises(PlanError, match=r'config = \{ rope_scaling = \{ rope_type = "yarn", factor = 8.0 \} \}'):
        project.prepare()
    for config in (YARN, {"max_position_embeddings": beyond}):
        project.write(model={"max_seq_length": beyond, "config": config})
        project.prepare()


@pytest.mark.slow
def test_scaled_positions_are_trained_with_and_are_in_what_is_merged(project: Project) -> None:
    plain = project.perform()
    project.write(model={"config": YARN}, export=[{"format": "merged"}])
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.losses[0] != plain.losses[0]
    before = json_of(project.folder / "model" / "config.json")
    found = json_of(done.folder.path / "base" / "config.json")
    scaling = found.get("rope_parameters") or found["rope_scaling"]
    assert (scaling["rope_type"], scaling["factor"]) == ("yarn", 4.0)
    assert "yarn" not in str(before)  # the model's own folder is as it was
    project.forge("export", str(done.folder.path), code=None)
    (merged,) = done.folder.path.glob("exports/*merged*/config.json")
    assert "yarn" in merged.read_text()


@pytest.mark.parametrize(
    ("config", "kind", "why"),
    [
        ({"vocab_size": 5}, JobError, "says what the weights are"),
        ({"model_type": "x"}, JobError, "another model instead"),
    ],
)
def test_what_the_weights_are_is_not_changed(project: Project, config: dict[str, Any], kind: Any, why: str) -> None:
    project.write(model={"config": config})
    with pytest.raises(kind, match=why):
        project.prepare()


def test_a_value_that_the_config_does_not_have_is_told_before_loading(project: Project) -> None:
    project.write(model={"config": {"attention_dropuot": 0.1}})
    done = project.perform()
    assert done.code != 0
    assert "attention_dropuot is no value of" in done.printed
    assert not done.of_kind("loaded")

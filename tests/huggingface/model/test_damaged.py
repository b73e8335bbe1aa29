"""Damaged model folders: an error that names the file before anything is trained; never a fault of a plugin."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pytest

from forge.discovery.discover import discover
from forge.errors import DataError, ModelError, UsageError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge_huggingface.data.collate import collate
from forge_huggingface.facts.describe import describe
from forge_huggingface.facts.folder import reading
from forge_huggingface.generation.sampling import recommended
from forge_huggingface.model.load import load
from support.damage import damage

if TYPE_CHECKING:
    from pathlib import Path

    from support.projects import Project


def opened(project: Project, **job: Any) -> None:
    """Do what a run does with a model's folder before it trains."""
    project.write(**job)
    run, _ = project.prepare(catalogue=discover({}))
    settled = settle(load_job(run.plan.job), run.plan.decisions)
    data = collate(settled, run)
    load(settle(settled, run.plan.decisions), run, data)
    recommended(settled, project.folder / "model", None, None).sampling()


def change(project: Project, name: str, **values: Any) -> None:
    path = project.folder / "model" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_whatever_happens_to_a_model_folder_is_a_mistake_of_its_files(project: Project) -> None:
    folder, whole = project.folder / "model", project.folder / "whole"
    shutil.copytree(folder, whole)
    names = sorted(path.name for path in whole.iterdir())
    refused = [name for seed in range(80) if _refused(project, whole, seed, name := names[seed % len(names)])]
    assert len(refused) > 40
    assert set(refused) == set(names)


def _refused(project: Project, whole: Path, seed: int, name: str) -> bool:
    folder, rng = project.folder / "model", random.Random(seed)
    shutil.rmtree(folder)
    shutil.copytree(whole, folder)
    done = damage(rng, folder / name)
    said = None
    try:
        opened(project)
    except UsageError as error:
        said = error
    except Exception as error:
        raise AssertionError(f"{name}: {done}") from error
    assert said is None or isinstance(said, DataError) or name in str(said), (done, said)
    return said is not None


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("config.json", {"hidden_size": "x"}, 'hidden_size is "x"'),
        ("config.json", {"num_hidden_layers": -2}, "num_hidden_layers is -2"),
        ("config.json", {"vocab_size": 0}, "vocab_size is 0"),
        ("config.json", {"num_attention_heads": 1.5}, "num_attention_heads is 1.5"),
        ("config.json", {"text_config": []}, r"text_config is \[\]"),
        ("config.json", {"model_type": []}, "model_type is"),
        ("config.json", {"architectures": ["\ud83d"]}, "half a character"),
    ],
)
def test_a_value_that_no_model_has_is_told_when_planned(
    project: Project, name: str, values: dict[str, Any], said: str
) -> None:
    change(project, name, **values)
    with pytest.raises(ModelError, match=rf"{name} is damaged: .*{said}"):
        describe("model", None, project.folder)


def test_a_vocabulary_of_another_size_than_the_embedding_is_told_when_planned(project: Project) -> None:
    change(project, "config.json", vocab_size=399)
    with pytest.raises(
        ModelError, match=r"does not fit its weights: vocab_size is 399, and the embedding .* has 400 rows"
    ):
        describe("model", None, project.folder)


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer_config.json", "adapter_config.json"])
@pytest.mark.parametrize("content", [b"[]", b"\xff{}", b'{"a":' * 20_000, b'{"a": ' + b"9" * 5000 + b"}", b""])
def test_a_small_file_that_is_no_object_is_told_when_planned(project: Project, name: str, content: bytes) -> None:
    (project.folder / "model" / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is damaged"):
        describe("model", None, project.folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_in_a_models_folder_is_not_waited_for(project: Project) -> None:
    os.mkfifo(project.folder / "model" / "special_tokens_map.json")
    with pytest.raises(ModelError, match=r"special_tokens_map\.json is damaged: it is no plain file"):
        describe("model", None, project.folder)


def _header(project: Project, change: dict[str, Any]) -> None:
    path = project.folder / "model" / "model.safetensors"
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header["model.norm.weight"] |= change
    written = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(written)) + written + raw[8 + length :])


@pytest.mark.parametrize(
    "change",
    [{"data_offsets": wrong} for wrong in ([], "", "ab", [0], [0, 4], [4, 0], [-8, 0], [0.0, 4.0], None)]
    + [{"shape": wrong} for wrong in ("x", [-1], [1.5], [2, 10**30], None)]
    + [{"dtype": "F64"}],
)
def test_a_header_that_is_not_that_of_a_safetensors_file_is_told_when_planned(
    project: Project, change: dict[str, Any]
) -> None:
    _header(project, change)
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        describe("model", None, project.folder)


@pytest.mark.parametrize("placed", [{}, {"a": ""}, {"a": "../other.safetensors"}, {"a": 3}, []])
def test_an_index_that_places_weights_nowhere_is_told_when_planned(project: Project, placed: Any) -> None:
    folder = project.folder / "model"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": placed}))
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json is damaged"):
        describe("model", None, project.folder)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{{ 1 // 0 }}", "zero"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "recursion"),
        ("{% for i in range(10**9) %}x{% endfor %}", "[Rr]ange"),
        ("{{ " + "(" * 300 + ")" * 300 + " }}", "nested"),
        ("{% if %}", "line 1"),
    ],
)
def test_a_template_that_always_fails_is_told_with_its_file(project: Project, source: str, said: str) -> None:
    path = project.folder / "model" / "chat_template.jinja"
    path.write_text(source)
    with pytest.raises(ModelError, match=rf"(?s)chat_template\.jinja: .*{said}"):
        opened(project)
    (project.folder / "mine.jinja").write_text(source)
    path.write_text("{{ strftime_now('%d') }}{% if %}")  # the model's own does not matter where the job has another
    with pytest.raises(DataError, match=rf"(?s)the chat template mine\.jinja .*{said}"):
        opened(project, data={"chat_template": "mine.jinja"})


def test_a_template_file_that_is_no_text_is_told(project: Project) -> None:
    (project.folder / "mine.jinja").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"mine\.jinja cannot be read: .*utf-8.*; save it as UTF-8"):
        opened(project, data={"chat_template": "mine.jinja"})


def test_a_template_that_trips_over_a_row_makes_it_a_bad_row(project: Project) -> None:
    path = project.folder / "model" / "chat_template.jinja"
    path.write_text(path.read_text() + "{% if messages|length > 3 %}{{ cycler() }}{% endif %}")
    turns = [{"role": role, "content": "Count."} for role in ("user", "assistant")]
    lines = [json.dumps({"messages": turns * count}) + "\n" for count in (1, 2, 1)]
    (project.folder / "rows.jsonl").write_text("".join(lines))
    with pytest.raises(DataError, match=r"rows\.jsonl:2 is refused by the chat template"):
        opened(project)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "no space"), OSError(errno.EIO, "i/o")])
def test_a_fault_of_the_machine_is_not_called_one_of_the_models_files(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, reading("it cannot be loaded", tmp_path, ["config.json"]):
        raise error
    assert caught.value is error


def test_the_file_that_a_library_trips_over_is_found(project: Project) -> None:
    path = project.folder / "model" / "tokenizer.json"
    value = json.loads(path.read_text())
    value["model"]["merges"] = [["no", "tokens"]]
    path.write_text(json.dumps(value))
    with pytest.raises(ModelError, match=r"the tokenizer of model cannot be loaded: \S+tokenizer\.json: .*; copy"):
        opened(project)


def test_weights_that_the_config_has_no_place_for_are_told(project: Project) -> None:
    change(project, "config.json", num_hidden_layers=1)
    project.write(train={"max_steps": 1})
    done = project.perform()
    assert done.code == 0
    told = [event["message"] for event in done.of_kind("warning")]
    assert any("9 weights of model are not used" in message for message in told), told

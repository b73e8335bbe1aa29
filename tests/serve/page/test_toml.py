"""The form changes the job's text key by key, and loses nothing else of it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from support.browsing import call, calls

EXAMPLES = Path(__file__).parents[3] / "examples"
JOBS = [EXAMPLES / name / "job.toml" for name in ("quickstart", "sdpo_codes")]
ODD = r'''# a remark [not.a.table]
name = "odd \"name\"" # = "x"
export = [ { format = "merged" }, { format = "gguf", types = ["q4_k_m", 'f16'] } ]

[model]
id = 'a\b'  # a path
"max_seq_length" = 1_024

[data]
sources = [
  { path = "a.jsonl", weight = 0.5 }, # the first
  { path = "b.jsonl" },
]
system_prompt = """
Say "yes" # not a remark
[train]
"""
roles = { customer = "user" }

  [train] # training
  method = "sft"
  learning_rate=2e-4

  [[train.reward]]
  use = "length"
  args = { most = 5 }
[[train.reward]]
use = "json"

# what stands above the table
[plugins.sdpo]
enabled = true
'''


@pytest.fixture(scope="module")
def blank(chromium: Any) -> Any:
    """A page with nothing on it."""
    page = chromium.new_page()
    yield page
    page.close()


def found_in(data: Any, path: list[Any]) -> Any:
    for part in path:
        data = data[part]
    return data


def leaves(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(data, dict):
        return [leaf for key, value in data.items() for leaf in leaves(value, (*path, key))]
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return [leaf for index, value in enumerate(data) for leaf in leaves(value, (*path, index))]
    return [path]


def texts() -> list[Any]:
    return [pytest.param(path.read_text(encoding="utf-8"), id=path.parent.name) for path in JOBS] + [
        pytest.param(ODD, id="odd"),
        pytest.param(ODD.replace("\n", "\r\n"), id="windows"),
    ]


@pytest.mark.parametrize("text", texts())
def test_every_key_is_found_where_toml_has_it(blank: Any, text: str) -> None:
    doc = call(blank, "scan", text)
    assert doc["error"] is None
    data = tomllib.loads(text)
    for path in leaves(data):
        entry = next(each for each in doc["entries"] if each["path"] == list(path))
        raw = text[entry["from"] : entry["to"]]
        assert tomllib.loads(f"x = {raw}")["x"] == found_in(data, list(path))


@pytest.mark.parametrize("text", texts())
def test_setting_a_key_changes_that_key_alone(blank: Any, text: str) -> None:
    remarks = [line.partition("#")[2] for line in text.splitlines() if line.lstrip().startswith("#")]
    new = [
        ["adapter", "r"],
        ["train", "packing_is"],
        ["model", "revision"],
        ["name"],
        ["use", "backend"],
        ["eval", "seed"],
    ]
    new += [["plugins", "unsloth-text", "x"], ["data", "roles", "bot"]]
    paths = [*map(list, leaves(tomllib.loads(text))), *new]
    for path, changed in zip(paths, calls(blank, "withValue", [[text, path, "77"] for path in paths]), strict=True):
        data = tomllib.loads(changed)
        assert found_in(data, path) == 77
        assert [remark for remark in remarks if remark not in changed] == []
        before, after = set(leaves(tomllib.loads(text))), set(leaves(data))
        assert before ^ after <= {tuple(path), *(leaf for leaf in before if leaf[: len(path)] == tuple(path))}
        for leaf in before & after - {tuple(path)}:
            assert found_in(data, list(leaf)) == found_in(tomllib.loads(text), list(leaf))


@pytest.mark.parametrize("text", texts())
def test_leaving_a_key_out_leaves_the_rest(blank: Any, text: str) -> None:
    paths = leaves(tomllib.loads(text))
    for path, less in zip(paths, calls(blank, "without", [[text, list(path)] for path in paths]), strict=True):
        data = tomllib.loads(less)
        assert set(leaves(data)) - {()} <= set(leaves(tomllib.loads(text))) | {path[:-1]}
        assert path not in leaves(data)


def test_an_export_is_added_and_removed_as_a_block(blank: Any) -> None:
    text = '[model]\nid = "x"\n\n[[export]]\nformat = "merged" # whole\n\n# GPUs\n[use]\nbackend = "unsloth"\n'
    more = call(blank, "withExport", text, "gguf", True)
    assert [each["format"] for each in tomllib.loads(more)["export"]] == ["merged", "gguf"]
    less = call(blank, "withExport", more, "merged", False)
    assert tomllib.loads(less) == {"model": {"id": "x"}, "use": {"backend": "unsloth"}, "export": [{"format": "gguf"}]}
    assert "# GPUs" in less


def test_what_is_no_toml_is_said_with_its_line(blank: Any) -> None:
    assert call(blank, "scan", "[model]\nid = ")["error"] == "a value is missing in line 2"
    assert call(blank, "scan", '[model]\nid = "x')["error"] == "a text has no end in line 2"


@pytest.mark.parametrize("raw", [r'"a\tb\u00e9\""', "'c:\\d'", '"""\nx \\\n   y"""', "'''z'''", '""', "'it''"[:-1]])
def test_a_text_is_read_as_toml_reads_it(blank: Any, raw: str) -> None:
    assert call(blank, "unquoted", raw) == tomllib.loads(f"x = {raw}")["x"]

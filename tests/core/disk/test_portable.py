"""A job that is sent elsewhere: what is pinned, what stays open, and where its files are found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tomli

from forge.disk.portable import Portable
from forge.job.read import change_of, parse
from forge.model.facts import ModelFacts

if TYPE_CHECKING:
    from pathlib import Path

    from forge.discovery.catalogue import Catalogue

FACTS = ModelFacts(id="org/name", source="hub", revision="abc123")


def portable(text: str, folder: Path, catalogue: Catalogue, *changes: str, carry: bool = True) -> Portable:
    from forge.discovery.keys import PluginKeys

    file = parse(text, "job.toml", folder, PluginKeys(catalogue), [change_of(change) for change in changes])
    return Portable(file, FACTS, "tale", carry=carry)


JOB = """
[model]
id = "org/name"
[data]
path = ["rows.jsonl", "more/*.jsonl", "org/set"]
chat_template = "mine.jinja"
eval_path = "held"
[train]
method = "grpo"
max_steps = 3
[[train.reward]]
use = "./rewards.py:score"
[[train.reward]]
use = "judge:score"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("rows.jsonl", "more/a.jsonl", "more/b.jsonl", "more/c.txt", "held/x.jsonl", "mine.jinja",
                 "rewards.py", "judge.py", "org.py"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_the_files_that_a_job_names_go_with_it_and_are_named_where_they_lie(folder: Path, catalogue: Catalogue) -> None:
    made = portable(JOB, folder, catalogue)
    tables = tomli.loads(made.text("1"))
    assert tables["data"]["path"] == ["files/rows.jsonl", "files/more/*.jsonl", "org/set"]
    assert tables["data"]["eval_path"] == "files/held"
    assert [reward["use"] for reward in tables["train"]["reward"]] == ["files/rewards.py:score", "judge:score"]
    assert sorted(made.files) == [
        "files/held/x.jsonl", "files/mine.jinja", "files/more/a.jsonl", "files/more/b.jsonl", "files/rewards.py",
        "files/rows.jsonl", "judge.py",
    ]  # fmt: skip
    made.copy(folder / "sent")
    assert {name: (folder / "sent" / name).read_text() for name in made.files} == {
        name: path.read_text() for name, path in made.files.items()
    }
    again = portable(made.text("1"), folder / "sent", catalogue, carry=False)  # it is a job, and finds them
    assert again.tables["data"]["eval_path"] == str(folder / "sent" / "files" / "held")


def test_a_link_is_sent_as_what_it_is_called(folder: Path, catalogue: Catalogue) -> None:
    """In the hub's cache each file is a link to one that is called by its digest."""
    (folder / "blob").write_text("rows of a link")
    (folder / "rows.jsonl").unlink()
    for link in ("rows.jsonl", "more/d.jsonl"):
        (folder / link).symlink_to(folder / "blob")
    made = portable(JOB, folder, catalogue)
    assert tomli.loads(made.text("1"))["data"]["path"] == ["files/rows.jsonl", "files/more/*.jsonl", "org/set"]
    made.copy(folder / "sent")
    for name in ("rows.jsonl", "more/d.jsonl"):
        assert (folder / "sent" / "files" / name).read_text() == "rows of a link"


def test_folders_behind_links_and_what_code_imports_from_beside_it_go_too(folder: Path, catalogue: Catalogue) -> None:
    far = folder.parent / "far"
    far.mkdir()
    (far / "y.jsonl").write_text("far")
    (folder / "held" / "more").symlink_to(far, target_is_directory=True)
    (folder / "held" / "round").symlink_to(folder / "held", target_is_directory=True)
    (folder / "rewards.py").write_text("import json\nfrom helper import one\nfrom tools.deep import two\n")
    (folder / "helper.py").write_text("import further\n")
    (folder / "further.py").write_text("import helper\n")
    (folder / "tools").mkdir()
    for name in ("__init__.py", "deep.py", "data.txt"):
        (folder / "tools" / name).write_text("")
    made = portable(JOB, folder, catalogue)
    assert {"files/held/x.jsonl", "files/held/more/y.jsonl"} == {name for name in made.files if "held" in name}
    code = {name for name in made.files if name.endswith(".py")}
    assert code == {f"files/{name}.py" for name in ("rewards", "helper", "further", "tools/__init__", "tools/deep")} | {
        "judge.py"
    }


def test_names_of_columns_are_none_of_files(folder: Path, catalogue: Catalogue) -> None:
    (folder / "chat").write_text("a file")
    made = portable(JOB.replace("[train]", 'columns = { messages = "chat" }\n[train]'), folder, catalogue)
    assert tomli.loads(made.text("1"))["data"]["columns"] == {"messages": "chat"}
    assert "files/chat" not in made.files


def test_on_a_shared_disk_they_are_named_by_their_whole_paths(folder: Path, catalogue: Catalogue) -> None:
    made = portable(JOB, folder, catalogue, carry=False)
    assert made.tables["data"]["path"] == [f"{folder}/rows.jsonl", f"{folder}/more/*.jsonl", "org/set"]
    assert made.tables["train"]["reward"][0]["use"] == f"{folder}/rewards.py:score"
    assert list(made.files) == ["judge.py"]  # a module is found beside the job, wherever that lies


def test_the_model_is_pinned_and_what_the_job_leaves_open_stays_open(folder: Path, catalogue: Catalogue) -> None:
    made = portable(JOB, folder, catalogue, "train.max_steps=7", "name=other")
    assert made.tables["model"] == {"id": "org/name", "revision": "abc123"}
    assert (made.tables["name"], made.tables["train"]["max_steps"]) == ("other", 7)
    assert made.tables["train"].keys() == {"method", "max_steps", "reward"}


def test_a_plugin_in_one_file_goes_with_the_job(folder: Path, catalogue: Catalogue) -> None:
    (folder / "mine.py").write_text("")
    text = f"{JOB}\n[use]\nplugins = ['./mine.py']\n"
    made = portable(text, folder, catalogue)
    assert made.tables["use"] == {"plugins": ["files/mine.py"]}
    assert made.files["files/mine.py"] == folder / "mine.py"
    assert portable(text, folder, catalogue, carry=False).tables["use"] == {"plugins": [str(folder / "mine.py")]}


def test_two_files_of_one_name_stay_two(folder: Path, catalogue: Catalogue) -> None:
    (folder / "held" / "rows.jsonl").write_text("other")
    text = '[model]\nid = "m"\n[data]\npath = ["rows.jsonl", "held/rows.jsonl", "./rows.jsonl"]\n'
    made = portable(text, folder, catalogue)
    assert made.tables["data"]["path"] == ["files/rows.jsonl", "files/2/rows.jsonl", "files/rows.jsonl"]
    assert made.files["files/2/rows.jsonl"].read_text() == "other"


def test_a_prompt_is_no_path(folder: Path, catalogue: Catalogue) -> None:
    text = '[model]\nid = "m"\n[data]\npath = "org/set"\nsystem_prompt = "rows.jsonl\\nis what you know"\n'
    assert not portable(text, folder, catalogue).files

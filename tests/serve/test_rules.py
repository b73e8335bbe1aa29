"""What a job over the network may ask for: value by value, whatever its keys are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from forge_serve.rules import Rules


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that jobs may name files below, beside one that they may not."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "rows.jsonl").write_text("{}")
    here = tmp_path / "in"
    (here / "data").mkdir(parents=True)
    (here / "rows.jsonl").write_text("{}")
    (here / "data" / "a.jsonl").write_text("{}")
    (here / "link.jsonl").symlink_to(tmp_path / "out" / "rows.jsonl")
    (here / "linked").mkdir()
    (here / "linked" / "b.jsonl").symlink_to(tmp_path / "out" / "rows.jsonl")
    (here / "inner.jsonl").symlink_to(here / "rows.jsonl")
    return here


def asked(root: Path, value: object, key: str = "path", *, code: bool = False) -> list[str]:
    """Return what is wrong with a job that holds a value in a table of a plugin's own."""
    text = tomli_w.dumps({"plugins": {"strange": {key: value}}})
    return [problem.message for problem in Rules((root,), code).problems(text)]


@pytest.mark.parametrize(
    "value",
    [
        "../out/rows.jsonl",
        "data/../../out/rows.jsonl",
        "..",
        "nothing/../../out",
        "/etc/passwd",
        "/etc/not-there",
        "/",
        "~",
        "~/rows.jsonl",
        "~root/rows.jsonl",
        "link.jsonl",
        "*.jsonl",
        "/etc/*",
        "../*/rows.jsonl",
        "linked",
        "linked/*",
        "l*/b.jsonl",
        "sqlite/rows:/etc/passwd",
        "sqlite/rows:../out/rows.jsonl",
        "sqlite/rows:link.jsonl",
        "file:/etc/passwd",
        "  /etc/passwd",
        ["rows.jsonl", "/etc/passwd"],
        {"a": [{"b": "/etc/passwd"}]},
    ],
)
def test_a_path_that_leads_out_is_refused_under_any_key(root: Path, value: object) -> None:
    assert "outside of the folders" in asked(root, value)[0]
    assert asked(root, value, code=True), "code that is allowed allows no path"


@pytest.mark.parametrize(
    "value",
    [
        "rows.jsonl",
        "data",
        "data/*.jsonl",
        "inner.jsonl",
        "data/../rows.jsonl",
        "not-there.jsonl",
        "org/name",
        "org/name@main",
        "/no_think",
        "Say: yes, or no.",
        "a\nb ../.. c",
        "{question}\n/think",
        "12:30",
        "x" * 5000,
        "\\boxed{1}",
    ],
)
def test_what_lies_below_a_root_and_what_is_no_path_may_be_named(root: Path, value: str) -> None:
    assert asked(root, value) == []
    if len(value) < 200:
        assert asked(root, str(root / "rows.jsonl")) == []


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1/a",
        "file:///etc/passwd",
        "https://x.example/a b",
        "s3://bucket/x",
        "zip://a::http://b/c",
        "hf://x/y",
        "HTTP://X/y",
    ],
)
def test_an_address_is_not_fetched_for_a_request(root: Path, value: str) -> None:
    assert "is an address" in asked(root, value)[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use", "./rewards.py:score"),
        ("use", "rewards.py"),
        ("use", "os:system"),
        ("metrics", ["f1", "package.module:function"]),
        ("anything", "./deep/my plugin.py"),
        ("plugins", ["./my_plugin.py"]),
        ("library", "./x.so"),
        ("trust_remote_code", True),
        ("trust_remote_code", "true"),
        ("attn_implementation", "kernels-community/flash-attn3"),
        ("attn_implementation", "org/kernel@main:function"),
    ],
)
def test_code_is_refused_unless_it_is_allowed(root: Path, key: str, value: object) -> None:
    assert asked(root, value, key), "refused"
    assert asked(root, value, key, code=True) == []
    text = tomli_w.dumps({"train": {"reward": [{key: value}]}})
    assert Rules((root,)).code_problems(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("trust_remote_code", False),
        ("attn_implementation", "flash_attention_2"),
        ("use", "math-equal"),
        ("id", "llama3:8b"),
    ],
)
def test_what_runs_no_code_is_none(root: Path, key: str, value: object) -> None:
    assert asked(root, value, key) == []


@pytest.mark.parametrize(
    "text", ["[submit]\naccount = 'x'", "[launch]\nenv = { A = 'b' }", "[a]\nenvironment = ['A=b']"]
)
def test_accounts_and_variables_are_not_taken_over_the_network(root: Path, text: str) -> None:
    assert [problem.message for problem in Rules((root,), True).problems(text)] == ["is not taken over the network"]


def test_mistakes_have_their_lines_and_changes_are_held_to_the_same_rules(root: Path) -> None:
    text = '[data]\n# rows\npath = "/etc/passwd"\n[[train.reward]]\nuse = "./r.py:f"\n'
    changes = ["eval.data=../x", "model.trust_remote_code=true", 'a.b=["/etc/passwd"]', "train.max_steps=3"]
    found = Rules((root,)).problems(text, changes)
    assert {(each.where, each.line) for each in found} == {
        ("data.path", 3),
        ("train.reward.0.use", 5),
        ("eval.data", None),
        ("model.trust_remote_code", None),
        ("a.b.0", None),
    }


def test_a_text_that_is_no_toml_is_left_to_forge(root: Path) -> None:
    assert Rules((root,)).problems("a = ") == []
    assert Rules((root,)).problems("a = " + "[" * 5000) == []


def test_a_nul_is_no_path(root: Path) -> None:
    assert "NUL" in asked(root, "a\0b")[0]


def test_more_files_than_anybody_looks_at_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forge_serve.rules.MOST_FILES", 1)
    for index in range(3):
        (root / "data" / f"{index}.jsonl").write_text("{}")
    assert "nobody has looked at" in asked(root, "data")[0]

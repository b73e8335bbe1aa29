"""The line of a key: the one that an editor should jump to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import tomli
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.job.locate import locate

if TYPE_CHECKING:
    from collections.abc import Iterator

NASTY = '''\
# [model] id = "not a key"
top = 1
"quoted.key" = 'a = 1 # [x]'
a.b . "c d" = 2

[model]  # id
id = """
id = "x"
r = 1 \\""" still
""""" # five quotes end it
path = \'\'\'
[data]
\'\'\'
'lit"eral' = "\\"]}#,"
"esc\\u00e9\\tx" = 3

[adapter.deep]
r = 8

[adapter]
type = "lora"
modules = [
  "q", # , "zz" ]
  'k]',
  ["n", "m"],
]

[[export]]
format = "adapter"
[export.more]
x = 1

[[export]]
format = "gguf"
when = 2026-11-21 10:00:00
  [[export.sub]]
  y = 1
  [[export.sub]]
  y = 2

[data]
sources = [ { path = "a", weight = 1.0 },
            { path = "b", columns = { text = "t" } } ]
'''


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths(item, (*path, key))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("top",), "top = 1"),
        (("quoted.key",), '"quoted.key" ='),
        (("a", "b"), "a.b . "),
        (("a", "b", "c d"), "a.b . "),
        (("model",), "[model]"),
        (("model", "id"), 'id = """'),
        (("model", "path"), "path = '''"),
        (("model", 'lit"eral'), "'lit\"eral'"),
        (("model", "esc\u00e9\tx"), '"esc\\u00e9'),
        (("adapter",), "[adapter]"),
        (("adapter", "deep"), "[adapter.deep]"),
        (("adapter", "deep", "r"), "r = 8"),
        (("adapter", "modules", 1), "'k]',"),
        (("adapter", "modules", 2, 1), '["n", "m"]'),
        (("export",), "[[export]]"),
        (("export", 0, "format"), 'format = "adapter"'),
        (("export", 0, "more", "x"), "x = 1"),
        (("export", 1, "format"), 'format = "gguf"'),
        (("export", 1, "when"), "when ="),
        (("export", 1, "sub", 1, "y"), "y = 2"),
        (("data", "sources", 0, "weight"), "sources = ["),
        (("data", "sources", 1), '{ path = "b"'),
        (("data", "sources", 1, "columns", "text"), '{ path = "b"'),
    ],
)
def test_a_key_is_found_on_its_line(path: tuple[str | int, ...], expected: str) -> None:
    line = locate(NASTY, path)
    assert line is not None
    assert expected in NASTY.splitlines()[line - 1]


def test_every_path_of_the_parsed_text_is_known_itself() -> None:
    from forge.job.locate import _Scanner

    assert set(paths(tomli.loads(NASTY))) == set(_Scanner(NASTY).scan())


def test_the_second_element_of_an_array_of_tables_has_its_own_line() -> None:
    text = "[[export]]\n\n[[export]]\n"
    assert (locate(text, ("export", 0)), locate(text, ("export", 1))) == (1, 3)


@pytest.mark.parametrize(
    ("path", "line"),
    [(("model", "missing"), 2), (("model", "id", "deeper", 3), 3), (("nothing",), None), ((), None)],
)
def test_what_is_not_there_falls_back_to_what_surrounds_it(path: tuple[str | int, ...], line: int | None) -> None:
    assert locate("\n[model]\nid = 1\n", path) == line


def test_an_inline_table_may_span_lines_as_in_toml_1_1() -> None:
    text = "t = {\n  a = 1, # one\n  b = [\n 2 ],\n}\nc = 3\n"
    assert [locate(text, ("t", "a")), locate(text, ("t", "b", 0)), locate(text, ("c",))] == [2, 4, 6]


def test_windows_line_ends_count_once() -> None:
    assert locate("[a]\r\n\r\nb = 1\r\nc = 2\r\n", ("a", "c")) == 4


@given(st.text(alphabet="[]{}=.,\"'\\#\n ab1", max_size=40))
def test_no_text_makes_it_fail(text: str) -> None:
    locate(text, ("a", "b"))


scalars = (
    st.integers(-(2**53), 2**53)
    | st.booleans()
    | st.text(alphabet="ab\n\"'\\#=[]{},. é", max_size=12)
    | st.dates()
    | st.datetimes()
    | st.floats(allow_nan=False)
)
keys = st.text(alphabet="ab_\"'\\#=[]{},. é\n\t", max_size=4)
documents = st.dictionaries(
    keys,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=12,
    ),
    max_size=5,
)


def with_unique_keys(value: Any, count: list[int]) -> Any:
    """Number all keys, so that a line that holds a key is the line of that key."""
    if isinstance(value, dict):
        renamed = {}
        for key, item in value.items():
            count[0] += 1
            renamed[f"{key}<{count[0]}>"] = with_unique_keys(item, count)
        return renamed
    return [with_unique_keys(item, count) for item in value] if isinstance(value, list) else value


@settings(max_examples=150, deadline=None)
@given(documents, st.booleans())
def test_every_key_of_any_document_is_found_on_a_line_that_holds_it(document: Any, multiline: bool) -> None:
    text = tomli_w.dumps(with_unique_keys(document, [0]), multiline_strings=multiline)
    lines = text.split("\n")
    for path in paths(tomli.loads(text)):
        line = locate(text, path)
        assert line is not None
        names = [part for part in path if isinstance(part, str)]
        if isinstance(path[-1], str):
            assert tomli_w.dumps({names[-1]: 0}).removesuffix(" = 0\n") in lines[line - 1]

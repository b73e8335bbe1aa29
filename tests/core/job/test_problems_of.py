"""A table that a plugin checks itself is explained in the core's words."""

from __future__ import annotations

import doctest
from typing import TYPE_CHECKING, Any, Literal

import pytest
from pydantic import Field

from forge import errors
from forge.api import Mistake, Table, problems_of
from forge.job import explain, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator


class Inner(Table):
    size: int = Field(1, ge=1)


class Settings(Table):
    name: str
    share: float = Field(0.5, gt=0)
    kind: Literal["one", "two"] = "one"
    on: bool = False
    both: int | str | None = None
    low: int = 0
    high: int = 9
    inner: list[Inner] = Field(default_factory=list)

    def contradictions(self) -> Iterator[Mistake]:
        if self.low > self.high:
            yield Mistake("low is above high", ("low", "high"))


KNOWN = "known: both, high, inner, kind, low, name, on, share"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "a"}, []),
        ({}, [("t.0.name", "is missing", None)]),
        ({"name": 3}, [("t.0.name", "must be a string, not 3", None)]),
        ({"name": "a", "shares": 1.0}, [("t.0.shares", "unknown key", "did you mean share?")]),
        ({"name": "a", "share": 0.0}, [("t.0.share", "must be above 0.0, not 0.0", None)]),
        ({"name": "a", "kind": "six"}, [("t.0.kind", 'must be "one" or "two", not the string "six"', None)]),
        ({"name": "a", "both": []}, [("t.0.both", "must be a whole number or a string, not a list", None)]),
        ({"name": "a", "high": -1}, [("t.0.high", "low is above high", None)]),
        ({"name": "a", "inner": [{"size": 0}]}, [("t.0.inner.0.size", "must be at least 1, not 0", None)]),
        ({"name": "a", "str": 1}, [("t.0.str", "unknown key", KNOWN)]),
        (
            {"name": "a", "a[b": 1, "int": 2},
            [("t.0.a[b", "unknown key", KNOWN), ("t.0.int", "unknown key", KNOWN)],
        ),
        ({"name": "a", "inner": [{"sise": 2}]}, [("t.0.inner.0.sise", "unknown key", "did you mean size?")]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(values: dict[str, Any], said: list[Any]) -> None:
    assert [(each.where, each.message, each.do) for each in problems_of(Settings, values, "t.0")] == said


def test_all_mistakes_are_told_at_once() -> None:
    found = problems_of(Settings, {"on": "yes", "share": -1.0, "x": 1}, "plugins.mine")
    assert sorted(each.where for each in found) == [
        "plugins.mine.name",
        "plugins.mine.on",
        "plugins.mine.share",
        "plugins.mine.x",
    ]


@pytest.mark.parametrize("module", [errors, explain, nearest])
def test_the_examples_are_true(module: Any) -> None:
    assert doctest.testmod(module).failed == 0

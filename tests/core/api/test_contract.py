"""What plugins can rely on stays as it is written down: names, fields, arguments, defaults, words, exit codes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel

from forge.api import hooks
from support.contract import _function, _lines, _thing, contract, differences, written


def test_the_contract_is_what_is_written_down() -> None:
    assert differences(written(), contract()) == ""


def test_no_line_stands_twice_and_all_are_sorted() -> None:
    assert written() == sorted(set(written()))


def test_the_rule_that_applies_is_said() -> None:
    said = differences(["field api.A.b: int", "name api.A"], ["name api.A", "name api.C"])
    assert "gone or changed" in said.splitlines()[0]
    assert "two minor versions later" in said
    assert "  field api.A.b: int" in said.splitlines()
    assert said.index("nox -s contract") < said.index("  name api.C")
    assert differences(["name api.A"], ["name api.A"]) == ""


class Model(BaseModel):
    key: int = 3


class Colour(Enum):
    RED = "red"


@dataclass
class Record:
    first: int
    later: list[int] = field(default_factory=list, kw_only=True)

    def told(self, word: str, *, loud: bool = False) -> str:
        return word * loud


def function(one: int, *rest: str, two: bool = True) -> None: ...


@pytest.mark.parametrize(
    ("thing", "lines"),
    [
        (Model, ["field x.key: int = 3"]),
        (Colour, ["member x.RED = 'red'"]),
        (Record, ["field x.first [0]: int", "field x.later: list[int] = []", "call x.told(word) [0]: str"]),
        (Record, ["call x.told(loud): bool = False", "call x.told -> str"]),
        (function, ["call x(one) [0]: int", "call x(*rest): str", "call x(two): bool = True", "call x -> None"]),
    ],
)
def test_each_kind_of_thing_is_told_whole(thing: Any, lines: list[str]) -> None:
    assert set(lines) <= set(_thing("x", thing))


def test_every_hook_is_told_by_its_arguments() -> None:
    kinds = [kind for name, kind in vars(hooks).items() if name.endswith("Hooks") and inspect.isclass(kind)]
    names = {name for kind in kinds for name in vars(kind) if name.startswith("forge_")}
    assert {line.split()[1].partition("(")[0] for line in _lines() if line.startswith("hook ")} == names
    assert "hook forge_event(run): Run" in contract()
    told = list(_function("hook x", hooks.RunHooks.forge_load, places=False))
    assert told == ["hook x -> Loaded", "hook x(job): Job", "hook x(run): Run", "hook x(data): Data"]

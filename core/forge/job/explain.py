"""What pydantic finds wrong, in words for people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from forge.errors import Mistake, Mistakes, Problem
from forge.job.keys import keys_of
from forge.job.nearest import did_you_mean
from forge.job.table import judged

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic_core import ErrorDetails

    from forge.job.locate import Key


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that pydantic finds wrong with a table.

    Attributes:
        key: Where: the path of a value.
        message: What is wrong.
        do: What to write instead, where something can be said.
        names: The keys of the table at ``key`` that it is about, of a contradiction.
        stranger_in: The model of the table that does not know the key; None where the key is known. There may be
            better advice than what stands in ``do``, the nearest name.
        between: Whether it lies between keys of the table at ``key``, each of which is right by itself.
    """

    key: Key
    message: str
    do: str | None = None
    names: tuple[str, ...] = ()
    stranger_in: type[BaseModel] | None = None
    between: bool = False


def faults(model: type[BaseModel], value: Any, error: ValidationError, prefix: Key = ()) -> Iterator[Fault]:
    """Yield what a model finds wrong with a table, each key once, in words.

    Args:
        model: The model.
        value: The table.
        error: What the model raised.
        prefix: The path of the table.
    """
    found: dict[Key, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        found.setdefault((*prefix, *place_of(value, detail)), []).append(detail)
    for key, details in found.items():
        # Of a union's branches, the one that got further is meant.
        in_union = any(len(detail["loc"]) > len(key) - len(prefix) for detail in details)
        if not any(other[: len(key)] == key != other and in_union for other in found):
            yield from _translated(model, details, key)


def place_of(value: Any, detail: ErrorDetails) -> Key:
    """Return the path of what is wrong in a value.

    pydantic's path names the branches of unions too (``list[str]``, ``int``), and a key of a file may be called so.
    What tells them apart is that the path's keys alone lead to the very value that was found wrong.
    """
    place = detail["loc"]
    if detail["type"] == "missing":
        return (*(_way(value, place[:-1], detail["input"]) or ()), place[-1])
    way = _way(value, place, detail["input"])
    if way is None and place[-1:] == ("[key]",):  # it is the key that is wrong
        way = _way(value, place[:-1])
    return tuple(part for part in place if not is_branch(part)) if way is None else way


_ANY = object()


def _way(value: Any, place: Key, end: Any = _ANY) -> Key | None:
    """Return the parts of pydantic's path that are keys and lead to a value; None if none lead there."""
    if not place:
        return () if end is _ANY or value is end else None
    part, rest = place[0], place[1:]
    inside = part in value if isinstance(value, dict) else isinstance(value, list) and part in range(len(value))
    if inside and (way := _way(value[part], rest, end)) is not None:
        return (part, *way)
    return _way(value, rest, end) if isinstance(part, str) else None


def beside(
    found: Sequence[Fault], model: type[BaseModel], value: Any, context: dict[str, Any], prefix: Key
) -> Iterator[Fault]:
    """Yield the contradictions of tables that hold faulty keys, which pydantic looks for in faultless ones only.

    They are what the model finds once those keys are taken out. What names one of them may be about its absence, and is
    left for when it is mended.

    Args:
        found: The faults that pydantic has found.
        model: The model.
        value: The table.
        context: What the model is asked with.
        prefix: The path of the table.
    """
    keys = (_in_table(model, fault.key[len(prefix) :]) for fault in found if not fault.between)
    faulty = [key for key in keys if key]
    if not faulty:
        return
    names = re.compile("|".join(rf"\b{re.escape(str(key[-1]))}\b" for key in faulty))
    rest = value
    for key in faulty:
        rest = _without(rest, key)
    try:
        judged(model, rest, context)
    except ValidationError as error:
        for fault in faults(model, rest, error, prefix):
            if fault.between and fault not in found and not names.search(" ".join((fault.message, *fault.names))):
                yield fault


def _in_table(model: type[BaseModel], key: Key) -> Key:
    """Return the path of the table's key that a value belongs to: what is in a list or a dict goes with it."""
    while key and (isinstance(key[-1], int) or table_at(model, key[:-1]) is None):
        key = key[:-1]
    return key


def _without(value: Any, key: Key) -> Any:
    """Return a value without what lies at a path in it; a key that is missing there gets a word."""
    part, rest = key[0], key[1:]
    if isinstance(value, list):
        return [_without(item, rest) if index == part else item for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if not rest:
        return {name: item for name, item in value.items() if name != part} if part in value else {**value, part: "x"}
    return {name: _without(item, rest) if name == part else item for name, item in value.items()}


def _translated(model: type[BaseModel], details: Sequence[ErrorDetails], key: Key) -> Iterator[Fault]:
    """Turn what pydantic says about one key into words."""
    kind, place, given = details[0]["type"], details[0]["loc"], details[0]["input"]
    if kind == "extra_forbidden":
        table = table_at(model, place[:-1]) or model
        say = did_you_mean(str(key[-1]), keys_of(table), known(keys_of(table)))
        yield Fault(key, "unknown key", say, stranger_in=table)
    elif kind == "list_type" and isinstance(given, dict) and table_at(model, (*place, 0)):
        path = ".".join(map(str, key))
        yield Fault(key, "is one table", f"write [[{path}]] with two brackets: there can be several")
    elif kind == "missing":
        yield Fault(key, "is missing", missing(key))
    elif kind == "value_error":
        error = details[0]["ctx"]["error"]
        for mistake in error.mistakes if isinstance(error, Mistakes) else [Mistake(str(error))]:
            yield Fault(key, mistake.message, names=mistake.keys, between=isinstance(given, dict))
    else:
        yield Fault(key, explain(details))


def first_there(values: Any, key: Key, names: Iterable[str]) -> Key:
    """Return the first of a table's keys that is there, or else the table's own.

    Args:
        values: What holds the table.
        key: The table's path in it.
        names: The keys.
    """
    table: Any = values
    for part in key:
        inside = part in table if isinstance(table, dict) else isinstance(table, list) and part in range(len(table))
        table = table[part] if inside else {}
    return next(((*key, name) for name in names if isinstance(table, dict) and name in table), key)


def problems_of(model: type[BaseModel], value: Any, where: str) -> list[Problem]:
    """Return what a model finds wrong with a table that a plugin checks itself, in the words of any other table.

    Args:
        model: The model.
        value: The table.
        where: The table's path, as in ``"train.reward.0.args"``.

    Example:
        >>> class Args(BaseModel, extra="forbid"):
        ...     column: str
        >>> for problem in problems_of(Args, {"colum": "x"}, "train.reward.0.args"):
        ...     print(problem.where, problem.message, problem.do)
        train.reward.0.args.column is missing None
        train.reward.0.args.colum unknown key did you mean column?
    """
    try:
        judged(model, value)
    except ValidationError as error:
        table = tuple(where.split("."))
        found = []
        for fault in faults(model, value, error, table):
            key = first_there(value, fault.key[len(table) :], fault.names)
            found.append(Problem(".".join([where, *map(str, key)]), fault.message, fault.do))
        return found
    return []


def is_branch(part: str | int) -> bool:
    """Tell pydantic's names for the branches of a union (``list[str]``, ``int``) from a file's keys."""
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "bool"})


def table_at(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the model of a table inside a model's values, by pydantic's path to it; None if there is no table."""
    found: Any = model
    for part in place:
        if isinstance(found, type) and issubclass(found, BaseModel):
            fields = found.model_fields
            named = {field.alias or name: field.annotation for name, field in fields.items()}
            found = named.get(str(part))
        elif isinstance(part, int) or (found is not None and get_origin(found) is dict):
            found = next(iter(get_args(found)[::-1]), None)
        if get_origin(found) in {Union, UnionType}:
            tables = [each for each in get_args(found) if each is not type(None)]
            found = tables[0] if len(tables) == 1 else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


_WORDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "dict_type": "a table",
    "model_type": "a table",
}


def explain(details: Sequence[ErrorDetails]) -> str:
    """Say what a value must be; there are several details where it may be of several types."""
    wishes = dict.fromkeys(_WORDS[detail["type"]] for detail in details if detail["type"] in _WORDS)
    literals = [_choices(detail) for detail in details if detail["type"] == "literal_error"]
    if len(wishes) > 1 and "a number" in wishes:
        wishes.pop("a whole number", None)
    other = next((d for d in details if d["type"] not in _WORDS and d["type"] != "literal_error"), None)
    if other is None:
        return f"must be {' or '.join([*wishes, *literals])}, not {shown(details[0]['input'])}"
    kind, context, given = other["type"], other.get("ctx", {}), other["input"]
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        words = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}
        bound = next(iter(context.values()))
        return f"must be {words.get(kind, 'at most')} {bound}, not {shown(given)}"
    if kind == "finite_number":
        return f"must be a finite number, not {shown(given)}"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_pattern_mismatch" and not context["pattern"].startswith(r"^[\w][\w.-]"):
        return f"must match {context['pattern']}, not {shown(given)}"
    if kind == "string_pattern_mismatch":
        return f"may hold letters, digits, dots, dashes and underscores only, not {shown(given)}"
    return f"{other['msg'][0].lower()}{other['msg'][1:]}, not {shown(given)}"


def _choices(detail: ErrorDetails) -> str:
    """Return the allowed words, the nearest ones alone where they are many."""
    expected = detail["ctx"]["expected"].replace("'", '"')
    words = re.findall(r'"([^"]*)"', expected)
    if len(words) <= 10:
        return str(expected)
    import difflib  # few mistakes pay for it

    near = difflib.get_close_matches(str(detail["input"]), words, n=4, cutoff=0.4) or words[:4]
    return f"one of {len(words)} words, such as {', '.join(f'{chr(34)}{word}{chr(34)}' for word in near)}"


def shown(value: Any) -> str:
    """Return a value as a message shows it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the string "{value}"' if len(value) < 40 else "a string"
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else str(value)


def missing(key: Key) -> str | None:
    """Return what to write for a key that must be there."""
    if key == ("model",):
        return 'write [model] with id = "org/name" or a local folder'
    if key == ("data",):
        return 'write [data] with path = "rows.jsonl"'
    return None


def known(fields: Iterable[str]) -> str:
    """Return what keys there are, or where they are told if there are many."""
    names = sorted(fields)
    return f"known: {', '.join(names)}" if len(names) <= 16 else "see `forge schema` or docs/job.md for the keys"

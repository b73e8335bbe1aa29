"""One pass over a raw job that finds every mistake, and says each in words that help."""

from __future__ import annotations

import difflib
import re
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from forge.api import Stage
from forge.errors import Mistakes, Problem
from forge.job import AdapterTable, ExportTable, Job, TrainTable
from forge.keys import TABLES, config_models, names, option_models
from forge.locate import locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from forge.discovery import Catalogue

Key = tuple[str | int, ...]
T = TypeVar("T", bound=BaseModel)


class JobCheck:
    """One pass over a raw job that collects problems instead of stopping at the first."""

    def __init__(
        self, raw: dict[str, Any], text: str, source: str, catalogue: Catalogue, changed: Sequence[Key] = ()
    ) -> None:
        self.raw, self.text, self.source, self.catalogue, self.changed = raw, text, source, catalogue, changed
        self.problems: list[Problem] = []

    def add(self, key: Key, message: str, do: str | None = None) -> None:
        """Note a mistake at a key, with its line, or that it came from ``--set``."""
        where = ".".join(map(str, key))
        if any(key[: len(path)] == path for path in self.changed):
            self.problems.append(Problem(where, f"{message} (from --set)", do))
        else:
            self.problems.append(Problem(where, message, do, locate(self.text, key)))

    def job(self, folder: Path) -> Job | None:
        """Return the job, or None if there are mistakes."""
        raw = {key: _copy(value) for key, value in self.raw.items() if key != "folder"}
        if "folder" in self.raw:  # a field of Job, but not a key of its file
            self.unknown_core(("folder",), Job)
        options = self.take_options(raw)
        self.plugin_tables(raw)
        job = self.validate(Job, {**raw, "folder": folder}, (), self.unknown_core)
        if job is None or self.problems:
            return None
        exports = [
            export.model_copy(update={"options": options.get(("export", index), {})})
            for index, export in enumerate(job.export)
        ]
        return job.model_copy(
            update={
                "adapter": job.adapter.model_copy(update={"options": options.get(("adapter",), {})}),
                "train": job.train.model_copy(update={"options": options.get(("train",), {})}),
                "export": exports,
            }
        )

    def take_options(self, raw: dict[str, Any]) -> dict[Key, dict[str, Any]]:
        """Move the keys that are not the core's out of the stages' tables, and check them with the plugins' models."""
        found: dict[Key, dict[str, Any]] = {}
        tables: list[tuple[Key, Any, Stage, type[BaseModel], str]] = [
            (("adapter",), raw.setdefault("adapter", {}), Stage.ADAPT, AdapterTable, "type"),
            (("train",), raw.setdefault("train", {}), Stage.TRAIN, TrainTable, "method"),
        ]
        exports = raw.get("export", [])
        if isinstance(exports, dict):
            self.add(("export",), "is one table", "write [[export]] with two brackets: there can be several")
            raw["export"] = exports = []
        if isinstance(exports, list):
            tables += [(("export", i), table, Stage.EXPORT, ExportTable, "format") for i, table in enumerate(exports)]
        for key, table, stage, core, selector in tables:
            if not isinstance(table, dict):
                continue  # the core's check says so
            word = table.get(selector, core.model_fields[selector].default)
            extra = {
                name: table.pop(name) for name in list(table) if name not in core.model_fields or name == "options"
            }
            words = sorted(self.words(stage))
            if word in words:
                found[key] = self.options(key, extra, stage, core, [word])
                continue
            if isinstance(word, str):
                near = difflib.get_close_matches(word.lower(), words, n=1)
                say = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(words)}"
                if elsewhere := getattr(core, "forge_word", None):
                    say = elsewhere(word) or say
                self.add((*key, selector), f'no installed plugin knows {selector} "{word}"', say)
            self.options(key, extra, stage, core, words, values=False)
        return found

    def words(self, stage: Stage) -> set[str]:
        """The methods, types or formats that the installed plugins serve."""
        return names(self.catalogue, stage)

    def options(
        self,
        key: Key,
        extra: dict[str, Any],
        stage: Stage,
        core: type[BaseModel],
        words: Sequence[str],
        *,
        values: bool = True,
    ) -> dict[str, Any]:
        """Check the keys that plugins add to a table; without ``values`` only their names."""
        checked: dict[str, Any] = {}
        models = [found for word in words for found in option_models(self.catalogue, stage, word)]
        known = set().union(*(model.model_fields for _, model in models)) if models else set()
        hints = [model.forge_hint for model in (core, *(model for _, model in models)) if hasattr(model, "forge_hint")]
        for name in sorted(set(extra) - known):
            self.unknown((*key, name), [*core.model_fields, *known], hints)
        for _, model in models if values else ():
            mine = {name: value for name, value in extra.items() if name in model.model_fields}
            if (table := self.validate(model, mine, key, self.unknown_core)) is not None:
                checked |= table.model_dump(mode="json")
        return checked

    def plugin_tables(self, raw: dict[str, Any]) -> None:
        """Check ``[plugins.X]`` by the model of X, whether or not X is chosen: the same file works everywhere."""
        tables = raw.get("plugins", {})
        if not isinstance(tables, dict):
            return
        for name, table in tables.items():
            tables[name] = {}
            plugin = self.catalogue.find(name)
            if plugin is None:
                near = difflib.get_close_matches(name, [p.name for p in self.catalogue.plugins], n=1)
                say = f"did you mean [plugins.{near[0]}]?" if near else f"install it (often `pip install forge-{name}`)"
                self.add(("plugins", name), f"there is no plugin {name}", say)
            elif plugin.status != "ok":
                self.add(("plugins", name), f"plugin {name} cannot be used: {plugin.reason}")
            elif not (models := config_models(plugin)):
                self.add(("plugins", name), f"plugin {name} has no settings", "remove the table")
            else:
                for model in models:
                    if (checked := self.validate(model, table, ("plugins", name), self.unknown_core)) is not None:
                        tables[name] |= checked.model_dump(mode="json")

    def validate(
        self, model: type[T], value: Any, prefix: Key, unknown: Callable[[Key, type[BaseModel]], None]
    ) -> T | None:
        """Check a table with its model, and note what the model finds."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            found: dict[Key, list[ErrorDetails]] = {}
            for detail in error.errors(include_url=False):
                key = (*prefix, *(part for part in detail["loc"] if not _is_branch(part)))
                found.setdefault(key, []).append(detail)
            for key, details in found.items():
                # Of a union's branches, the one that got further is meant.
                if not any(other[: len(key)] == key != other and _in_union(details) for other in found):
                    self.translate(model, details, key, unknown)
            return None

    def translate(
        self,
        model: type[BaseModel],
        details: Sequence[ErrorDetails],
        key: Key,
        unknown: Callable[[Key, type[BaseModel]], None],
    ) -> None:
        """Turn what pydantic says about one key into a mistake in words."""
        kind, place = details[0]["type"], details[0]["loc"]
        if kind == "extra_forbidden":
            unknown(key, _table_at(model, place[:-1]) or model)
        elif kind == "list_type" and isinstance(details[0]["input"], dict) and _table_at(model, (*place, 0)):
            path = ".".join(map(str, key))
            self.add(key, "is one table", f"write [[{path}]] with two brackets: there can be several")
        elif kind == "missing":
            self.add(key, "is missing", _missing(key))
        elif kind == "value_error":
            error = details[0]["ctx"]["error"]
            for message in map(str, error.args if isinstance(error, Mistakes) else [error]):
                self.add((*key, *self.first_key(key, message)), message)
        else:
            self.add(key, _explain(details))

    def first_key(self, key: Key, message: str) -> list[str]:
        """Return the first key of a table that a message about the table names: there the mistake stands."""
        table: Any = self.raw
        for part in key:
            table = table[part]
        return [word for word in re.findall(r"\w+", message) if isinstance(table, dict) and word in table][:1]

    def unknown_core(self, key: Key, model: type[BaseModel]) -> None:
        """Report a key that the core, or a plugin's model, does not know."""
        names = [part for part in key if isinstance(part, str)]
        if len(names) == 1:
            fields: Iterable[str] = ["name", *TABLES, "plugins"]
        elif len(names) == 2 and names[0] in TABLES:
            fields = [field.alias or name for name, field in TABLES[names[0]].model_fields.items()]
        else:
            fields = model.model_fields
        self.unknown(key, fields, [_other_name] if len(names) == 1 else [])

    def unknown(self, key: Key, fields: Iterable[str], hints: Iterable[Callable[[str], str | None]]) -> None:
        """Note a key that nobody knows, with the best advice there is: a hint, its own table, the nearest name."""
        name = str(key[-1])
        fields = [field for field in fields if field not in {"options", "folder"}]
        for hint in hints:
            if said := hint(name):
                self.add(key, "is not a key of this table", said)
                return
        homes = [table for table, model in TABLES.items() if table != key[0] and name in model.model_fields]
        # [eval] has keys that mean something else in [train]: seed, path, batch_size.
        home = next((table for table in homes if table not in {"eval", "generation"}), None)
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0.6)
        kind = "table" if len(key) == 1 and isinstance(self.raw.get(name), dict) else "key"
        if home and len(key) > 1:
            self.add(key, f"unknown {kind}", f"{name} belongs to [{home}]")
        elif near:
            self.add(key, f"unknown {kind}", f"did you mean {near[0]}?")
        elif home := self.train_home(name, key):
            self.add(key, f"unknown {kind}", home)
        elif homes and len(key) > 1:
            self.add(key, f"unknown {kind}", f"{name} belongs to {' or '.join(f'[{table}]' for table in homes)}")
        else:
            self.add(key, f"unknown {kind}", _known(fields))

    def train_home(self, name: str, key: Key) -> str | None:
        """A trainer's argument in another table is a common mistake."""
        if key[0] == "train":
            return None
        for word in sorted(self.words(Stage.TRAIN)):
            for _, model in option_models(self.catalogue, Stage.TRAIN, word):
                said = model.forge_hint(name) if hasattr(model, "forge_hint") else None
                right = name if name in model.model_fields else (said or "").removeprefix("write ")
                if right in model.model_fields:
                    return f"{right} belongs to [train]"
        return None


def _other_name(key: str) -> str | None:
    """Say which table a name of other tools means, where the nearest name of forge's would mislead."""
    return "write [eval]" if key in {"evaluate", "evaluation"} else None


def _is_branch(part: str | int) -> bool:
    """Tell pydantic's names for the branches of a union (``list[str]``, ``int``) from a file's keys."""
    return isinstance(part, str) and ("[" in part or part in {"str", "int", "float", "bool"})


def _table_at(model: type[BaseModel], place: Sequence[str | int]) -> type[BaseModel] | None:
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


def _in_union(details: Sequence[ErrorDetails]) -> bool:
    return any(_is_branch(part) for detail in details for part in detail["loc"])


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


def _explain(details: Sequence[ErrorDetails]) -> str:
    """Say what a value must be; there are several details where it may be of several types."""
    wishes = dict.fromkeys(_WORDS[detail["type"]] for detail in details if detail["type"] in _WORDS)
    literals = [_choices(detail) for detail in details if detail["type"] == "literal_error"]
    if len(wishes) > 1 and "a number" in wishes:
        wishes.pop("a whole number", None)
    other = next((d for d in details if d["type"] not in _WORDS and d["type"] != "literal_error"), None)
    if other is None:
        return f"must be {' or '.join([*wishes, *literals])}, not {_show(details[0]['input'])}"
    kind, context, given = other["type"], other.get("ctx", {}), other["input"]
    if kind in {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}:
        words = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}
        bound = next(iter(context.values()))
        return f"must be {words.get(kind, 'at most')} {bound}, not {_show(given)}"
    if kind == "finite_number":
        return f"must be a finite number, not {_show(given)}"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return f"may hold letters, digits, dots, dashes and underscores only, not {_show(given)}"
    return f"{other['msg'][0].lower()}{other['msg'][1:]}, not {_show(given)}"


def _choices(detail: ErrorDetails) -> str:
    """Return the allowed words, the nearest ones alone where they are many."""
    expected = detail["ctx"]["expected"].replace("'", '"')
    words = re.findall(r'"([^"]*)"', expected)
    if len(words) <= 10:
        return str(expected)
    near = difflib.get_close_matches(str(detail["input"]), words, n=4, cutoff=0.4) or words[:4]
    return f"one of {len(words)} words, such as {', '.join(f'{chr(34)}{word}{chr(34)}' for word in near)}"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'the string "{value}"' if len(value) < 40 else "a string"
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else str(value)


def _missing(key: Key) -> str | None:
    if key == ("model",):
        return 'write [model] with id = "org/name" or a local folder'
    if key == ("data",):
        return 'write [data] with path = "rows.jsonl"'
    return None


def _known(fields: Iterable[str]) -> str:
    names = sorted(fields)
    return f"known: {', '.join(names)}" if len(names) <= 16 else "see `forge schema` or docs/job.md for the keys"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value

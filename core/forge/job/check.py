"""One pass over a raw job that finds every mistake, and says each in words that help.

The words are imported when there is a mistake: a job without one, which is nearly every job, does not wait for them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from forge.errors import Problem
from forge.job.job import Job
from forge.job.keys import SELECTORS, keys_of
from forge.job.nearest import nearest
from forge.job.table import Hint, Table, judged
from forge.job.tables import TABLES
from forge.job.values import take_out_unfit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from forge.job.keys import Keys
    from forge.job.locate import Key

T = TypeVar("T", bound=BaseModel)


class JobCheck:
    """One pass over a raw job that collects problems instead of stopping at the first.

    Args:
        raw: The tables as they were read, changes of the command line applied.
        text: The file's text, for lines.
        keys: The keys that plugins add.
        changed: The keys that the command line changed, which have no line.

    Attributes:
        problems: What has been found so far.
        written: What each table has beside the core's keys, by its place: ``{"train": {"optim": "adamw"}}``.
    """

    def __init__(self, raw: dict[str, Any], text: str, keys: Keys, changed: Sequence[Key] = ()) -> None:
        self.raw, self.text, self.keys, self.changed = raw, text, keys, changed
        self.problems: list[Problem] = []
        self.written: dict[str, dict[str, Any]] = {}
        self.told: list[Key] = []  # what was unfit whatever it means: nothing more is said of it

    def add(self, key: Key, message: str, do: str | None = None) -> None:
        """Note a mistake at a key, with its line, or that it came from ``--set``."""
        from forge.job.locate import end_of, nearest_line

        if any(key[: len(told)] == told for told in self.told):
            return
        line = self.lines.get(key)
        # A change that goes deeper has made the tables on its way, unless the file has them.
        if any(key[: len(path)] == path or (line is None and path[: len(key)] == key) for path in self.changed):
            message, line = f"{message} (from --set)", None
        else:  # what is missing, and has no table of its own, can be written at the end
            line = line or nearest_line(self.lines, key) or end_of(self.text)
        self.problems.append(Problem(".".join(map(str, key)), message, do, line))

    @cached_property
    def lines(self) -> Mapping[Key, int]:
        """The lines of the file's keys."""
        from forge.job.locate import lines_of

        return lines_of(self.text)

    def job(self, folder: Path) -> Job | None:
        """Return the job, or None if there are mistakes."""
        for key, message, do in take_out_unfit(self.raw):
            self.add(key, message, do)
            self.told.append(key)
        raw = {key: _copy(value) for key, value in self.raw.items() if key != "folder"}
        if "folder" in self.raw:  # a field of Job, but not a key of its file
            self.unknown_core(("folder",), Job)
        self.check_options(raw)
        self.plugin_tables(raw)
        job = self.validate(Job, {**raw, "folder": folder}, (), self.unknown_core)
        return None if self.problems else job

    def check_options(self, raw: dict[str, Any]) -> None:
        """Check the keys that are not the core's with the plugins' models, and put what those make of them in place."""
        tables: list[tuple[Key, Any]] = [((name,), raw.setdefault(name, {})) for name in ("adapter", "train")]
        exports = raw.get("export", [])
        if isinstance(exports, dict):
            self.add(("export",), "is one table", "write [[export]] with two brackets: there can be several")
            raw["export"] = exports = []
        if isinstance(exports, list):
            tables += [(("export", index), table) for index, table in enumerate(exports)]
        for key, table in tables:
            if isinstance(table, dict):  # else the core's check says so
                self.check_table(key, table)

    def check_table(self, key: Key, table: dict[str, Any]) -> None:
        """Check the plugins' keys of one table, as far as its word says which they are."""
        name, place = str(key[0]), ".".join(map(str, key))
        core, selector = TABLES[name], SELECTORS[name]
        word = table.get(selector, core.model_fields[selector].default)
        extra = {key: table.pop(key) for key in list(table) if key not in keys_of(core)}
        self.written[place] = extra
        words = sorted(self.keys.words(name))
        if word in words:
            models = self.keys.models(place, word, self.use, extra)
            table |= self.options(key, extra, models, self.others(place, word))
            return
        models = [model for each in words if "/" not in each for model in self.keys.models(place, each, self.use)]
        if isinstance(word, str) and (known := self.known_of(word)):
            self.add((*key, selector), f'no installed plugin knows {selector} "{word}"', known)
        elif isinstance(word, str):
            near = nearest(word.lower(), words)
            say = f'did you mean "{near}"?' if near else f"there are: {', '.join(words)}"
            elsewhere = (model.forge_word(word) for model in (core, *models) if issubclass(model, Table))
            say = next((said for said in elsewhere if said), say)
            self.add((*key, selector), f'no installed plugin knows {selector} "{word}"', say)
            if near:  # its keys are the likeliest, and all mistakes are told at once
                self.options(key, extra, self.keys.models(place, near, self.use, extra))
                return
        self.unknown_options(key, extra, models)

    @cached_property
    def use(self) -> Mapping[str, Any]:
        """The table ``[use]`` as it stands there: which plugins the job names or prefers."""
        use = self.raw.get("use", {})
        return use if isinstance(use, dict) else {}

    def others(self, place: str, word: str) -> str | None:
        """Say which other plugins may know a key that the one that serves a table does not; it is not asked of them."""
        stage = {"adapter": "adapt"}.get(place, place.partition(".")[0])
        names = self.keys.others(place, word, self.use, self.written[place])
        return f"it may be a key of {' or '.join(names)}: name it in [use] {stage}" if names else None

    def known_of(self, word: str) -> str | None:
        """Say what is known of the plugin whose own word a job asks for, where that plugin cannot serve it."""
        plugin, slash, _ = word.partition("/")
        if not slash:
            return None
        settings = self.keys.settings(plugin)
        if settings is None:
            near = nearest(plugin, self.keys.plugins())
            return f"there is no plugin {plugin}" + (
                f"; did you mean {near}?" if near else f": install it (often `pip install forge-{plugin}`)"
            )
        return f"plugin {plugin} cannot be used: {settings.fault}" if settings.fault else None

    def options(
        self, key: Key, extra: dict[str, Any], models: Sequence[type[BaseModel]], others: str | None = None
    ) -> dict[str, Any]:
        """Return the plugins' keys of a table, checked, defaults filled in."""
        self.unknown_options(key, extra, models, others)
        checked: dict[str, Any] = {}
        for model in models:
            mine = {name: value for name, value in extra.items() if name in model.model_fields}
            if (table := self.validate(model, mine, key, self.unknown_core)) is not None:
                checked |= table.model_dump(mode="json")
        return checked

    def unknown_options(
        self, key: Key, extra: Mapping[str, Any], models: Sequence[type[BaseModel]], others: str | None = None
    ) -> None:
        """Note the keys of a table that neither the core nor a plugin knows there."""
        core = TABLES[str(key[0])]
        known_keys = {name for model in models for name in model.model_fields}
        hints = [model.forge_hint for model in (core, *models) if issubclass(model, Table)]
        for name in sorted(set(extra) - known_keys):
            self.unknown((*key, name), [*keys_of(core), *sorted(known_keys)], hints, others)

    def plugin_tables(self, raw: dict[str, Any]) -> None:
        """Check ``[plugins.X]`` by the model of X, whether or not X is chosen: the same file works everywhere."""
        tables = raw.get("plugins", {})
        if not isinstance(tables, dict):
            return
        for name, table in tables.items():
            tables[name] = {}
            settings = self.keys.settings(name)
            if settings is None:
                near = nearest(name, self.keys.plugins())
                say = f"did you mean [plugins.{near}]?" if near else f"install it (often `pip install forge-{name}`)"
                self.add(("plugins", name), f"there is no plugin {name}", say)
            elif settings.fault:
                self.add(("plugins", name), f"plugin {name} cannot be used: {settings.fault}")
            elif not settings.models:
                self.add(("plugins", name), f"plugin {name} has no settings", "remove the table")
            for model in settings.models if settings else ():
                if (checked := self.validate(model, table, ("plugins", name), self.unknown_core)) is not None:
                    tables[name] |= checked.model_dump(mode="json")

    def validate(
        self, model: type[T], value: Any, prefix: Key, unknown: Callable[[Key, type[BaseModel]], None]
    ) -> T | None:
        """Check a table with its model, and note what the model finds."""
        mine = {key[len(prefix)] for key in self.changed if len(key) > len(prefix) and key[: len(prefix)] == prefix}
        context = {"changed": mine if prefix else set()}
        try:
            return judged(model, value, context)
        except ValidationError as error:
            from forge.job.explain import beside, faults, first_there

            found = list(faults(model, value, error, prefix))
            for fault in (*found, *beside(found, model, value, context, prefix)):
                if fault.stranger_in:
                    unknown(fault.key, fault.stranger_in)
                else:
                    self.add(first_there(self.raw, fault.key, fault.names), fault.message, fault.do)
            return None

    def unknown_core(self, key: Key, model: type[BaseModel]) -> None:
        """Report a key that the core, or a plugin's model, does not know."""
        names = [part for part in key if isinstance(part, str)]
        if len(names) == 1:
            fields: Iterable[str] = ["name", *TABLES, "plugins"]
        elif len(names) == 2 and names[0] in TABLES:
            fields = keys_of(TABLES[names[0]])
        else:
            fields = model.model_fields
        hints = [_other_name] if len(names) == 1 else [model.forge_hint] if issubclass(model, Table) else []
        self.unknown(key, fields, hints)

    def unknown(
        self,
        key: Key,
        fields: Iterable[str],
        hints: Iterable[Callable[[str], Hint | None]],
        others: str | None = None,
    ) -> None:
        """Note a key that nobody knows, with the best advice there is: a hint, its own table, the nearest name."""
        name = str(key[-1])
        fields = [field for field in fields if field != "folder"]
        for hint in hints:
            if said := hint(name):
                self.add(key, "is not a key of this table", said.do)
                return
        if key[0] in TABLES and (home_there := elsewhere(name, str(key[0]))):
            self.add(key, "is not a key of this table", home_there)
            return
        homes = [table for table, model in TABLES.items() if table != key[0] and name in keys_of(model)]
        # [eval] has keys that mean something else in [train]: seed, path, batch_size.
        home = next((table for table in homes if table not in {"eval", "generation"}), None)
        near = nearest(name, fields)
        kind = "table" if len(key) == 1 and isinstance(self.raw.get(name), dict) else "key"
        if home and len(key) > 1:
            self.add(key, f"unknown {kind}", f"{name} belongs to [{home}]")
        elif near:
            self.add(key, f"unknown {kind}", f"did you mean {near}?")
        elif home := self.train_home(name, key):
            self.add(key, f"unknown {kind}", home)
        elif homes and len(key) > 1:
            self.add(key, f"unknown {kind}", f"{name} belongs to {' or '.join(f'[{table}]' for table in homes)}")
        elif others:
            self.add(key, f"unknown {kind}", others)
        else:
            from forge.job.explain import known

            self.add(key, f"unknown {kind}", known(fields))

    def train_home(self, name: str, key: Key) -> str | None:
        """A trainer's argument in another table is a common mistake."""
        if key[0] == "train":
            return None
        for word in sorted(word for word in self.keys.words("train") if "/" not in word):
            for model in self.keys.models("train", word, self.use):
                hint = model.forge_hint(name) if issubclass(model, Table) else None
                right = hint.key if hint and name not in model.model_fields else name
                if right in model.model_fields:
                    return f"{right} belongs to [train]"
        return None


def elsewhere(name: str, table: str) -> str | None:
    """Say where a key of another tool belongs that stands in the wrong table, or that forge does without."""
    for other, model in TABLES.items():
        hint = model.forge_hint(name) if other != table and issubclass(model, Table) else None
        if hint:
            return f"belongs to [{other}] {hint.key}" if hint.key else hint.do
    return None


def _other_name(key: str) -> Hint | None:
    """Say which table a name of other tools means, where the nearest name of forge's would mislead."""
    return Hint("write [eval]") if key in {"evaluate", "evaluation"} else None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value

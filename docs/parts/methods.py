"""The methods and the arguments of their trainers, as the newest tested versions have them."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

import tomli

from forge_huggingface.arguments import fields, options, owned
from forge_huggingface.arguments.foreign import METHODS as METHOD_NAMES
from forge_huggingface.arguments.tables import DEFAULTS
from forge_huggingface.data.layouts import LAYOUTS
from forge_huggingface.methods import METHODS
from parts.job import keys
from parts.markdown import code, listed, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

MEANINGS = Path(__file__).resolve().parents[1] / "arguments.toml"


def newest(config: str = "SFTConfig") -> dict[str, fields.Field]:
    """Return a config's fields from the newest committed table."""
    return next(iter(fields.committed(config).values()))


@contextmanager
def newest_fields() -> Iterator[None]:
    """Take trainer fields from the newest committed table instead of the installed trl."""
    with mock.patch.object(options, "table", newest):
        yield


def arguments(method: str) -> type[BaseModel]:
    """Return the model of a method's arguments in the newest tested versions."""
    with newest_fields():
        return options.train_options.__wrapped__(method)


def meanings(method: str) -> dict[str, str]:
    """Return what arguments mean under a method, from arguments.toml."""
    known = tomli.loads(MEANINGS.read_text(encoding="utf-8"))
    own = known.get(method, {})
    if wrong := own.keys() - arguments(method).model_fields.keys():
        raise SystemExit(f"docs/arguments.toml: {method} has no {', '.join(sorted(wrong))}")
    everywhere = {name: said for name, said in known.items() if isinstance(said, str)}
    if method == "sft":
        usable = set().union(*(arguments(each).model_fields for each in METHODS))
        if wrong := everywhere.keys() - usable:
            raise SystemExit(f"docs/arguments.toml: no method has {', '.join(sorted(wrong))}")
    said: dict[str, str] = everywhere | own
    if wrong := arguments(method).model_fields.keys() - said.keys():
        raise SystemExit(f"docs/arguments.toml lacks, for {method}: {', '.join(sorted(wrong))}")
    return said


def train_arguments() -> str:
    """The trainer's arguments that methods share, as they are under ``method = "sft"``."""
    marks = {name: f"{default(name)} †" for name in DEFAULTS}
    return keys(arguments("sft"), marks=marks, meanings=meanings("sft"))


def method_arguments(method: str) -> str:
    """Return what a method adds to those, what has another default, and what it has not."""
    mine, common = arguments(method).model_fields, arguments("sft").model_fields
    same = [
        name
        for name, field in mine.items()
        if name in common and (field.default, field.annotation) == (common[name].default, common[name].annotation)
    ]
    marks = {"num_completions_to_print": f"{default('num_completions_to_print')} †"}
    text = keys(arguments(method), without=same, marks=marks, meanings=meanings(method))
    lacking = sorted(common.keys() - mine.keys())
    return f"{text}\n\nIt has no {listed(lacking)}." if lacking else text


def methods() -> str:
    """The methods."""
    with newest_fields():
        lines = [
            (
                f"[`{each.name}`](#{each.name})",
                each.about,
                listed(LAYOUTS[each.layout].formats),
                code(options.learning_rate("lora", each.config)),
                code(options.learning_rate("none", each.config)),
            )
            for each in METHODS.values()
        ]
    return table(("method", "what it is", "rows", "rate with LoRA", "rate of every weight"), lines)


def method_names() -> str:
    """Methods of other tools."""
    return table(("`method` elsewhere", "here"), ((f"`{name}`", said) for name, said in METHOD_NAMES.items()))


def sft_deviations() -> str:
    """Where forge's default is not TRL's."""
    trl = newest("GRPOConfig") | newest()
    lines = [
        (f"`{name}`", default(name), code(trl[name].default) or "not set", reason)
        for name, (_, reason) in DEFAULTS.items()
    ]
    return table(("key", "forge", "TRL", "reason"), lines)


def default(name: str) -> str:
    """Return forge's default where it is not TRL's: a value, or that it is decided when the machine is known."""
    value, reason = DEFAULTS[name]
    return code(value) or ("decided" if reason.startswith("by ") else "not set")


def sft_versions() -> str:
    """The versions that the committed table was read from."""
    newest, *older = fields.committed()
    return f"Read from {newest}. Also tested: {'; '.join(older)}."


def sft_older() -> str:
    """What differs between the newest tested versions and the older ones."""
    lines: dict[tuple[str, str], list[str]] = {}
    for method in METHODS.values():
        first, *others = fields.committed(method.config).items()
        for versions, older in others:
            for name in sorted({*first[1], *older}):
                one, other = first[1].get(name), older.get(name)
                if owned.is_owned(name, method.config):
                    continue
                if one is None or other is None:
                    said = f"only in {first[0] if other is None else versions}"
                elif one.default != other.default:
                    was, now = code(other.default) or "not set", code(one.default) or "not set"
                    said = f"default {was} instead of {now} in {versions}"
                else:
                    continue
                lines.setdefault((name, said), []).append(method.name)
    every = len(METHODS)
    rows = [(f"`{name}`", "all" if len(who) == every else listed(who), said) for (name, said), who in lines.items()]
    return table(("argument", "methods", "difference"), rows)


def sft_owned() -> str:
    """Fields of the configs that a job may not set."""
    lines = [(f"`{name}`", said.do) for name, said in owned.OWNED.items()]
    names = {method.config: method.name for method in METHODS.values()}
    for config, several in owned.OWNED_IN.items():
        lines += [(f"`{name}` under `{names[config]}`", said.do) for name, said in several.items()]
    return table(("argument", "instead"), lines)


def sft_foreign() -> str:
    """Names that other tools use."""
    return table(("name elsewhere", "here"), ((f"`{name}`", said.do) for name, said in owned.FOREIGN.items()))

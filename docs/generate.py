"""Write the parts of the documentation that the code knows best: tables of keys, commands, formats, the plugin API.

    python docs/generate.py            write them
    python docs/generate.py --check    exit 1 and name the files that are not current

A generated part stands between ``<!-- generated:NAME -->`` and ``<!-- /generated -->``; the rest of a page is written
by hand. Trainer arguments are taken from the committed table of the newest tested versions, so that the pages do not
depend on which trl is installed.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
import tomli

from forge import api, errors
from forge.cli import COMMANDS, cli
from forge.job import AdapterTable, DataTable, ExportTable, Job, ModelTable, Source, TrainTable, UseTable
from forge.machine import PRESETS
from forge_huggingface import fields, formats, options, owned, readers, rules, templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent
_PART = re.compile(r"(<!-- generated:([\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)

PARTS: dict[str, Callable[[], str]] = {}
"""What can be generated, by name."""


def part(function: Callable[[], str]) -> Callable[[], str]:
    """Register a generated part under the function's name."""
    PARTS[function.__name__.replace("_", "-")] = function
    return function


def row(*cells: str) -> str:
    """Return one row of a table."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    return "\n".join([row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows)])


def listed(words: Iterable[str]) -> str:
    """Return words as code, with commas."""
    return ", ".join(f"`{word}`" for word in words)


def code(value: Any) -> str:
    """Return a value as a job file writes it."""
    if value is None or str(value) == "PydanticUndefined":
        return ""
    if isinstance(value, float):
        return f"`{number(value)}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def number(value: float) -> str:
    """Return a number as people write it: no trailing .0, and an exponent only for small ones."""
    return str(int(value)) if value == int(value) else f"{value:g}"


def kind(schema: Mapping[str, Any]) -> str:
    """Describe the values that a JSON Schema allows, in a few words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema and len(schema["enum"]) > 12:
        return f"{', '.join(map(code, schema['enum'][:3]))} and {len(schema['enum']) - 3} others: see `forge schema`"
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}s"
    name = {"boolean": "true or false", "integer": "integer", "number": "number", "string": "string"}
    said = name.get(schema.get("type", "object"), "table")
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    bounds = [f"{sign} {number(schema[key])}" for key, sign in signs if key in schema]
    return f"{said} {', '.join(bounds)}".strip()


def keys(
    model: type[BaseModel],
    *,
    without: Iterable[str] = (),
    marks: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
) -> str:
    """Return the table of a model's keys.

    Args:
        model: The model.
        without: Fields to leave out.
        marks: What to show instead of a default, by key.
        meanings: What to show instead of the fields' own descriptions; then every key must be in it.
    """
    schema = model.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    lines = []
    for name, field in model.model_fields.items():
        if name in {"options", "folder", *without}:
            continue
        key = field.alias or name
        default = field.get_default(call_default_factory=True)
        shown = "required" if key in required else (marks or {}).get(key) or code(default) or "not set"
        meaning = meanings[key] if meanings else field.description or ""
        lines.append((f"`{key}`", kind(schema["properties"][key]), shown, meaning))
    return table(("key", "value", "default", "meaning"), lines)


@contextmanager
def newest_fields() -> Iterator[Mapping[str, fields.Field]]:
    """Take trainer fields from the newest committed table instead of the installed trl."""
    newest = next(iter(fields.committed().values()))
    with mock.patch.object(options, "table", return_value=newest):
        yield newest


@part
def job_top() -> str:
    """Keys above the first table."""
    return keys(Job, without=("model", "adapter", "data", "train", "export", "use", "plugins"))


@part
def job_model() -> str:
    """``[model]``."""
    return keys(ModelTable)


@part
def job_adapter() -> str:
    """``[adapter]``."""
    return keys(AdapterTable)


@part
def job_data() -> str:
    """``[data]`` without what each source may have."""
    return keys(DataTable, without=Source.model_fields)


@part
def job_sources() -> str:
    """The keys of a source."""
    return keys(Source)


@part
def job_train() -> str:
    """``[train]``: the core's keys."""
    return keys(TrainTable)


@part
def job_export() -> str:
    """``[[export]]``."""
    return keys(ExportTable)


@part
def job_use() -> str:
    """``[use]``."""
    return keys(UseTable)


@part
def sft_options() -> str:
    """The trainer's arguments under ``method = "sft"``."""
    meanings = tomli.loads((DOCS / "arguments.toml").read_text(encoding="utf-8"))
    with newest_fields():
        model = options.sft_options.__wrapped__()
    if wrong := meanings.keys() ^ model.model_fields.keys():
        raise SystemExit(f"docs/arguments.toml and the arguments of [train] differ: {', '.join(sorted(wrong))}")
    return keys(model, marks={name: f"{default(name)} †" for name in options.DEFAULTS}, meanings=meanings)


@part
def sft_deviations() -> str:
    """Where forge's default is not TRL's."""
    with newest_fields() as newest:
        lines = [
            (f"`{name}`", default(name), code(newest[name].default) or "not set", reason)
            for name, (_, reason) in options.DEFAULTS.items()
        ]
    return table(("key", "forge", "TRL", "reason"), lines)


def default(name: str) -> str:
    """Return forge's default where it is not TRL's: a value, or that it is decided when the machine is known."""
    value, reason = options.DEFAULTS[name]
    return code(value) or ("decided" if reason.startswith("by ") else "not set")


@part
def sft_versions() -> str:
    """The versions that the committed table was read from."""
    newest, *older = fields.committed()
    return f"Read from {newest}. Also tested: {'; '.join(older)}."


@part
def sft_older() -> str:
    """What differs between the newest tested versions and the older ones."""
    newest, *others = fields.committed().items()
    lines = []
    for versions, older in others:
        for name in sorted({*newest[1], *older}):
            first, second = newest[1].get(name), older.get(name)
            if name in owned.OWNED:
                continue
            if first is None or second is None:
                lines.append((f"`{name}`", f"only in {newest[0] if second is None else versions}"))
            elif first.default != second.default:
                said = f"default {code(second.default) or 'not set'} instead of {code(first.default) or 'not set'}"
                lines.append((f"`{name}`", f"{said} in {versions}"))
    return table(("argument", "difference"), lines)


@part
def sft_owned() -> str:
    """Fields of SFTConfig that a job may not set."""
    return table(("argument", "instead"), ((f"`{name}`", said) for name, said in owned.OWNED.items()))


@part
def sft_foreign() -> str:
    """Names that other tools use."""
    return table(("name elsewhere", "here"), ((f"`{name}`", said) for name, said in owned.FOREIGN.items()))


@part
def trackers() -> str:
    """What ``report_to`` takes."""
    return table(
        ("`report_to`", "needs one of"),
        ((f"`{name}`", listed(needed) or "nothing") for name, needed in rules.TRACKERS.items()),
    )


@part
def commands() -> str:
    """The help text of every command."""
    root = click.Context(cli, terminal_width=100, info_name="forge", **cli.context_settings)
    texts = [f"```text\n{cli.get_help(root).rstrip()}\n```"]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root, terminal_width=100)
        texts.append(f"## forge {name}\n\n```text\n{command.get_help(context).rstrip()}\n```")
    return "\n\n".join(texts)


@part
def exit_codes() -> str:
    """The errors that forge raises on purpose, with their exit codes."""
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ForgeError)]
    found.sort(key=lambda each: each.exit_code)
    lines = [(f"`{each.__name__}`", str(each.exit_code), _first(inspect.getdoc(each) or "")) for each in found]
    return table(("error", "exit code", "meaning"), lines)


@part
def machines() -> str:
    """The presets of ``FORGE_MACHINE``."""
    lines = []
    for name, machine in PRESETS.items():
        cards = ", ".join(card.name for card in machine.accelerators) or "none"
        torch = machine.torch.version if machine.torch else "none"
        lines.append((f"`{name}`", f"{machine.platform} {machine.arch}", cards, torch))
    return table(("name", "platform", "accelerator", "torch"), lines)


@part
def data_formats() -> str:
    """What each format needs and takes."""

    def names(columns: Mapping[str, tuple[str, ...]]) -> str:
        said = []
        for key, aliases in columns.items():
            others = [alias for alias in aliases if alias != key]
            said.append(f"`{key}`" + (f" (also {listed(others)})" if others else ""))
        return "; ".join(said)

    lines = [(f"`{name}`", names(each.needs), names(each.takes) or "nothing") for name, each in formats.FORMATS.items()]
    return table(("format", "needs", "also takes"), lines)


@part
def data_roles() -> str:
    """Names of speakers."""
    by_role: dict[str, list[str]] = {}
    for name, role in formats.ROLES.items():
        by_role.setdefault(role, []).append(name)
    lines = ((f"`{role}`", listed(names)) for role, names in by_role.items())
    return table(("role", "written as"), lines)


@part
def data_files() -> str:
    """The kinds of files."""
    return f"Readable files: {readers.SUPPORTED}."


@part
def data_templates() -> str:
    """The chat templates that forge ships, with the comment at their beginning."""
    folder = Path(templates.__file__).parent / "chat_templates"
    lines = []
    for name in templates.shipped():
        said = re.match(r"\{#-?\s*(.*?)\s*-?#\}", (folder / f"{name}.jinja").read_text(encoding="utf-8"), re.DOTALL)
        lines.append((f"`{name}`", said[1] if said else ""))
    return table(("name", "what it is"), lines)


@part
def api_offer() -> str:
    """The fields of an offer."""
    return attributes(api.Offer)


@part
def api_extension() -> str:
    """The fields of an extension."""
    return attributes(api.Extension)


@part
def api_vocabulary() -> str:
    """The words of ``Offer.supports``."""
    lines = ((f"`{stage}`", listed(sorted(words))) for stage, words in api.VOCABULARY.items())
    return table(("stage", "words"), lines)


@part
def api_hooks() -> str:
    """The hooks of a run."""
    lines = []
    for name, hook in vars(api.RunHooks).items():
        if name.startswith("forge_"):
            signature = inspect.signature(hook)
            arguments = ", ".join(key for key in signature.parameters if key != "self")
            returned = str(signature.return_annotation)
            lines.append((f"`{name}({arguments})`", f"`{returned}`", _first(inspect.getdoc(hook) or "")))
    return table(("hook", "returns", "what it does"), lines)


@part
def api_records() -> str:
    """The records that pass between stages."""
    records = (api.Data, api.Loaded, api.Trained, api.Exported, api.Decision, api.Finding, api.Event)
    described = ((each.__name__, _first(inspect.getdoc(each) or ""), attributes(each)) for each in records)
    return "\n\n".join(f"### {name}\n\n{meaning}\n\n{fields_}" for name, meaning, fields_ in described)


def attributes(kind_: type) -> str:
    """Return the table of a dataclass from the ``Attributes`` of its docstring."""
    text = inspect.getdoc(kind_) or ""
    _, _, described = text.partition("Attributes:\n")
    meanings = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w+: |^\S|\Z)", described, re.MULTILINE | re.DOTALL))
    annotations = {name: str(field.type) for name, field in kind_.__dataclass_fields__.items()}  # type: ignore[attr-defined]
    lines = [(f"`{name}`", f"`{annotations[name]}`", _markdown(meanings.get(name, ""))) for name in annotations]
    return table(("field", "type", "meaning"), lines)


def _first(text: str) -> str:
    return _markdown(text.split("\n\n", maxsplit=1)[0])


def _markdown(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())


def render(text: str, where: str) -> str:
    """Return a page with its generated parts made anew. Raises :class:`SystemExit` for an unknown part."""

    def fill(found: re.Match[str]) -> str:
        if found[2] not in PARTS:
            raise SystemExit(f"{where}: there is no generated part {found[2]}; known: {', '.join(PARTS)}")
        return f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}"

    return _PART.sub(fill, text)


def pages() -> dict[Path, tuple[str, str]]:
    """Return every page with its text as it is, and as it should be."""
    found = {}
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found[path] = (text, render(text, path.name))
    return found


def unused() -> list[str]:
    """Return the parts that no page has."""
    shown = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    return [name for name in PARTS if f"<!-- generated:{name} -->" not in shown]


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description="Write the generated parts of docs/*.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not current")
    check = parser.parse_args(arguments).check
    stale = {path: new for path, (old, new) in pages().items() if old != new}
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path.name} {'is not current' if check else 'written'}")
    for name in unused():
        print(f"no page shows the generated part {name}")
    if check and stale:
        print("run: python docs/generate.py")
    return int(check and bool(stale or unused()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

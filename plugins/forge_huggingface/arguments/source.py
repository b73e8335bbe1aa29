"""One class of a trainer's arguments, read from the installed sources without importing them.

The sources of trl and transformers are plain dataclasses: ``ast`` reads them in milliseconds, exactly as installed.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


_SIMPLE = {"bool": "bool", "int": "int", "float": "float", "str": "str", "dict": "dict", "None": "null"}
_HOMES = {
    "_BaseConfig": ("trl", "trainer/base_config.py"),
    "TrainingArguments": ("transformers", "training_args.py"),
    "CPOConfig": ("trl", "experimental/cpo/cpo_config.py"),
    "ORPOConfig": ("trl", "experimental/orpo/orpo_config.py"),
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a trainer config.

    Attributes:
        name: Its name.
        type: ``bool``, ``int``, ``float``, ``str``, ``list[str]``, ``list[float]``, ``dict`` and ``null``, sorted and
            joined by ``|``.
        default: Its default as JSON data; ``None`` also where only the running program can tell.
        help: One short sentence.
        declared: The class that declares it last.
        choices: The values it takes, if the sources list them.
        deprecated: Whether its help says so.
    """

    name: str
    type: str
    default: Any
    help: str
    declared: str
    choices: tuple[str, ...] = ()
    deprecated: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the field as JSON data, without its name and without what is empty."""
        values = {"type": self.type, "default": self.default, "help": self.help, "declared": self.declared}
        if self.choices:
            values["choices"] = list(self.choices)
        if self.deprecated:
            values["deprecated"] = True
        return values

    @classmethod
    def from_json(cls, name: str, values: dict[str, Any]) -> Field:
        """Return the field that :meth:`to_json` wrote."""
        return cls(**{**values, "name": name, "choices": tuple(values.get("choices", ()))})


Declared = tuple[tuple[str, ...], dict[str, Field]]
"""A class's bases, and the fields that it declares itself."""


@functools.cache  # the bases are parsed once, whatever the number of configs
def declared(config: str) -> Declared:
    """Read a class from the installed sources.

    Raises:
        FileNotFoundError: Its package is not installed, or has no such file.
        LookupError: The file has no such class.
    """
    package, file = _HOMES.get(config, ("trl", f"trainer/{config.removesuffix('Config').lower()}_config.py"))
    tree = _class(_source(package, file), config)
    return tuple(ast.unparse(base) for base in tree.bases), {field.name: field for field in _fields(tree)}


@functools.cache
def _source(package: str, file: str) -> str:
    # Only of the top-level package: finding a submodule would import its parents.
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, file)
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{package}/{file}")


@functools.cache
def generation_names() -> frozenset[str]:
    """Return what transformers' ``GenerationConfig`` takes by name; nothing if it cannot be read."""
    try:
        source = _source("transformers", "generation/configuration_utils.py")
    except FileNotFoundError:
        return frozenset()
    return frozenset(re.findall(r'kwargs\.pop\(\s*"([a-z]\w*)"', source))


def _class(source: str, name: str) -> ast.ClassDef:
    """Parse one class up to its first method: parsing the whole file would take five times as long."""
    start = re.search(rf"^class {name}\b", source, re.MULTILINE)
    if start is None:
        raise LookupError(name)
    end = re.compile(r"^(?:    (?:def |@)|[^\s#)])", re.MULTILINE).search(source, start.end())
    tree = ast.parse(source[start.start() : end.start() if end else len(source)])
    found = tree.body[0]
    assert isinstance(found, ast.ClassDef)
    return found


def _fields(tree: ast.ClassDef) -> Iterator[Field]:
    constants = _constants(tree)
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        types, choices = _type(node.annotation)
        default, metadata = _value(node.value, constants)
        text = " ".join(str(metadata.get("help") or "").replace("%%", "%").split())
        yield Field(
            name=node.target.id,
            type="|".join(sorted(types)),
            default=default,
            help=_sentence(text),
            declared=tree.name,
            choices=tuple(metadata.get("choices") or choices),
            # With a capital: small, the word is about one of the field's values.
            deprecated=bool(re.search(r"\bDeprecated\b", text)),
        )


def _constants(tree: ast.ClassDef) -> dict[str, Any]:
    """Collect names that the class body assigns, such as ``default_optim``; the last value is for the newest torch."""
    found: dict[str, Any] = {}
    for statement in tree.body:
        # Walking the fields too would cost most of the time.
        for node in ast.walk(statement) if isinstance(statement, ast.Assign | ast.If) else ():
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                try:
                    found[node.targets[0].id] = ast.literal_eval(node.value)
                except ValueError:
                    continue
    return found


def _type(node: ast.expr) -> tuple[set[str], tuple[str, ...]]:
    """Name the types of an annotation, and the choices where it has an enum or a ``Literal``."""
    match node:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            (a, first), (b, second) = _type(left), _type(right)
            return a | b, first or second
        case ast.Constant(value=None):
            return {"null"}, ()
        case ast.Subscript(value=ast.Name(id="dict")):
            return {"dict"}, ()
        case ast.Subscript(value=ast.Name(id="list" | "tuple"), slice=inner):
            floats = "float" in ast.unparse(inner)
            return {"list[float]" if floats else "list[str]"}, () if floats else _type(inner)[1]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
            values = [item.value for item in ast.walk(inner) if isinstance(item, ast.Constant)]
            return {type(value).__name__ for value in values}, tuple(v for v in values if isinstance(v, str))
        case ast.Name(id=name) if name in _SIMPLE:
            return {_SIMPLE[name]}, ()
        case ast.Name(id=name) if choices := _enum(name):
            return {"str"}, choices
    return {"dict"}, ()  # an object of its own, such as ParallelismConfig: never a value in a job file


@functools.cache
def _enum(name: str) -> tuple[str, ...]:
    """Return an enum's values in transformers, or nothing if there is no such enum."""
    for file in ("trainer_utils.py", "training_args.py", "debug_utils.py"):
        try:
            tree = _class(_source("transformers", file), name)
        except (FileNotFoundError, LookupError):
            continue
        values = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        return tuple(
            value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)
        )
    return ()


def _value(node: ast.expr | None, constants: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Evaluate ``field(default=…, metadata=…)`` or a plain default."""
    default: Any = None
    metadata: dict[str, Any] = {}
    if not isinstance(node, ast.Call):
        return _literal(node, constants), metadata
    for key, value in ((keyword.arg, keyword.value) for keyword in node.keywords):
        if key == "metadata" and isinstance(value, ast.Dict):
            metadata = {
                _literal(name, {}): _literal(item, {}) for name, item in zip(value.keys, value.values, strict=True)
            }
        elif key == "default":
            default = _literal(value, constants)
        elif key == "default_factory":
            body = value.body if isinstance(value, ast.Lambda) else None
            default = {"list": [], "dict": {}}.get(ast.unparse(value)) if body is None else _literal(body, constants)
    return default, metadata


def _literal(node: ast.expr | None, constants: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    try:
        return ast.literal_eval(node) if node is not None else None
    except ValueError:
        return None


def _sentence(text: str, limit: int = 139) -> str:
    """Cut a help text to its first sentence, and a long sentence at a clause."""
    first = re.split(r"(?<=[^.][.!?])(?<!e\.g\.)(?<!i\.e\.)\s", text, maxsplit=1)[0]
    if len(first) <= limit:
        return first
    head = first[: limit - 1]
    cut = max(head.rfind(mark) for mark in (", ", "; ", ": ", " ("))
    return (head[:cut] if cut > 0 else head.rpartition(" ")[0]) + "."

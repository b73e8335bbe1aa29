"""The file of another tool: YAML, JSON (with comments), or a shell script with a command, and whose it is."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import UsageError
from forge_migrate.draft import numeric

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = ("axolotl", "llama-factory", "trl", "ms-swift", "unsloth", "modelforge")


@dataclass(frozen=True, slots=True)
class Read:
    """What a file holds.

    Attributes:
        tool: One of :data:`TOOLS`.
        values: Its keys.
        method: The command or word that says how to train, where one stands outside of the keys.
        environment: Variables set before a command.
    """

    tool: str
    values: Mapping[str, Any]
    method: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def read(path: Path, tool: str | None = None, method: str | None = None) -> Read:
    """Read a file and tell whose it is, by its content.

    Args:
        path: The file.
        tool: Whose it is, if the user says so.
        method: What TRL's command is, which its YAML does not hold.

    Raises:
        UsageError: It cannot be read, or is of nobody that is known.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read", str(error)) from None
    values = _json(text) if text.lstrip().startswith("{") else None
    if values is None and (found := _command(text)):
        if tool and found.tool != tool:
            raise UsageError(f"{path} holds a command of {found.tool}, not of {tool}")
        return found if method is None else Read(found.tool, found.values, method, found.environment)
    values = values if values is not None else _yaml(path, text)
    if not isinstance(values, Mapping):
        why = "it holds no keys with values, and no command that trains (trl sft, swift sft, swift rlhf, …)"
        raise UsageError(f"{path} is no configuration", why)
    if any(isinstance(value, Mapping) and "file_name" in value for value in values.values()):
        raise UsageError(
            f"{path} lists data sets", "it is LLaMA-Factory's dataset_info.json", "name the YAML beside it"
        )
    tool = tool or whose(values)
    if tool is None:
        keys = ", ".join(sorted(map(str, values))[:8])
        known = "base_model (Axolotl), finetuning_type (LLaMA-Factory), use_peft (TRL), tuner_type (ms-swift), …"
        do = f"say whose it is: --from {' | '.join(TOOLS)}"
        raise UsageError(f"whose configuration {path} is cannot be told", f"it has {keys}; known are {known}", do)
    return Read(tool, values, method)


MARKS: Mapping[str, tuple[str, ...]] = {
    "axolotl": ("base_model", "micro_batch_size", "sequence_len", "datasets_prepared_path"),
    "llama-factory": ("finetuning_type", "stage", "cutoff_len", "lora_target", "dataset_dir", "pref_loss", "lora_rank"),
    "modelforge": ("provider", "strategy", "compute_specs", "use_4bit"),
    "ms-swift": ("tuner_type", "train_type", "rlhf_type", "torch_dtype", "split_dataset_ratio", "freeze_vit"),
    "trl": (
        "dataset_name",
        "use_peft",
        "lora_target_modules",
        "dataset_test_split",
        "dataset_train_split",
        "max_length",
    ),
}
"""Keys that tell a tool, of flat configurations."""


def whose(values: Mapping[str, Any]) -> str | None:
    """Return the tool whose keys most of these are; None if no key tells.

    >>> whose({"model_name_or_path": "m", "use_peft": True})
    'trl'
    """
    if any(isinstance(values.get(name), Mapping) for name in ("data", "training", "lora")):
        return "unsloth"
    if {"training_type", "format_type", "hf_dataset"} & set(values):
        return "unsloth"
    counts = {tool: sum(key in values for key in keys) for tool, keys in MARKS.items()}
    best = max(counts, key=lambda tool: counts[tool])
    return best if counts[best] else None


_COMMENT = re.compile(r'"(?:\\.|[^"\\\n])*"|//[^\n]*|/\*.*?\*/', re.DOTALL)
_TRAILING = re.compile(r",(\s*[}\]])")


def _json(text: str) -> Any:
    """Return JSON as people write it, with comments and a comma too many; None if it is none."""
    bare = _COMMENT.sub(lambda found: found[0] if found[0].startswith('"') else "", text)
    try:
        return json.loads(_TRAILING.sub(r"\1", bare))
    except ValueError:
        return None


def _yaml(path: Path, text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise UsageError("YAML cannot be read", "PyYAML is not installed", "pip install pyyaml") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is no YAML", " ".join(str(error).split())) from None


COMMANDS: Mapping[str, Mapping[str, str]] = {
    "trl": {
        "sft": "sft",
        "dpo": "dpo",
        "kto": "kto",
        "reward": "reward",
        "grpo": "grpo",
        "rloo": "rloo",
        "distillation": "distill",
    },
    "swift": {"sft": "sft", "pt": "pt", "rlhf": "rlhf"},
    "llamafactory-cli": {"train": "train"},
}
"""Programs, and the commands of them that train."""

_NAMES = {"trl": "trl", "swift": "ms-swift", "llamafactory-cli": "llama-factory"}


def _command(text: str) -> Read | None:
    """Return the first command of a shell script that trains."""
    joined = re.sub(r"\\[ \t]*\n", " ", text)
    for line in _filled(joined).splitlines():
        try:
            words = shlex.split(_COMMENT_OF_SHELL.sub(_said, line))
        except ValueError:
            continue
        environment = {}
        while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        if len(words) >= 2 and words[0] in COMMANDS and words[1] in COMMANDS[words[0]]:
            values = _arguments(words[2:])
            if list(values) == [""]:
                raise UsageError("the command names a file", f"{values['']} holds the keys", "migrate that file")
            return Read(_NAMES[words[0]], values, COMMANDS[words[0]][words[1]], environment)
    return None


_COMMENT_OF_SHELL = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\.|(?<!\S)\#.*""")


def _said(found: re.Match[str]) -> str:
    """Return what a shell reads: a ``#`` begins a comment where a word begins, and not in ``org/rows#500``."""
    return "" if found[0].startswith("#") else found[0]


_SUM = re.compile(r"\$\(expr (\d+) ([/*+-]) (\d+)\)|\$\(\((\d+) ?([/*+-]) ?(\d+)\)\)")


def _filled(text: str) -> str:
    """Return a script whose plain variables and sums are worked out: ``n=8`` and ``$(expr 16 / $n)``."""
    known: dict[str, str] = {}
    lines = []
    for line in text.splitlines():
        filled = re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], found[0]), line)
        filled = _SUM.sub(_sum, filled)
        if found := re.fullmatch(r"\s*(?:export\s+)?([A-Za-z_]\w*)=([\w.,:/-]*)\s*(?:#.*)?", filled):
            known[found[1]] = found[2]
        lines.append(filled)
    return "\n".join(lines)


def _sum(found: re.Match[str]) -> str:
    left, sign, right = (found[1], found[2], found[3]) if found[1] else (found[4], found[5], found[6])
    a, b = int(left), int(right)
    if sign == "/":
        return str(a // b) if b else found[0]
    return str({"*": a * b, "+": a + b, "-": a - b}[sign])


def _arguments(words: list[str]) -> dict[str, Any]:
    """Return ``--name value …`` as keys; one without a value is true, several values are a list.

    >>> _arguments(["--dataset", "a", "b", "--packing", "--r=8"])
    {'dataset': ['a', 'b'], 'packing': True, 'r': 8}
    """
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].replace("-", "_").partition("=")
            found[name] = [value] if equals else []
        elif word in {"|", ">", "2>&1", "&", "&&", ";"}:
            break
        else:
            found.setdefault(name, []).append(word)
    return {name: _value(values) for name, values in found.items()}


def _value(words: list[str]) -> Any:
    if not words:
        return True
    read = [_word(word) for word in words]
    return read[0] if len(read) == 1 else read


def _word(word: str) -> Any:
    if word.lower() in {"true", "false"}:
        return word.lower() == "true"
    if word.startswith(("{", "[")):
        try:
            return json.loads(word)
        except ValueError:
            return word
    return numeric(word)

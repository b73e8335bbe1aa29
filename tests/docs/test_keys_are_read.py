"""Every key that the job reference lists is read: by forge, or by the trainers that get it."""

from __future__ import annotations

import ast
import functools
import importlib.util
from pathlib import Path

import pytest
from pydantic import BaseModel

from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.job.job import Job
from forge.job.tables import TABLES
from forge_huggingface.arguments.effects import EFFECTS
from forge_huggingface.arguments.options import train_options, usable
from forge_huggingface.methods import METHODS

ROOT = Path(__file__).parents[2]
PLUGINS = ("sdpo", "unsloth-text", "unsloth-vision", "gguf")
TRAINERS = {
    "transformers": ("trainer*.py", "training_args*.py", "integrations/*.py", "optimization.py", "data/*.py"),
    "trl": ("trainer/*.py", "experimental/*/*.py", "extras/*.py", "generation/*.py", "import_utils.py", "models/*.py"),
}
"""Where the trainers' arguments are read."""


def read_in(path: Path) -> set[str]:
    """Return the attributes that a module reads, and the strings in it, which may be names of attributes."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    return found | {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@functools.cache
def read_by_forge() -> frozenset[str]:
    """Return what forge reads, the modules apart that only define tables."""
    defining = {ROOT / "core/forge/job" / name for name in ("tables.py", "data.py", "table.py")}
    paths = [path for folder in ("core", "plugins") for path in (ROOT / folder).rglob("*.py")]
    return frozenset().union(*(read_in(path) for path in paths if path not in defining))


@functools.cache
def read_by_trainers() -> frozenset[str]:
    """Return what the installed trainers read of their arguments."""
    found: set[str] = set()
    for package, patterns in TRAINERS.items():
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for pattern in patterns:
            for path in Path(spec.origin).parent.glob(pattern):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                found |= {
                    node.attr
                    for node in ast.walk(tree)
                    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
                }
    return frozenset(found)


def tables() -> dict[str, type[BaseModel]]:
    """Return the models of all tables of a job but ``[train]``'s arguments, by what the reference calls them."""
    keys = PluginKeys(discover({"FORGE_PLUGINS": ",".join(("huggingface", *PLUGINS))}))
    found: dict[str, type[BaseModel]] = {"": Job, **TABLES}
    for plugin in PLUGINS:
        settings = keys.settings(plugin)
        for model in settings.models if settings else ():
            found[f"plugins.{plugin}"] = model
        for model in keys.models("train", plugin, {}):
            found[f"train ({plugin})"] = model
    return found


@pytest.mark.parametrize("name", tables())
def test_every_key_of_a_table_is_read(name: str) -> None:
    model = tables()[name]
    arguments = set(usable("GRPOConfig")) if name == "train (sdpo)" else set()
    unread = [
        key for key in model.model_fields if key not in arguments and key.rstrip("_") not in read_by_forge() | {"with"}
    ]
    assert not unread


@pytest.mark.parametrize("method", METHODS)
def test_every_argument_of_a_trainer_is_read(method: str) -> None:
    fields = set(train_options(method).model_fields)
    ruled = {effect.key for effect in EFFECTS}
    unread = fields - read_by_trainers() - ruled - read_by_forge()
    assert not unread


def test_a_key_that_nobody_reads_would_be_found() -> None:
    assert "surely_no_key_of_a_trainer" not in read_by_forge() | read_by_trainers()
    assert {"num_train_epochs", "label_smoothing_factor", "sapo_temperature_pos"} <= read_by_trainers()
    assert {"eval_size", "max_seq_length", "push_to_hub"} <= read_by_forge()

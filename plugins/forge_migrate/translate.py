"""From what was read to a draft: the tool's own translation, and what holds for all of them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge_migrate.draft import Draft, Given, secret

if TYPE_CHECKING:
    from pathlib import Path

    from forge_migrate.reading import Read

MODULES: Mapping[str, str] = {
    "axolotl": "axolotl",
    "llama-factory": "llama_factory",
    "trl": "trl_cli",
    "ms-swift": "ms_swift",
    "unsloth": "unsloth_cli",
    "modelforge": "modelforge",
}


EVALUATION = ("eval_", "per_device_eval", "load_best_model", "metric_for_best", "greater_is_better", "early_stopping")
"""Beginnings of arguments that are about held-out rows."""


def draft_of(found: Read, folder: Path) -> Draft:
    """Return the job that trains as a configuration does.

    Args:
        found: The configuration.
        folder: Where its file lies: some tools keep lists of data sets beside it.
    """
    module: Any = importlib.import_module(f"forge_migrate.tools.{MODULES[found.tool]}")
    draft = Draft(module.NAME)
    given = Given(found.values)
    if hasattr(module, "begin"):
        module.begin(given, draft, found, folder)
    module.translate(given, draft)
    _agree(draft)
    _environment(found.environment, draft)
    return draft


def _agree(draft: Draft) -> None:
    """Leave out what would have no effect, or what forge has a limit for, and say so."""
    train = draft.tables.get("train", {})
    steps = train.get("max_steps")
    if steps in (-1, 0):
        del train["max_steps"]
    elif steps is not None and "num_train_epochs" in train:
        draft.drop("num_train_epochs", train.pop("num_train_epochs"), f"max_steps = {steps} says when training ends")
        draft.notes.pop(("train", "num_train_epochs"), None)
    held_out = any(draft.get(f"data.{name}") for name in ("eval_path", "eval_split", "eval_size"))
    for name in [] if held_out else [name for name in train if name.startswith(EVALUATION)]:
        value, note = train.pop(name), draft.notes.pop(("train", name), None)
        if note is None and value not in ("no", False):
            draft.drop(name, value, "there are no held-out rows")
    if train.get("save_total_limit") == 1:
        draft.set("train.save_total_limit", 2, "1 there; forge keeps two, so that a kill while saving costs none")
    if train.get("lr_scheduler_type") == "constant" and train.pop("warmup_steps", None):
        draft.drop("warmup_steps", None, "the schedule constant has no warm-up")


def _environment(values: Mapping[str, str], draft: Draft) -> None:
    """Say of the variables that stood before a command what they are for."""
    for name, value in values.items():
        count = value.count(",") + 1 if name.endswith("VISIBLE_DEVICES") else 0
        if name in {"NPROC_PER_NODE", "WORLD_SIZE", "NUM_PROCESSES"} and value.isdigit():
            count = int(value)
        if count > 1 and not name.endswith("VISIBLE_DEVICES"):
            draft.tell(
                f"{name} = {value}: with {count} processes the batch of a step is {count} times "
                f"per_device_train_batch_size times gradient_accumulation_steps: multiply the latter where fewer run"
            )
        elif count:
            draft.drop(name, value, "the environment's")
        elif name == "MAX_PIXELS" and value.isdigit():
            draft.set("data.max_pixels", int(value))
        elif secret(name):
            draft.drop(name, None, "a secret; set it in the environment again")
        else:
            draft.tell(f"{name} = {value} stood before the command; set it in the environment if it is needed")

"""Trains a few jobs with TRL's own trainers or with Unsloth's, and writes what came of it: the child of test_parity.

python rewritten.py plain|unsloth MODEL OUT.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if sys.argv[1] == "unsloth":
    import unsloth.trainer
    from unsloth.models import rl

    import unsloth

    rl.patch_trl_disable_gradient_checkpointing()
    rl.patch_trl_rl_trainers()
    unsloth.trainer._patch_trl_trainer()

import forge.worker
from forge_huggingface import train
from projects import Finished, Project, cut_after, perform_in

JOBS: dict[str, dict[str, Any]] = {
    "plain job": {},
    "held-out rows": {"data": {"eval_size": 4}, "train": {"eval_strategy": "steps", "eval_steps": 2}},
    "packing": {"data": {"packing": True}, "train": {"per_device_train_batch_size": 1}},
    "checkpointing": {"train": {"gradient_checkpointing": True}},
    "accumulation": {"train": {"gradient_accumulation_steps": 2}},
}
# What no two runs share; and what Unsloth sets for the preparing of rows, which forge has done: rows have that length.
APART = {"output_dir", "logging_dir", "dataset_num_proc", "max_length"}


def main(model: Path, out: Path) -> None:
    """Train the jobs."""
    forge.worker.check_imports = lambda _plan: None  # Unsloth is here without a plan, for its trainers alone
    made: list[Any] = []
    make = train.make_trainer
    train.make_trainer = lambda *arguments: made.append(make(*arguments)) or made[-1]  # type: ignore[func-returns-value]
    project = Project(Path(tempfile.mkdtemp()) / "project", model)
    found: dict[str, Any] = {}
    for name, tables in JOBS.items():
        changes = {"loss_type": "nll", "bf16": False, **tables.get("train", {})}
        project.write(**{**tables, "train": changes, "use": {"backend": "huggingface"}})
        done = project.perform()
        found[name] = told(done)
        if name == "plain job":
            arguments = made[-1].args.to_dict()
            plain = {key: value for key, value in arguments.items() if isinstance(value, int | float | str | None)}
            found[name]["arguments"] = {key: value for key, value in plain.items() if key not in APART}
            found["resume"] = told(resumed(project, done))
    out.write_text(json.dumps(found))


def resumed(project: Project, done: Finished) -> Finished:
    """Cut a finished run off after step 2, and go on with it."""
    from dataclasses import replace

    from forge.run import RunHandle

    cut_after(done.folder, 2)
    plan = replace(done.folder.plan(), resume=True, attempt=2)
    done.folder.add_plan(plan)
    return perform_in(RunHandle(folder=done.folder.path, plan=plan), done.folder)


def told(done: Finished) -> dict[str, Any]:
    """Return what both sides must share."""
    assert done.code == 0, done.printed
    return {
        "digest": done.of_kind("data")[-1]["digest"],
        "losses": [step["loss"] for step in {step["step"]: step for step in done.of_kind("step")}.values()],
        "eval": [event["eval_loss"] for event in done.of_kind("eval")],
        "trainer": done.of_kind("trainer")[-1],
    }


if __name__ == "__main__":
    main(Path(sys.argv[2]), Path(sys.argv[3]))

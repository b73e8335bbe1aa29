"""Trains a few jobs with TRL's own trainers or with Unsloth's, and writes what came of it: the child of test_parity.

python rewritten.py plain|unsloth train MODEL VISION-MODEL OUT.json
python rewritten.py plain|unsloth read MODEL ADAPTER OUT.json
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if sys.argv[1] == "unsloth":
    import unsloth
    import unsloth.trainer
    from unsloth.models import rl

    rl.patch_trl_disable_gradient_checkpointing()
    rl.patch_trl_rl_trainers()
    unsloth.trainer._patch_trl_trainer()

import forge.worker.tasks
from forge_huggingface.training import train
from support.looking import VisionProject
from support.projects import Finished, Project, cut_after, perform_in

JOBS: dict[str, dict[str, Any]] = {
    "plain job": {},
    "held-out rows": {"data": {"eval_size": 4}, "train": {"eval_strategy": "steps", "eval_steps": 2}},
    "packing": {"data": {"packing": True}, "train": {"per_device_train_batch_size": 1}},
    "checkpointing": {"train": {"gradient_checkpointing": True}},
    "accumulation": {"train": {"gradient_accumulation_steps": 2}},
}
VISION: dict[str, dict[str, Any]] = {
    "vision": {},
    "vision, language only": {"adapter": {"finetune_vision_layers": False}},
    "vision, every weight": {"adapter": {"type": "none", "r": None, "lora_alpha": None}},
}
# What no two runs share; and what Unsloth sets for the preparing of rows, which forge has done: rows have that length.
APART = {"output_dir", "logging_dir", "dataset_num_proc", "max_length"}


def main(model: Path, sight: Path, out: Path) -> None:
    """Train the jobs."""
    forge.worker.tasks.check_imports = lambda _plan: None  # Unsloth is here without a plan, for its trainers alone
    made: list[Any] = []
    make = train.make_trainer
    train.make_trainer = lambda *arguments: made.append(make(*arguments)) or made[-1]  # type: ignore[func-returns-value]
    place = Path(tempfile.mkdtemp())
    text, pictures = Project(place / "text", model), VisionProject(place / "vision", sight)
    found: dict[str, Any] = {}
    for name, tables in {**JOBS, **VISION}.items():
        project = pictures if name in VISION else text
        changes = {"loss_type": "nll", "bf16": False, **tables.get("train", {})}
        project.write(**{**tables, "train": changes, "use": {"backend": "huggingface"}})
        done = project.perform()
        found[name] = told(done)
        if name == "plain job":
            arguments = made[-1].args.to_dict()
            plain = {key: value for key, value in arguments.items() if isinstance(value, int | float | str | None)}
            found[name]["arguments"] = {key: value for key, value in plain.items() if key not in APART}
            found[name] |= {"adapter": str(done.folder.path / "adapter"), "logits": logits(made[-1].model)}
        if name in {"plain job", "vision"}:
            found["resume" if name == "plain job" else "vision, resume"] = told(resumed(project, done))
    out.write_text(json.dumps(found))


def read(model: Path, adapter: Path, out: Path) -> None:
    """Put an adapter that was trained elsewhere on its base, and write what both say."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype="float32")
    before = logits(base)
    out.write_text(json.dumps({"base": before, "adapted": logits(PeftModel.from_pretrained(base, adapter))}))


def logits(model: Any) -> list[list[float]]:
    """Return a model's logits for a row of tokens."""
    import torch

    model.eval()
    with torch.no_grad():
        found: list[list[float]] = model(input_ids=torch.arange(8, 40)[None]).logits[0].tolist()
    return found


def resumed(project: Project, done: Finished) -> Finished:
    """Cut a finished run off after step 2, and go on with it."""
    from dataclasses import replace

    from forge.api.run import Run

    cut_after(done.folder, 2)
    plan = replace(done.folder.plan(), resume=True, attempt=2)
    done.folder.add_plan(plan)
    return perform_in(Run(folder=done.folder.path, plan=plan), done.folder)


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
    {"train": main, "read": read}[sys.argv[2]](*map(Path, sys.argv[3:]))

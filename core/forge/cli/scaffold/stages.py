"""What a new plugin has that trains: a method on huggingface's trainer, or a backend of its own."""

from __future__ import annotations

from typing import Any

METHOD: dict[str, Any] = {
    "about": "Brings a training method of its own, by huggingface's way of training.",
    "needs": "forge-train[huggingface]",
    "modules": {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Offer, hookimpl
from forge_huggingface.methods import Method
from forge_huggingface.offering import method_offer

METHOD = Method(
    name="@NAME@/sft",
    config="SFTConfig",
    recipe="@PACKAGE@.train:recipe",
    layout="tokens",
    about="supervised fine-tuning, my way",
)


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do: it trains by `@NAME@/sft`, with the keys of TRL's SFTConfig."""
    yield method_offer(METHOD, "@PACKAGE@.train:train")
''',
        "train.py": '''\
"""Trains."""

from forge.api import Data, Job, Loaded, Noted, Run, Trained
from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.train import train_by

from @PACKAGE@ import METHOD


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train by the method and save the weights."""
    return train_by(METHOD, job, run, loaded, data)


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:
    """Return what the method adds to the common way of training: here nothing yet, but a word."""
    from trl import SFTConfig, SFTTrainer

    run.emit(Noted("@NAME@: training my way"))
    return Recipe(config=SFTConfig, trainer=SFTTrainer)
''',
    },
    "job": 'toml\n[train]\nmethod = "@NAME@/sft"',
    "seen": "`forge plan` names the plugin for the stage train, and `forge run` prints its note.",
}

METHOD_TEST = """\
def test_the_method_trains(tmp_path: Path) -> None:
    ran = run_job('[train]\\nmethod = "@NAME@/sft"\\nmax_steps = 1\\n', tmp_path, whole=True)
    said = [event.values["message"] for event in ran.of_kind("note")]
    assert "@NAME@: training my way" in said
    assert (ran.folder / ran.trained.weights / "adapter_model.safetensors").is_file()
"""

BACKEND: dict[str, Any] = {
    "about": "Loads, adapts and trains by itself: a model that counts tokens, in plain Python.",
    "modules": {
        "__init__.py": '''\
"""The plugin `@NAME@`. This module is imported at planning time: import nothing heavy here."""

from collections.abc import Iterable

from forge.api import Extension, Function, Job, Machine, ModelFacts, Offer, Stage, hookimpl

TRAITS = frozenset({"@NAME@-model"})
"""What later stages can rely on once this plugin has loaded a model. Nobody else's stages do."""


def cannot_load(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why the model cannot be loaded here, or None: then another backend is taken, with this reason."""
    return "it is for text only" if facts.task == "vision" else None


@hookimpl
def forge_offers() -> Iterable[Offer | Extension | Function]:
    """Say what the plugin can do. Its stages fit together by their traits."""
    yield Offer(
        stage=Stage.LOAD,
        impl="@PACKAGE@.model:load",
        supports=frozenset({"text", "full"}),
        provides=TRAITS,
        backend="@NAME@",
        probe=cannot_load,
    )
    yield Offer(
        stage=Stage.ADAPT,
        impl="@PACKAGE@.model:adapt",
        serves=frozenset({"lora", "none"}),
        depends=TRAITS,
        backend="@NAME@",
    )
    yield Offer(
        stage=Stage.TRAIN,
        impl="@PACKAGE@.train:train",
        serves=frozenset({"sft"}),
        depends=TRAITS,
        options="@PACKAGE@.options:Options",
    )
''',
        "options.py": '''\
"""The keys that `[train]` has where this plugin trains."""

from forge.api import Table
from pydantic import Field


class Options(Table):
    """What a job may say of the training."""

    max_steps: int = Field(4, ge=1, description="Steps to train.")
    save_steps: int = Field(2, ge=1, description="Steps between checkpoints.")
''',
        "model.py": '''\
"""Loads the model, and makes it trainable."""

from forge.api import Loaded

from @PACKAGE@ import TRAITS


def load() -> Loaded:
    """Return the model: how often each token was seen."""
    counts: dict[int, int] = {}
    return Loaded(model=counts, traits=TRAITS)


def adapt(loaded: Loaded) -> Loaded:
    """Return the model as it is: every count is trained."""
    return loaded
''',
        "train.py": '''\
"""Trains."""

import json
import math
import time
from collections.abc import Iterable
from dataclasses import replace

from forge.api import Data, DryRunDone, Interrupted, Job, Loaded, Run, StepLogged, Trained, TrainingStarted

from @PACKAGE@.options import Options


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Count the tokens of a row in each step, with checkpoints; stop and go on where it is asked for."""
    options, counts, begins = Options.model_construct(**job.train.options), loaded.model, 0
    facts, steps = run.plan.facts, options.max_steps
    trained = Trained(
        weights="model",
        kind="full",
        task=facts.task,
        base={"id": facts.id, "revision": facts.revision, "digest": facts.digest},
        processor="model",
        traits=loaded.traits,
    )
    if run.dry_run:
        longest = max((row["input_ids"] for row in data.train), key=len)
        start = time.perf_counter()
        cross_entropy(counts, longest)
        run.emit(DryRunDone(steps, time.perf_counter() - start, longest=len(longest)))
        return trained
    if run.resume:
        state = json.loads((run.resume / "state.json").read_text(encoding="utf-8"))
        begins = state["step"]
        counts.update({int(token): count for token, count in state["counts"].items()})
    run.graceful.set()  # from here on a wish to stop is heeded
    run.emit(TrainingStarted(steps, begins))
    loss = 0.0
    for step in range(begins + 1, steps + 1):
        tokens = data.train[(step - 1) % len(data.train)]["input_ids"]
        loss = cross_entropy(counts, tokens)
        for token in tokens:
            counts[token] = counts.get(token, 0) + 1
        run.emit(StepLogged(step, steps, loss=loss))
        stops = run.stop.is_set() and step < steps
        if stops or step == steps or step % options.save_steps == 0:
            with run.checkpoint(step, finished=step == steps) as folder:
                (folder / "state.json").write_text(json.dumps({"step": step, "counts": counts}), encoding="utf-8")
        if stops:
            raise Interrupted(f"stopped at step {step} of {steps}, checkpoint-{step} is whole")
    weights = run.folder / "model"
    weights.mkdir(exist_ok=True)
    (weights / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
    return replace(trained, metrics={"train_loss": loss})


def cross_entropy(counts: dict[int, int], tokens: Iterable[int]) -> float:
    """Return the mean loss of tokens in nats, each with one more count than was seen."""
    total, known = sum(counts.values()), list(tokens)
    return sum(math.log((total + 1e5) / (counts.get(token, 0) + 1)) for token in known) / len(known)
''',
    },
    "job": 'toml\n[use]\nbackend = "@NAME@"\n\n[train]\nmax_steps = 20',
    "seen": "`forge plan` names the plugin for load, adapt and train, and `forge run` shows how the loss falls. With\n"
    '`[use] prefer = ["@NAME@"]` it is taken where it can serve, and another backend where it cannot.',
}

BACKEND_TEST = """\
def test_the_backend_trains(tmp_path: Path) -> None:
    ran = run_job('[use]\\nbackend = "@NAME@"\\n', tmp_path)
    assert {step.plugin for step in ran.plan.steps} >= {"@NAME@"}
    losses = [event.values["loss"] for event in ran.of_kind("step")]
    assert losses == sorted(losses, reverse=True)
    assert [event.values["step"] for event in ran.of_kind("checkpoint")] == [2, 4]
    assert (ran.folder / ran.trained.weights / "counts.json").is_file()
"""

"""TRAIN: the trainers of TRL and transformers, for every method and every backend's models.

What differs between methods comes from recipes (:mod:`forge_huggingface.methods`), which are imported here and not
before, so that under a backend that patches trl they get the patched classes. The rows are finished, the model is
wrapped, and every argument is written out and read back: what is trained is what the plan says.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from forge.api import Data, DiskFull, Event, Interrupted, Loaded, OutOfMemory, PluginError, RunError, Trained
from forge.checkpoints import MARK, checkpoints, is_last, newest_whole
from forge.discovery import resolve as import_object
from forge.files import is_disk_full
from forge.folder import newest_marked
from forge_huggingface.card import model_card
from forge_huggingface.fields import table
from forge_huggingface.memory import explain_out_of_memory, explain_preparing, is_out_of_memory
from forge_huggingface.methods import METHODS, Method
from forge_huggingface.options import resolve
from forge_huggingface.origins import origins
from forge_huggingface.outlook import estimate_again
from forge_huggingface.parts import frozen

if TYPE_CHECKING:
    from forge.job import Job
    from forge.run import RunHandle

DERIVED = frozenset({"do_eval", "dataloader_pin_memory", "greater_is_better"})
"""Arguments that the configuration works out from others, whatever it is given."""

EVALUATION = frozenset({"bf16_full_eval", "eval_accumulation_steps", "fp16_full_eval", "per_device_eval_batch_size"})
"""Arguments that Unsloth's trainers change, and that are read at an evaluation only: they are put back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a method adds to the common way of training.

    Attributes:
        config: The class of the trainer's arguments.
        trainer: The class of the trainer.
        arguments: Arguments of the trainer beside model, rows, processor, collator and callbacks.
        values: Arguments of the config that follow from something else than ``[train]``.
        batch: For methods that answer prompts: makes, from trainer and rows, a batch as large as one can get, so that
            the probe need not answer any; None where the collator makes batches.
        every: For methods that answer prompts: from the config, the number of optimizer steps that one set of answers
            lasts. Between two of them a checkpoint could not be resumed exactly.
    """

    config: type
    trainer: type
    arguments: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    batch: Callable[[Any, Data], dict[str, Any]] | None = None
    every: Callable[[Any], int] | None = None


def train(job: Job, run: RunHandle, loaded: Loaded, data: Data) -> Trained:
    """Train by the job's method, one of this plugin's, and save the weights. Raises what :func:`train_by` raises."""
    return train_by(METHODS[job.train.method], job, run, loaded, data)


def train_by(method: Method, job: Job, run: RunHandle, loaded: Loaded, data: Data) -> Trained:
    """Train by a method and save the weights.

    Args:
        method: The method; another plugin may bring its own.
        job: The job.
        run: The run.
        loaded: The model, ready to be trained.
        data: The rows, in the method's layout.

    Raises:
        OutOfMemory: The device is too small; before the first step if the probe is on.
        Interrupted: The user asked to stop; a checkpoint has been saved.
        DiskFull: A checkpoint or the weights could not be written; the last whole checkpoint is kept.
    """
    from forge_huggingface.callbacks import DryRunDone

    trainable = trainable_names(loaded.model, job)
    try:
        trainer = make_trainer(method, job, run, loaded, data)
    except Exception as error:
        if is_out_of_memory(error) and not isinstance(error, OutOfMemory):
            raise explain_preparing(error, job, estimate_again(job, run, data)) from error
        raise
    if trainable_names(trainer.model, job) != trainable:
        raise PluginError("the trainer changed which parameters are trained", "it is not what [adapter] says")
    try:
        if run.resume and is_last(run.resume):
            take_weights(trainer, run.resume)
        else:
            trainer.train(resume_from_checkpoint=str(run.resume) if run.resume else None)
    except DryRunDone as done:
        return result(method, job, run, loaded, metrics=done.metrics)
    except Exception as error:
        if is_out_of_memory(error) and not isinstance(error, OutOfMemory):
            estimate = estimate_again(job, run, data)
            raise explain_out_of_memory(error, trainer, data, job, probing=False, estimate=estimate) from error
        if is_disk_full(error):
            raise no_room_for_checkpoint(run.folder / "checkpoints", error) from error
        raise
    state = trainer.state
    if run.stop.is_set() and state.global_step < state.max_steps:
        whole = newest_marked(run.folder / "checkpoints")
        kept = f"{whole.name} is whole" if whole else "no checkpoint had been saved"
        raise Interrupted(f"stopped at step {state.global_step} of {state.max_steps}, {kept}")
    metrics = final_metrics(state.log_history)
    trained = result(method, job, run, loaded, best=best_step(trainer), metrics=metrics)
    save(trainer.model, data.processor, run.folder / trained.weights, job, run, trained)
    return trained


def make_trainer(method: Method, job: Job, run: RunHandle, loaded: Loaded, data: Data) -> Any:
    """Build the method's trainer with every argument given, and check that it holds them."""
    from transformers import EarlyStoppingCallback

    from forge_huggingface.callbacks import ForgeCallback

    make: Callable[..., Recipe] = import_object(method.recipe)  # type: ignore[assignment]  # a name's object
    recipe = make(job, run, loaded, data)
    values = {**arguments(method, job, run, loaded), **recipe.values}
    known = recipe.config.__dataclass_fields__  # type: ignore[attr-defined]
    values = {name: value for name, value in values.items() if name in known}
    config = recipe.config(output_dir=str(run.folder / "checkpoints"), **values)
    every = recipe.every(config) if recipe.every else 1
    by_steps = str(getattr(config.save_strategy, "value", config.save_strategy)) == "steps"
    if by_steps and every > 1 and config.save_steps >= 1 and config.save_steps % every:
        config.save_steps = values["save_steps"] = -(-int(config.save_steps) // every) * every
        why = f"one set of answers lasts {every} steps, and a run goes on exactly only between two"
        run.emit(Event("note", {"message": f"save_steps is rounded up to {config.save_steps}: {why}"}))
    callbacks: list[Any] = []
    if job.train.early_stopping_patience:
        patience = job.train.early_stopping_patience
        callbacks.append(EarlyStoppingCallback(patience, job.train.early_stopping_threshold))
        config.metric_for_best_model = config.metric_for_best_model or "loss"
        config.greater_is_better = bool(config.greater_is_better)
    # A single held-out set keeps the trainer's plain names: eval_loss, not eval_eval_loss.
    evaluation = data.eval.get("eval") if len(data.eval) == 1 else dict(data.eval)
    collator = {"data_collator": data.collator(loaded)} if data.collator else {}
    trainer = recipe.trainer(
        model=loaded.model,
        args=config,
        train_dataset=data.train,
        eval_dataset=evaluation or None,
        processing_class=data.processor,
        callbacks=callbacks,
        **collator,
        **recipe.arguments,
    )
    if "ref" in getattr(trainer.model, "peft_config", {}):
        # TRL takes an adapter that it has not made for a trained one, and keeps a copy of it as the reference. This one
        # is new, so the model without it is the same; and with a second adapter in the checkpoint, transformers 5.17
        # does not read the first one back.
        trainer.model.delete_adapter("ref")
    for name in EVALUATION & values.keys():
        setattr(trainer.args, name, values[name])
    changed = [
        f"{name}: {value} → {getattr(trainer.args, name)}"
        for name, value in values.items()
        if type(value) in {int, float, bool} and name not in DERIVED and getattr(trainer.args, name) != value
    ]
    if changed:
        raise PluginError("the trainer changed its arguments", ", ".join(changed))
    trainer.add_callback(ForgeCallback(trainer, job, run, data, batch=recipe.batch, every=every))
    run.emit(Event("trainer", origins(trainer)))
    return trainer


def arguments(method: Method, job: Job, run: RunHandle, loaded: Loaded) -> dict[str, Any]:
    """Return every argument of the trainer: forge's table of defaults, the job's, and what loading imposes."""
    options = job.train.options
    for name, value in loaded.trainer.items():
        if f"train.{name}" in run.plan.named and options.get(name) != value:
            raise PluginError(f"[train] {name} = {options[name]} cannot be", f"the loaded model needs {value}")
    half: Literal["bf16", "fp16"] | None = "bf16" if options.get("bf16") else "fp16" if options.get("fp16") else None
    extra = {"reward", "collapse_patience"}  # forge's own keys, which no trainer knows
    asked = {name: value for name, value in options.items() if name in table(method.config) and name not in extra}
    values = resolve({**asked, **loaded.trainer}, job.adapter.type, half, method.config)
    values["report_to"] = values.get("report_to") or "none"
    return values


def take_weights(trainer: Any, checkpoint: Path) -> None:
    """Restore a training that had ended and lacked only its last files.

    The trainer would train one step more, since it looks whether to stop only after a step. Its loaders are private;
    they are the same in transformers 5.17 and 5.23, and a test holds that.
    """
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    restore_best(trainer.args, trainer.state)
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or str(checkpoint))  # noqa: SLF001


def restore_best(args: Any, state: Any) -> None:
    """Point a restored state at its best checkpoint, which it knows by a path of the folder it once ran in.

    Raises:
        RunError: The job wants the best weights, and they are gone.
    """
    if not state.best_global_step:
        return
    best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
    if best.is_dir():
        state.best_model_checkpoint = str(best)
    elif args.load_best_model_at_end:
        raise RunError(f"{best.name}, the best one, is gone", "load_best_model_at_end needs it", "restore it")


def trainable_names(model: Any, job: Job) -> list[str]:
    """Return the names of the parameters that are trained, and refuse others than ``[adapter]`` asks for."""
    every = list(model.named_parameters())
    names = [name for name, parameter in every if parameter.requires_grad]
    if not names:
        raise PluginError("no parameter would be trained", "the model came frozen from loading and adapting")
    if job.adapter.type == "none":
        tower = job.adapter.finetune_vision_layers is False
        wanted = [name for name, _ in every if not (tower and frozen(name))]
        if names != wanted:
            what = f"{len(names)} of the {len(wanted)} parameters that [adapter] asks for would be trained"
            raise PluginError(what, "[adapter] type is none")
        return names
    if job.adapter.type == "lora" and job.adapter.bias == "none":
        foreign = [name for name in names if "lora_" not in name and "modules_to_save" not in name]
        if foreign:
            raise PluginError(f"{len(foreign)} parameters outside the adapter would be trained", foreign[0])
    return names


def result(
    method: Method,
    job: Job,
    run: RunHandle,
    loaded: Loaded,
    *,
    best: int | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Trained:
    """Describe what training leaves."""
    facts = run.plan.facts
    folder = "model" if job.adapter.type == "none" else "adapter"
    base = {"id": job.model.id, "revision": facts.revision, "digest": facts.digest, "path": facts.path}
    return Trained(
        weights=folder,
        kind="full" if job.adapter.type == "none" else "adapter",
        task="reward" if method.head == "reward" else facts.task,
        base=base,
        processor=folder,
        traits=loaded.traits,
        best_step=best,
        metrics=metrics or {},
    )


def save(model: Any, processor: Any, folder: Path, job: Job, run: RunHandle, trained: Trained) -> None:
    """Write weights, tokenizer and model card under a temporary name, then rename it."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        if trained.kind == "adapter":
            for config in model.peft_config.values():
                # A hub id means the same on every machine; a folder in this machine's cache does not.
                config.base_model_name_or_path = run.plan.facts.path if is_folder(run) else job.model.id
                config.revision = run.plan.facts.revision
        model.save_pretrained(part, safe_serialization=True)
        processor.save_pretrained(part)
        card = model_card(job, run.plan, trained, folder.name)
        (part / "README.md").write_text(card, encoding="utf-8")
        (run.folder / "README.md").write_text(card, encoding="utf-8")
    except Exception as error:
        if not is_disk_full(error):
            raise
        shutil.rmtree(part, ignore_errors=True)
        why = "the disk is full"
        raise DiskFull(f"cannot write {folder}", why, f"free some space, then forge resume {run.folder}") from error
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def is_folder(run: RunHandle) -> bool:
    """Whether the base model is a local folder, not one of the hub."""
    return run.plan.facts.source == "folder"


def best_step(trainer: Any) -> int | None:
    """Return the step of the best evaluation, if the job asked for it."""
    return trainer.state.best_global_step if trainer.args.load_best_model_at_end else None


def final_metrics(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the last values that the trainer logged."""
    measured = ("loss", "mean_token_accuracy", "rewards/accuracies", "rewards/margins", "accuracy", "margin", "reward")
    wanted = ("train_loss", "train_runtime", *measured, *(f"eval_{name}" for name in measured))
    found: dict[str, float] = {}
    for line in history:
        found |= {name: line[name] for name in wanted if name in line}
    return found


def no_room_for_checkpoint(folder: Path, error: BaseException) -> DiskFull:
    """Drop the half-written checkpoint, which frees its space, and say what is left."""
    for path in checkpoints(folder):
        if not (path / MARK).exists():
            shutil.rmtree(path, ignore_errors=True)
    whole, _ = newest_whole(folder)
    kept = f"{whole.name} is whole" if whole else "no checkpoint had been saved yet"
    free = shutil.disk_usage(folder).free / 2**20
    return DiskFull(
        "a checkpoint could not be written",
        f"the disk is full ({free:.0f} MiB free, {type(error).__name__}); {kept}",
        f"free some space, then forge resume {folder.parent}",
    )

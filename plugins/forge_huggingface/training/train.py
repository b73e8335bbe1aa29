"""TRAIN: the trainers of TRL and transformers, for every method and every backend's models.

What differs between methods comes from recipes (:mod:`forge_huggingface.methods`), which are imported here and not
before, so that under a backend that patches trl they get the patched classes. The rows are finished, the model is
wrapped, and every argument is written out and read back: what is trained is what the plan says.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from forge.api import (
    Data,
    Interrupted,
    Loaded,
    Noted,
    OutOfMemory,
    PluginError,
    Stage,
    Trained,
    TrainerMade,
    Warned,
    load_object,
)
from forge.disk.checkpoints import is_last, newest_marked
from forge.disk.faults import machine_error
from forge.disk.folder import RunFolder
from forge_huggingface.arguments.fields import table
from forge_huggingface.arguments.options import filled_in
from forge_huggingface.arguments.owned import REWARD_KEYS
from forge_huggingface.arguments.tables import MUON
from forge_huggingface.methods import METHODS, Method
from forge_huggingface.model.adapt import keep_in_float32
from forge_huggingface.model.device import is_out_of_memory, planned_device
from forge_huggingface.model.layers import chosen
from forge_huggingface.model.parts import frozen
from forge_huggingface.model.start import REFERENCE, keep_start
from forge_huggingface.model.tokens import ROWS
from forge_huggingface.rules.placement import device
from forge_huggingface.training.apart import hold_apart
from forge_huggingface.training.checkpointing import heed_layers
from forge_huggingface.training.learning import sums
from forge_huggingface.training.origins import origins
from forge_huggingface.training.outlook import estimate_again
from forge_huggingface.training.probe import explain_out_of_memory, explain_preparing
from forge_huggingface.training.rates import rates_of
from forge_huggingface.training.resume import check_number, drop_old, take_weights
from forge_huggingface.training.save import best_step, drop_unfinished, final_metrics, result, save
from forge_huggingface.training.together import (
    check_batches,
    check_together,
    filled_up,
    gathered,
    keep_exact,
    part_reference,
    share_gradients,
    together,
)

if TYPE_CHECKING:
    from forge.api import Job, Run
    from forge_huggingface.training.recipe import Recipe


DERIVED = frozenset({"do_eval", "dataloader_pin_memory", "greater_is_better"})
"""Arguments that the configuration works out from others, whatever it is given."""

EVALUATION = frozenset({"bf16_full_eval", "eval_accumulation_steps", "fp16_full_eval", "per_device_eval_batch_size"})
"""Arguments that Unsloth's trainers change, and that are read at an evaluation only: they are put back."""


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train by the job's method, one of this plugin's, and save the weights. Raises what :func:`train_by` raises."""
    return train_by(METHODS[job.train.method], job, run, loaded, data)


def train_by(
    method: Method, job: Job, run: Run, loaded: Loaded, data: Data, *, keep: Callable[..., None] | None = None
) -> Trained:
    """Train by a method and save the weights.

    Args:
        method: The method; another plugin may bring its own.
        job: The job.
        run: The run.
        loaded: The model, ready to be trained.
        data: The rows, in the method's layout.
        keep: Writes what was trained, with :func:`.save.save`'s arguments; for models that are not transformers' own.

    Raises:
        OutOfMemory: The device is too small; before the first step if the probe is on.
        Interrupted: The user asked to stop; a checkpoint has been saved.
        MachineError: A checkpoint or the weights could not be written; the last whole checkpoint is kept.
    """
    from forge_huggingface.training.callbacks import DryRunEnded  # imports transformers

    if "hf-model" in loaded.traits:
        check_adapter(loaded.model, job, run)
    trainable = trainable_names(loaded.model, job)
    run.group.same("weights to train", sums(loaded.model), lambda found: f"sums of {len(found)} tensors")
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
            drop_old(trainer.args, trainer.state, job.train.options.get("save_total_limit"))
        else:
            trainer.train(resume_from_checkpoint=str(run.resume) if run.resume else None)
    except DryRunEnded as done:
        return result(method, job, run, loaded, metrics=done.metrics)
    except Exception as error:
        if is_out_of_memory(error) and not isinstance(error, OutOfMemory):
            raise explain_out_of_memory(error, trainer, data, job, run) from error
        if (fault := machine_error(error, RunFolder(run.folder).unfinished())) is not None:
            if run.rank == 0:  # which may still be writing where another one has failed
                drop_unfinished(run.folder / "checkpoints")
            raise fault from error
        raise
    state = trainer.state
    if trainer.stopped and state.global_step < state.max_steps:
        whole = newest_marked(run.folder / "checkpoints")
        kept = f"{whole.name} is whole" if whole else "no checkpoint had been saved"
        raise Interrupted(f"stopped at step {state.global_step} of {state.max_steps}, {kept}")
    trainer.end_averages()
    doubt = trainer.learning.end(trainer.model)
    if doubt is not None:
        run.emit(doubt)
    metrics = final_metrics(state.log_history)
    warnings = () if doubt is None else (doubt.message,)
    trained = result(method, job, run, loaded, best=best_step(trainer), metrics=metrics, warnings=warnings)
    weights = gathered(trainer, run)
    if run.rank == 0:
        (keep or save)(trainer.model, data.processor, run.folder / trained.weights, job, run, trained, weights)
    run.group.first(None)
    return trained


def make_trainer(method: Method, job: Job, run: Run, loaded: Loaded, data: Data) -> Any:
    """Build the method's trainer with every argument given, and check that it holds them."""
    from transformers import EarlyStoppingCallback

    from forge_huggingface.kernels.apply import apply  # imports torch
    from forge_huggingface.training.callbacks import ForgeCallback  # imports transformers, as the next one does
    from forge_huggingface.training.learning import Learning
    from forge_huggingface.training.steady import Steady

    make: Callable[..., Recipe] = load_object(method.recipe)  # type: ignore[assignment]  # a name's object
    recipe = make(job, run, loaded, data)
    values = {**arguments(method, job, run, loaded), **recipe.values}
    known = recipe.config.__dataclass_fields__  # type: ignore[attr-defined]
    values = {name: value for name, value in values.items() if name in known}
    config = recipe.config(output_dir=str(run.folder / "checkpoints"), **values)
    keep_exact(config)
    every = recipe.every(config) if recipe.every else 1
    by_steps = str(getattr(config.save_strategy, "value", config.save_strategy)) == "steps"
    if by_steps and every > 1 and config.save_steps >= 1 and config.save_steps % every:
        config.save_steps = values["save_steps"] = -(-int(config.save_steps) // every) * every
        why = f"one set of answers lasts {every} steps, and a run goes on exactly only between two"
        run.emit(Noted(f"save_steps is rounded up to {config.save_steps}: {why}"))
    callbacks: list[Any] = []
    if job.train.early_stopping_patience:
        patience = job.train.early_stopping_patience
        callbacks.append(EarlyStoppingCallback(patience, job.train.early_stopping_threshold))
        config.metric_for_best_model = config.metric_for_best_model or "loss"
        config.greater_is_better = bool(config.greater_is_better)
    if values.get("gradient_checkpointing_kwargs") or values.get("activation_checkpointing_kwargs"):
        heed_layers(loaded.model)
    collator = {"data_collator": data.collator(loaded)} if data.collator else {}
    acting = apply(job, run, loaded.model, planned_device(job, run))
    part_reference(job, run)
    if hasattr(loaded.model, "peft_config"):
        # peft would keep a copy of an embedding that LoRA is on: the base has it.
        loaded.model.save_pretrained = partial(loaded.model.save_pretrained, save_embedding_layers=False)
    if job.adapter.from_:
        keep_start(loaded.model)
    kind = type(recipe.trainer.__name__, (Steady, recipe.trainer), {})
    trainer: Any = kind(
        model=loaded.model,
        args=config,
        train_dataset=endless(data.train),
        eval_dataset=held_out(data),
        processing_class=data.processor,
        callbacks=callbacks,
        **collator,
        **recipe.arguments,
    )
    if REFERENCE in getattr(trainer.model, "peft_config", {}) and not job.adapter.from_:
        # TRL takes an adapter that it has not made for a trained one, and keeps a copy of it as the reference. This one
        # is new, so the model without it is the same.
        trainer.model.delete_adapter(REFERENCE)
    if not job.adapter.leaves_model:
        keep_in_float32(trainer.model, every=trainer.args.fp16)
    check_together(trainer, run)
    share_gradients(trainer)
    trainer.run = run
    trainer.rates, trainer.muon = rates_of(job), job.train.options.get("optim") == MUON
    trainer.learning = Learning(trainer.model, recipe.idle)
    for name in EVALUATION & values.keys():
        setattr(trainer.args, name, values[name])
    changed = [
        f"{name}: {value} → {getattr(trainer.args, name)}"
        for name, value in values.items()
        if type(value) in {int, float, bool} and name not in DERIVED and getattr(trainer.args, name) != value
    ]
    if changed:
        raise PluginError("the trainer changed its arguments", ", ".join(changed))
    check_batches(trainer)
    for differs in check_number(trainer, run):
        run.emit(Warned(differs))
    hold_apart(trainer, job, run)
    if (note := filled_up(trainer, data)) is not None:
        run.emit(note)
    trainer.add_callback(ForgeCallback(trainer, job, run, data, batch=recipe.batch, every=every))
    run.emit(TrainerMade.from_values({**origins(trainer), "kernels": acting}))
    return trainer


def endless(rows: Any) -> Any:
    """Return rows as they are, and a stream without its end.

    A trainer knows no length of a stream, takes it for one epoch, and counts what it has seen from the beginning. Where
    a stream ended, it would go on with a half accumulated gradient, and after a resume at the first row.
    """
    from datasets import IterableDataset

    return rows.repeat(None) if isinstance(rows, IterableDataset) else rows


def held_out(data: Data) -> Any:
    """Return the held-out rows as trainers take them: None, a data set, or several by name."""
    if len(data.eval) > 1:
        return dict(data.eval)
    # A single set keeps the trainer's plain names: eval_loss, not eval_eval_loss.
    return next(iter(data.eval.values()), None)


def arguments(method: Method, job: Job, run: Run, loaded: Loaded) -> dict[str, Any]:
    """Return every argument of the trainer: forge's table of defaults, the job's, and what loading imposes."""
    options = job.train.options
    for name, value in loaded.trainer.items():
        if f"train.{name}" in run.plan.named and options.get(name) != value:
            raise PluginError(f"[train] {name} = {options[name]} cannot be", f"the loaded model needs {value}")
    half: Literal["bf16", "fp16"] | None = "bf16" if options.get("bf16") else "fp16" if options.get("fp16") else None
    theirs = table(method.config).keys() - REWARD_KEYS
    asked = {name: value for name, value in options.items() if name in theirs}
    values = filled_in({**asked, **loaded.trainer}, job.adapter.type, half, method.config)
    values["use_cpu"] = device(run.plan.machine, job) is None  # else torch would look for a GPU, and miss its bfloat16
    values["report_to"] = values.get("report_to") or "none"
    values |= together(job, run, loaded.model)
    # Batches come from one process each, and a GPU copies them while the processor goes on.
    cuda = device(run.plan.machine, job) == "cuda"
    values["accelerator_config"] = {
        "dispatch_batches": False,
        "non_blocking": cuda and values.get("dataloader_pin_memory", True),
    }
    return values


def check_adapter(model: Any, job: Job, run: Run) -> None:
    """Refuse an adapter that is none of peft's: it could be trained, and neither saved nor read back.

    Raises:
        PluginError: There is another one, or none.
    """
    if job.adapter.leaves_model or hasattr(model, "peft_config"):
        return
    what = f'[adapter] type = "{job.adapter.type}" gave a {type(model).__name__} without an adapter of peft'
    mend = 'update it: it is to wrap the model by peft, or to say removes=frozenset({"hf-model"})'
    why = f"plugin {run.plan.step(Stage.ADAPT).plugin} left the trait hf-model, and only peft's can be saved"
    raise PluginError(what, why, mend)


def trainable_names(model: Any, job: Job) -> list[str]:
    """Return the names of the parameters that are trained, and refuse others than ``[adapter]`` asks for."""
    every = list(model.named_parameters())
    names = [name for name, parameter in every if parameter.requires_grad]
    if not names:
        raise PluginError("no parameter would be trained", "the model came frozen from loading and adapting")
    if job.adapter.leaves_model:
        tower = job.adapter.finetune_vision_layers is False
        asked = chosen(model, job.adapter) if job.adapter.type == "layers" else {name for name, _ in every}
        wanted = [name for name, _ in every if name in asked and not (tower and frozen(name))]
        if names != wanted:
            what = f"{len(names)} of the {len(wanted)} parameters that [adapter] asks for would be trained"
            raise PluginError(what, f"[adapter] type is {job.adapter.type}")
        return names
    if job.adapter.type == "lora" and job.adapter.bias == "none":
        mine = ("lora_", "modules_to_save", ROWS)
        foreign = [name for name in names if not any(part in name for part in mine)]
        if foreign:
            raise PluginError(f"{len(foreign)} parameters outside the adapter would be trained", foreign[0])
    return names

"""What training leaves: weights, tokenizer and model card, under their names only when they are whole."""

from __future__ import annotations

import math
import shutil
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from forge.api import Loaded, ModelError, PluginError, Trained, Warned
from forge.disk.checkpoints import MARK, checkpoints
from forge.disk.faults import machine_error
from forge.disk.files import write_json, write_text
from forge_huggingface.facts.safetensors import read_folder, read_header
from forge_huggingface.heads.heads import CLASSIFICATION, summary_of
from forge_huggingface.heads.labels import FILE, Labels
from forge_huggingface.hub.card import model_card, speed_of
from forge_huggingface.methods import Method
from forge_huggingface.model.residual import KEPT, as_plain_lora

if TYPE_CHECKING:
    from forge.api import Job, Run


def result(
    method: Method,
    job: Job,
    run: Run,
    loaded: Loaded,
    *,
    best: int | None = None,
    metrics: Mapping[str, float] | None = None,
    warnings: tuple[str, ...] = (),
) -> Trained:
    """Describe what training leaves."""
    facts = run.plan.facts
    folder = "model" if job.adapter.leaves_model else "adapter"
    base = {"id": job.model.id, "revision": facts.revision, "digest": facts.digest, "path": facts.path}
    return Trained(
        weights=folder,
        kind="full" if job.adapter.leaves_model else "adapter",
        task=method.head if method.pooled else facts.task,
        base=base,
        processor=folder,
        traits=loaded.traits,
        best_step=best,
        metrics=metrics or {},
        warnings=warnings,
    )


def save(
    model: Any,
    processor: Any,
    folder: Path,
    job: Job,
    run: Run,
    trained: Trained,
    weights: Mapping[str, Any] | None = None,
) -> None:
    """Write weights and tokenizer under a temporary name, rename it, and add the model card.

    Args:
        model: The model.
        processor: The tokenizer, or what it is a part of.
        folder: Where to.
        job: The job.
        run: The run.
        trained: What is known of it.
        weights: All of its weights, where the model holds a part of them only.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        if trained.kind == "adapter":
            for config in model.peft_config.values():
                # A hub id means the same on every machine; a folder in this machine's cache does not.
                config.base_model_name_or_path = run.plan.facts.path if is_folder(run) else job.model.id
                config.revision = run.plan.facts.revision
        options: dict[str, Any] = {} if weights is None else {"state_dict": weights}
        if trained.kind == "adapter":
            options["save_embedding_layers"] = False  # peft would add the frozen embedding, where its size is another
        model.save_pretrained(part, safe_serialization=True, **options)
        processor.save_pretrained(part)
        if trained.kind == "adapter" and trained.task == CLASSIFICATION:
            known = Labels.of(summary_of(run))
            write_json(part / FILE, {"problem_type": known.problem_type, "labels": list(known.names)})
        (part / "README.md").unlink(missing_ok=True)  # peft's; forge's own comes once the weights count
        check_written(model, part)
        if trained.kind == "adapter" and job.adapter.takes_from_the_base:
            as_plain_lora(part, run.folder / KEPT)
    except Exception as error:
        if (fault := machine_error(error, part)) is None:
            raise
        shutil.rmtree(part, ignore_errors=True)  # which makes room for the rest
        raise fault from error
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    try:
        card = model_card(job, run.plan, trained, folder.name, speed=speed_of(run.folder))
    except Exception as error:  # noqa: BLE001 - no card is worth a training
        traceback.print_exception(error)
        run.emit(Warned(f"there is no model card: {type(error).__name__}: {error}", "please report this"))
        return
    for place in (folder, run.folder):
        write_text(place / "README.md", card)


def check_written(model: Any, folder: Path) -> None:
    """Compare the weights that were written with those that were trained: their names, shapes and number.

    Raises:
        PluginError: Something that was trained was not written.
    """
    fault = _adapter_fault(model, folder) if hasattr(model, "peft_config") else _model_fault(model, folder)
    if fault is not None:
        raise PluginError("what was written is not what was trained", fault, f"{folder} is kept; please report this")


def _adapter_fault(model: Any, folder: Path) -> str | None:
    from peft import get_peft_model_state_dict

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        return f"there is no {file.name}"
    trained = {
        name: tuple(value.shape)
        for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    return _difference(trained, read_header(file).shapes, file.name) or _too_few(model, read_header(file).shapes)


def _model_fault(model: Any, folder: Path) -> str | None:
    try:
        headers = read_folder(folder)
    except ModelError as error:
        return str(error)
    written = {name: shape for header in headers for name, shape in header.shapes.items()}
    names: dict[int, list[str]] = {}  # of one parameter: a tied one has several, and is written once
    shapes = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        shapes[name] = tuple(parameter.shape)
    known = written.keys() & model.state_dict().keys()
    trained = {name: shapes[name] for name in known & shapes.keys()}
    if len(known) == len(written):  # else transformers writes them in another form: then the number of weights counts
        first = {each[0]: shapes[each[0]] for each in names.values() if not known.intersection(each)}
        trained |= {name: shape for name, shape in first.items() if model.get_parameter(name).requires_grad}
    return _difference(trained, written, "the files") or _too_few(model, written)


def _difference(trained: Mapping[str, Any], written: Mapping[str, Any], where: str) -> str | None:
    for name, shape in trained.items():
        if name not in written:
            missing = len(trained.keys() - written.keys())
            return f"{where} lack{'s' * (where != 'the files')} {missing} of {len(trained)} trained weights, as {name}"
        if written[name] != shape:
            return f"{name} has the shape {list(written[name])}, not {list(shape)}"
    return None


def _too_few(model: Any, written: Mapping[str, tuple[int, ...]]) -> str | None:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    count = sum(map(math.prod, written.values()))
    return f"{trained} numbers were trained, and {count} are in the files" if count < trained else None


def is_folder(run: Run) -> bool:
    """Whether the base model is a local folder, not one of the hub."""
    return run.plan.facts.source == "folder"


def best_step(trainer: Any) -> int | None:
    """Return the step of the best evaluation, if the job asked for it."""
    return trainer.state.best_global_step if trainer.args.load_best_model_at_end else None


def final_metrics(history: list[dict[str, Any]]) -> dict[str, float]:
    """Return the last values that the trainer logged, as far as they are numbers: of a step without rewards none is."""
    pairs, labels = ("rewards/accuracies", "rewards/margins", "margin", "reward"), ("accuracy", "f1", "mse", "pearson")
    measured = ("loss", "mean_token_accuracy", *pairs, *labels)
    wanted = ("train_loss", "train_runtime", *measured, *(f"eval_{name}" for name in measured))
    found: dict[str, float] = {}
    for line in history:
        found |= {name: line[name] for name in wanted if is_number(line.get(name))}
    return found


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a logged value is a finite number; a trainer logs None for what it could not measure."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def drop_unfinished(folder: Path) -> None:
    """Delete a checkpoint that could not be written whole, which makes room for the rest."""
    for path in checkpoints(folder):
        if not (path / MARK).exists():
            shutil.rmtree(path, ignore_errors=True)

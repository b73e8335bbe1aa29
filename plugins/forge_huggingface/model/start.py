"""Going on from an adapter: it is trained as it is, and what it was stays beside it as the reference.

TRL compares a model that comes with an adapter with a copy of that adapter, under the name ``ref``, not with the bare
base (``trl/trainer/dpo_trainer.py`` of 1.14 and 1.16, and so in kto, grpo and rloo). The copy is made anew whenever a
run begins or goes on, so it is in no checkpoint and no export.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, Noted, PluginError, Stage, Warned
from forge_huggingface.facts.adapter import CONFIG, WEIGHTS, start_of
from forge_huggingface.facts.folder import read_object, read_text, reading
from forge_huggingface.facts.safetensors import read_header
from forge_huggingface.heads.heads import CLASSIFICATION, summary_of, task_of
from forge_huggingface.heads.labels import FILE, Labels, listed
from forge_huggingface.hub.config import new_token_ids
from forge_huggingface.hub.snapshot import adapter_snapshot, snapshot

if TYPE_CHECKING:
    from forge.api import Job, Run

TEMPLATE = "chat_template.jinja"

TRAINED, REFERENCE = "default", "ref"
"""peft's name of the adapter that is trained, and TRL's of what it was before."""


def go_on_from(model: Any, job: Job, run: Run, kind: str) -> Any:
    """Put the adapter that a job goes on from around a model, to be trained.

    Args:
        model: The model.
        job: The job.
        run: The run.
        kind: peft's word for what the model is for, where the adapter's config lacks it.

    Raises:
        ModelError: It cannot be had or read, or does not fit the model.
        PluginError: It is not the one that was planned.
    """
    from peft import LoraConfig, PeftModel

    start = start_of(job)
    if start is None:
        raise PluginError("the plan has no adapter to go on from")
    folder = start.folder or adapter_snapshot(job, start.revision)
    what = f"{start.about} cannot be put on {job.model.id}"
    rows = {tuple(sorted(ids)) for ids in (start.config.get("trainable_token_indices") or {}).values()}
    if rows - {tuple(new_token_ids(run))}:
        raise ModelError(
            what, "its rows are of other tokens than the job adds", "name its tokens in [model] add_tokens"
        )
    with reading(what, folder, (CONFIG, WEIGHTS), do="see [adapter] from"):
        config = LoraConfig.from_pretrained(str(folder))
        config.lora_dropout = job.adapter.lora_dropout
        config.base_model_name_or_path = model.name_or_path  # of which peft reads whether its vocabulary is another
        config.task_type = config.task_type or kind
        wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=True, config=config)
    if fault := difference(wrapped, folder):
        raise ModelError(what, fault, "name the model that it was trained on in [model] id")
    check_labels(run, start.about, folder)
    tell(job, run, start.about, start.config.get("base_model_name_or_path"), folder)
    return wrapped


def check_labels(run: Run, about: str, folder: Path) -> None:
    """Refuse a classifier whose numbers stand for other labels than those of the rows.

    Raises:
        ModelError: They do.
    """
    if (task := task_of(run.plan.step(Stage.LOAD).words)) != CLASSIFICATION:
        return
    here, file = Labels.of(summary_of(run)), folder / FILE
    if not file.is_file():
        what = f"{about} does not say which of its numbers stands for which label"
        run.emit(Warned(what, "name them in its order in [train] labels"))
        return
    there = Labels.of(read_object(file))
    if there != here:
        its, mine = (listed(each.names) or each.problem_type for each in (there, here))
        why = f"it tells {its}, the rows have {mine}"
        do = "name its labels in [train] labels; a model for others begins without [adapter] from"
        raise ModelError(f"{about} is a {task} of other labels", why, do)


def difference(model: Any, folder: Path) -> str | None:
    """Return how the weights of an adapter's file differ in name or shape from those of a model with it, or None."""
    from peft import get_peft_model_state_dict

    here = {
        name: tuple(value.shape)
        for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    there = dict(read_header(folder / WEIGHTS).shapes)
    if missing := sorted(here.keys() - there.keys()):
        return f"its file lacks {len(missing)} of {len(here)} weights, as {missing[0]}"
    if left := sorted(there.keys() - here.keys()):
        return f"{len(left)} of its {len(there)} weights have no place in the model, as {left[0]}"
    other = next((name for name, shape in here.items() if there[name] != shape), None)
    return None if other is None else f"{other} has the shape {list(there[other])}, not {list(here[other])}"


def tell(job: Job, run: Run, about: str, base: str | None, folder: Path) -> None:
    """Say what a run goes on from, and warn where the adapter was trained on something else than is told here."""
    run.emit(Noted(f"training goes on from {about}"))
    mine = {job.model.id, Path(job.model.id).name, run.plan.facts.path}
    if base and not {base, Path(base).name} & mine:
        run.emit(Warned(f"{about} was made for {base}, by its config", f"see whether {job.model.id} is the same model"))
    its = template_in(folder)
    if job.data.chat_template is None and its and its != template_in(snapshot(job, run, weights=False)):
        what = f"{about} has another chat template than {job.model.id}, by which the rows are rendered"
        run.emit(Warned(what, f'to train on as before: [data] chat_template = "{folder / TEMPLATE}"'))


def template_in(folder: Path) -> str | None:
    """Return the chat template that lies in a folder, or None."""
    if (folder / TEMPLATE).is_file():
        return read_text(folder / TEMPLATE).strip()
    config = folder / "tokenizer_config.json"
    found = read_object(config).get("chat_template") if config.is_file() else None
    return found.strip() if isinstance(found, str) else None


def keep_start(model: Any) -> None:
    """Have a trainer's copy of the adapter be the whole of it, and have nothing but the trained one be saved.

    TRL copies what has ``.default.`` in its name, which peft's trained tokens and LoRA of embeddings have not: their
    names end in it.
    """
    add = model.add_adapter

    def add_copy(name: str, *arguments: Any, **options: Any) -> None:
        add(name, *arguments, **options)
        parameters = dict(model.named_parameters())
        for full, parameter in parameters.items():
            parts = full.split(".")
            if name == REFERENCE and TRAINED in parts:
                copy = parameters[".".join(name if part == TRAINED else part for part in parts)]
                copy.data.copy_(parameter.data)

    model.add_adapter = add_copy
    model.save_pretrained = functools.partial(model.save_pretrained, selected_adapters=[TRAINED])

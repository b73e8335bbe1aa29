"""What can be said about the rows before anything is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import DataError, Decision, Problem
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.packages import WITH_VIDEO
from forge_huggingface.rules.placement import no_such_positions, positions, too_long
from forge_huggingface.tools import OWN, tools_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job, Machine, ModelFacts


def cannot_collate(machine: Machine, job: Job, facts: ModelFacts) -> str | None:
    """Return why this plugin cannot make the rows, or None."""
    if reason := no_such_positions(job, facts):
        return reason
    if facts.task != "vision":
        named = [key for key in ("max_pixels", "min_pixels", "image_background") if getattr(job.data, key) is not None]
        known = facts.task != "unknown"
        return f"{', '.join(named)}: the model takes no images; remove it" if named and known else None
    if job.data.packing:
        return "packing is for models that take text only; remove it"
    if job.data.padding_free:
        return "padding_free is for models that take text only; remove it"
    if job.data.on_long_row == "split":
        return 'on_long_row = "split" is for models that take text only; write "truncate", "drop" or "error"'
    if "pillow" not in machine.versions:
        return "pillow is not installed, and vision models need it (pip install pillow)"
    if facts.model_type in WITH_VIDEO and "torchvision" not in machine.versions:
        what = f"torchvision is not installed, and the processor of {facts.model_type} needs it"
        return f"{what} (pip install torchvision)"
    return None


def data_problems(job: Job) -> Iterable[Problem]:
    """Yield contradictions between the data's keys and the rest."""
    options = job.train.options
    method = METHODS.get(job.train.method)
    for name in sorted(OWN & job.data.variables.keys()):
        do = "write [data] tools" if name == "tools" else "write [data] date" if name == "strftime_now" else "remove it"
        yield Problem(f"data.chat_template_kwargs.{name}", "forge passes it to the chat template itself", do)
    try:
        tools_of(job)
    except DataError as error:
        yield Problem("data.tools", f"{error.what}: {error.why}", error.do)
    if method and method.layout != "tokens":
        yield from layout_problems(job, method.layout)
    elif job.data.on_long_row == "split":
        formats = {source.format for source in job.data.all_sources()} - {"auto", "text", "tokens"}
        if formats:
            what = f"only plain texts become several rows, and rows of the format {min(formats)} are none"
            yield Problem("data.on_long_row", what, 'write "auto", which splits plain texts and cuts other rows')
    if job.data.padding_free and not job.data.packing and options.get("neftune_noise_alpha"):
        why = "NEFTune's noise goes by the length of a row, and would go by that of a batch"
        yield Problem("data.padding_free", why, "remove it, or neftune_noise_alpha")
    if job.data.streaming and (options.get("max_steps") or -1) < 1:
        yield Problem(
            "data.streaming",
            "streamed rows have no known number, so the end of training must be said",
            "write [train] max_steps",
        )
    for name in ("eval_strategy", "logging_strategy", "save_strategy") if job.data.streaming else ():
        if options.get(name) == "epoch":
            why = "streamed rows have no known number, so nobody can tell where an epoch ends"
            yield Problem(f"train.{name}", why, f'write {name} = "steps"')
    order = options.get("train_sampling_strategy")
    if job.data.streaming and order in {"group_by_length", "batch_rebalance"}:
        why = "streamed rows come in the order in which they are read, and cannot be sorted"
        yield Problem("train.train_sampling_strategy", why, "remove it, or remove streaming")


def layout_problems(job: Job, layout: str, name: str = "") -> Iterable[Problem]:
    """Yield keys of ``[data]`` that only mean something for a model that only decodes, and supervised fine-tuning."""
    name, method = name or f'method = "{job.train.method}"', METHODS.get(job.train.method)
    if job.data.streaming:
        yield Problem("data.streaming", f"{name} needs all rows at hand", "remove it")
    if job.data.packing:
        yield Problem("data.packing", f"{name} cannot put several rows into one", "remove it")
    if job.data.padding_free is not None:
        yield Problem("data.padding_free", f"{name} has batches of its own, which are padded", "remove it")
    if job.data.on_long_row == "split":
        what = f"only plain texts become several rows, and under {name} no row is one"
        yield Problem("data.on_long_row", what, 'write "truncate", "drop" or "error"')
    if job.data.train_on != "auto":
        told = {"prompts": "no token of a prompt is in the loss", "labelled": "the loss is of the label, not of tokens"}
        what = told.get(layout, "the answers are always and alone in the loss")
        yield Problem("data.train_on", f"under {name} {what}", "remove it")
    unread = {
        "prompts": ("keep_reasoning", "mask_empty_reasoning"),
        "labelled": ("mask_empty_reasoning",),
        "seq2seq": ("keep_reasoning", "mask_empty_reasoning", "chat_template_kwargs"),
    }
    for key in unread.get(layout, ()):
        if getattr(job.data, key):
            yield Problem(f"data.{key}", f"under {name} forge renders no answers by a chat template", "remove it")
    if job.data.tools is not None and layout == "prompts":
        what = f"under {name} the trainer renders the prompts, and tells the template only of what can be called"
        do = "name functions in [train] tools" if method and method.acts else "describe the tools in system_prompt"
        yield Problem("data.tools", what, f"remove it, or {do}")


def held_out(job: Job) -> bool:
    """Whether the job has held-out rows."""
    return any(value is not None for value in (job.data.eval_path, job.data.eval_split, job.data.eval_size))


def asks_rows(job: Job) -> bool:
    """Whether a job's ``[eval]`` has rows to ask; without, it has the questions of plugins alone."""
    return job.eval is not None and (job.eval.path is not None or held_out(job))


def decide_rows(machine: Machine, job: Job, facts: ModelFacts) -> Iterable[Decision]:  # noqa: ARG001
    """Yield the longest row, where the job leaves it open and the model has fewer positions than forge's default."""
    if too_long(job, facts) and "max_seq_length" not in job.model.model_fields_set:
        there = positions(facts)
        yield Decision("model.max_seq_length", there, f"the model has {there} positions, and no more")

"""EXPORT: peft's files, or a whole model with the adapter merged in.

It is made from the files of the run, so also on another machine, later, without what trained the model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Exported, ExportError, Trained
from forge.disk.files import files_below
from forge.disk.folder import RunFolder
from forge_huggingface.export.merge import merge
from forge_huggingface.generation.plain import trained_on_plain_text
from forge_huggingface.generation.sampling import complete_config, recommended
from forge_huggingface.heads.heads import POOLED
from forge_huggingface.hub.card import model_card, speed_of
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rendering import tokenizers
from forge_huggingface.rendering.study import turn_end
from forge_huggingface.rendering.templates import of_job
from forge_huggingface.rendering.templates import own as own_template

if TYPE_CHECKING:
    from forge.api import ExportTable, Job, Run


def export(job: Job, run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Write one export into ``out``.

    Raises:
        ExportError: The merged model is not the trained one.
        ModelError: The base model is not there any more.
    """
    weights = run.folder / trained.weights
    report: dict[str, Any] = {}
    if export.format == "adapter":
        if trained.kind != "adapter":
            raise ExportError("there is no adapter to export", "the whole model was trained", "take format merged")
        shutil.copytree(weights, out, dirs_exist_ok=True)
    else:
        report = merge(job, run, trained, out, export.options["dtype"], export.options.get("base_model"))
    if trained.task not in POOLED:  # which answer nothing
        report["generation_config"] = generation_defaults(job, run, trained, out)
    evaluated = RunFolder(run.folder).evaluation()
    card = model_card(job, run.plan, trained, export.format, evaluated, speed=speed_of(run.folder))
    (out / "README.md").write_text(card, encoding="utf-8")
    return Exported(files=tuple(path.as_posix() for path in files_below(out)), report=report)


def generation_defaults(job: Job, run: Run, trained: Trained, out: Path) -> dict[str, Any]:
    """Write how the model is meant to answer into the export's ``generation_config.json``, and return a report.

    What the model's own says is kept; the job's ``[generation]`` goes over it, its family's recommendation below it.
    Where answers end comes from the rows: their end token, and what the chat template writes behind an answer.
    """
    own = out if (out / "generation_config.json").is_file() else snapshot(job, run, weights=False)
    if own != out and (own / "generation_config.json").is_file():  # an adapter has none of its own
        shutil.copyfile(own / "generation_config.json", out / "generation_config.json")
    tokenizer = tokenizers.load(job, run.folder / trained.processor)
    template = own_template(tokenizer.chat_template, "of the run")
    found = recommended(job, out, run.plan.facts.model_type, template.text if template is not None else None)
    ends = {tokenizer.eos_token_id}
    if template is not None and not trained_on_plain_text(run.folder):
        end = turn_end(of_job(template, job), tokenizer)
        ends |= set() if end is None else {end}
    return complete_config(out, found, ends)

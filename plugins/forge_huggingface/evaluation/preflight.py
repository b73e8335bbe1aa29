"""Trying the metrics before training, on the rows' own answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Finding, ForgeError
from forge_huggingface.data.labelled import LabelledRows
from forge_huggingface.evaluation.judge import Judge
from forge_huggingface.evaluation.questions import held_out
from forge_huggingface.generation.load import make_renderer
from forge_huggingface.heads.labels import Labels, scores_of
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rules.data import asks_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Data, Job, Run


_TRIED = 4  # rows on whose own answers functions are tried


def preflight(job: Job, run: Run, data: Data) -> Iterable[Finding]:
    """Yield what would make the evaluation fail after training, found on a few rows and their own answers."""
    if job.eval is None or not asks_rows(job):
        return

    try:
        renderer = make_renderer(job, run, data.processor, snapshot(job, run, weights=False))
        rows = held_out(job, run, renderer, limit=_TRIED)
        if data.layout == LabelledRows.name:
            yield from _scores(job, data)
        else:
            Judge(job, run).rehearse(rows)
    except ForgeError as error:
        yield Finding(
            "error",
            f"the evaluation after training would fail: {error.what}" + (f": {error.why}" if error.why else ""),
            error.do,
        )


def _scores(job: Job, data: Data) -> Iterable[Finding]:
    """Yield the metrics of ``[eval]`` that there are not for what the rows ask to tell."""
    assert job.eval is not None
    there, kind = scores_of(Labels.of(data.summary)), data.summary["problem_type"]
    for name in job.eval.metrics:
        if name not in there:
            yield Finding("error", f"[eval] metrics: there is no {name} of a {kind}", f"there are {', '.join(there)}")

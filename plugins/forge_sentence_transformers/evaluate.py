"""GENERATE and EVALUATE: the base model beside the trained one, on held-out rows."""

from __future__ import annotations

import random
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from forge.api import Answers, Evaluated, ModelError, Noted, Source, Task, Who
from forge.disk.folder import EVALUATION, RunFolder
from forge_huggingface.hub.card import speed_of
from forge_sentence_transformers import collate, model, rows
from forge_sentence_transformers.card import card_of
from forge_sentence_transformers.measuring import Search, asked, check, measure, scores
from forge_sentence_transformers.shapes import RERANKER, Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from forge.api import Generator, Job, Run, Trained

_SHOWN = 500  # characters of a text that is kept


class Asked:
    """A model that is asked for embeddings or scores: it answers nothing.

    Attributes:
        model: The model of sentence-transformers.
    """

    sampling: Any = None
    advice = "none"

    def __init__(self, model: Any) -> None:
        self.model = model

    def chat(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise silent()

    def complete(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise silent()

    def losses(self, *_: Any, **__: Any) -> None:
        """Return None: it finds no text likely."""

    def base(self) -> None:
        """Return None: the base model is made by itself."""

    def close(self) -> None:
        """Free the memory."""
        self.model = None


def silent() -> ModelError:
    """Return the error for who wants an answer."""
    return ModelError(
        "the model answers nothing", "it gives embeddings or scores", "use it with sentence-transformers, see its card"
    )


def generate(job: Job, run: Run, trained: Trained, source: Who) -> Asked:
    """Return a model that can be asked. Raises :class:`ModelError` where answers are wanted."""
    if run.plan.task is Task.CHAT:
        raise silent()
    return Asked(model.read(job, run, run.folder / trained.weights if source == Who.TUNED else None))


def evaluate(job: Job, run: Run, trained: Trained, generate: Callable[[Who], Generator]) -> Evaluated:
    """Measure every model of the plan on the held-out rows.

    Raises:
        DataError: There are no rows, or they tell nothing.
    """
    table = job.eval
    assert table is not None
    assert isinstance(run.plan, Answers)
    reranks = job.train.method == RERANKER
    shape, held, name = _rows(job, run, trained)
    if table.max_rows is not None and table.max_rows < len(held):
        rng = random.Random(table.seed)  # noqa: S311 - a repeatable choice, not a secret
        held = held.select(sorted(rng.sample(range(len(held)), table.max_rows)))
    found = asked(shape, held, reranks=reranks)
    check(found)
    of = f", {len(found.queries)} queries in {len(found.documents)} documents" if isinstance(found, Search) else ""
    run.emit(Noted(f"{len(held)} rows of {name}{of}"))
    size = 32 if table.batch_size == "auto" else table.batch_size
    said, about = {}, {}
    for who in run.plan.models:
        start, made = time.monotonic(), generate(who)
        if not isinstance(made, Asked):
            raise ModelError(
                "[use] generate cannot be followed", "its models answer, and give no embeddings", "remove it"
            )
        said[who.value] = scores(job, made.model, found, size)
        made.close()
        about[who.value] = {"seconds": round(time.monotonic() - start, 2), "answers": 0}
    result = Evaluated(
        rows=len(held),
        models=about,
        metrics=measure(found, said, table.seed),
        samples=_samples(held, table.samples),
        report={
            "source": name,
            "seed": table.seed,
            "interval": "95 %: Wilson's and Newcombe's for shares of yes and no, else bootstrapped over rows",
        },
    )
    if run.plan.target == EVALUATION:
        folder = RunFolder(run.folder)
        card = card_of(job, run, trained, trained.weights, asdict(result), speed=speed_of(run.folder))
        (folder.path / "README.md").write_text(card, encoding="utf-8")
    return result


def _rows(job: Job, run: Run, trained: Trained) -> tuple[Shape, Any, str]:
    """Return the kind of the rows to ask, which need not be the run's, the rows, and how they are called."""
    assert job.eval is not None
    if job.eval.path is None:
        return collate.shape_of_run(run), collate.held_out(run), "the run's held-out rows"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(run.folder / trained.processor), local_files_only=True)
    columns = job.data.all_sources()[0].columns
    reader = rows.TextReader(job, Source(path=job.eval.path, columns=columns))
    limit = collate.longest_text(job, run, tokenizer)
    read = rows.read(
        job.model_copy(update={"data": job.data.model_copy(update={"max_rows": None})}),
        [reader],
        tokenizer,
        limit,
        joined=job.train.method == RERANKER,
    )
    shape = rows.shape_of(read.texts, [reader])
    number = 1
    while (path := run.folder / "data" / f"asked-{number}.arrow").exists():
        number += 1
    return shape, collate.store(read.texts, shape, path), reader.name


def _samples(held: Any, count: int) -> list[dict[str, Any]]:
    """Return some rows for people."""
    found = []
    for at in range(min(count, len(held))):
        row = held[at]
        number = f" ({row['label']:g})" if "label" in row else ""
        reference = f"{row['positive'][:_SHOWN]}{number}"
        found.append({"origin": None, "prompt": row["anchor"][:_SHOWN], "reference": reference, "answers": {}})
    return found

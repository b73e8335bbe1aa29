"""Light stages in place of a library's, for tests of plugins: they do what the contract asks and train nothing.

A run of them is a run in all else: it is planned, works in processes, saves checkpoints, stops and goes on, evaluates
and exports. The loss of step n is 2 / n, and answers say the last word that they are asked.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api import (
    NAMES,
    Answer,
    Collated,
    Data,
    DataError,
    Evaluated,
    Exported,
    Interrupted,
    Loaded,
    Offer,
    Problem,
    Sampling,
    Stage,
    StepLogged,
    Table,
    Trained,
    TrainingStarted,
    measured_by,
    read_by,
    rows_of,
)
from forge.testing.tiny import WIDTH, write_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from forge.api import ExportTable, Job, Prompt, Run, Source, Who

HERE = "forge.testing.light"
MODEL = frozenset({"light-model"})
LAYOUTS = frozenset({"tokens", "pairs", "prompts", "ranked", "rated", "labelled"})


class TrainKeys(Table):
    """The keys of ``[train]`` that are heeded."""

    max_steps: int = 4
    save_steps: int = 2
    learning_rate: float | None = None
    per_device_train_batch_size: int = 1
    pause: float = 0.0


def offers() -> Iterable[Offer]:
    """Yield an offer of each stage, which wins over all but what the job names."""
    yield from (replace(offer, priority=1000) for offer in _offers())


def _offers() -> Iterable[Offer]:
    yield Offer(stage=Stage.COLLATE, impl=f"{HERE}:collate", supports=LAYOUTS | {"text", "packing"})
    yield Offer(stage=Stage.LOAD, impl=f"{HERE}:load", supports=frozenset({"text", "full"}), provides=MODEL)
    yield Offer(stage=Stage.ADAPT, impl=f"{HERE}:adapt", serves=NAMES[Stage.ADAPT], depends=MODEL)
    keys = f"{HERE}:TrainKeys"
    yield Offer(stage=Stage.TRAIN, impl=f"{HERE}:train", serves=NAMES[Stage.TRAIN], depends=MODEL, options=keys)
    able = frozenset({"text", "base", "adapter", "full"})
    yield Offer(stage=Stage.GENERATE, impl=f"{HERE}:generate", supports=able, depends=MODEL)
    text = frozenset({"text"})
    yield Offer(stage=Stage.EVALUATE, impl=f"{HERE}:evaluate", supports=text, check=eval_problems)
    yield Offer(stage=Stage.EXPORT, impl=f"{HERE}:export", serves=NAMES[Stage.EXPORT], depends=MODEL)


def collate(job: Job, run: Run) -> Data:
    """Read the rows of JSON Lines files, a token for each byte."""
    rows = [row for source in job.data.all_sources() for row in _rows(job, source)][: job.data.max_rows]
    size = job.data.eval_size or 0
    count = round(size * len(rows)) if size < 1 else int(size)
    train, held = rows[: len(rows) - count], rows[len(rows) - count :]
    if not train:
        raise DataError("no rows are left to train on")
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    tokens = sum(len(row["input_ids"]) for row in train)
    summary = {"rows": len(train), "tokens": tokens, "supervised": tokens, "share": 1.0}
    run.emit(Collated.from_values({**summary, "digest": digest}))
    eval_ = {"eval": held} if held else {}
    layout = next(word for word in run.plan.step(Stage.COLLATE).words if word in LAYOUTS)
    return Data(
        processor="bytes", train=train, eval=eval_, layout=layout, digest=digest, summary=summary, preview=preview
    )


def preview(data: Data, count: int) -> list[dict[str, Any]]:
    """Return the first rows."""
    return [
        {
            **{key: row[key] for key in ("input_ids", "labels", "origin")},
            "length": len(row["input_ids"]),
            "supervised": len(row["labels"]),
            "segments": [{"text": row["text"], "supervised": True}],
        }
        for row in data.train[:count]
    ]


def load() -> Loaded:
    """Return a stand-in of a model."""
    return Loaded(model={"weights": [0.0]}, traits=MODEL)


def adapt(loaded: Loaded) -> Loaded:
    """Return it."""
    return loaded


def train(job: Job, run: Run, loaded: Loaded) -> Trained:
    """Count steps, with a checkpoint every now and then."""
    keys = TrainKeys.model_validate(job.train.options)
    begins = json.loads((run.resume / "state.json").read_text())["step"] if run.resume else 0
    run.graceful.set()
    run.emit(TrainingStarted(keys.max_steps, begins))
    for step in range(begins + 1, 1 if run.dry_run else keys.max_steps + 1):
        time.sleep(keys.pause)
        run.emit(StepLogged(step, keys.max_steps, loss=2 / step))
        last = step == keys.max_steps
        if last or step % keys.save_steps == 0 or run.stop.is_set():
            with run.checkpoint(step, finished=last) as folder:
                (folder / "state.json").write_text(json.dumps({"step": step}))
        if run.stop.is_set() and not last:
            raise Interrupted("stopped", f"step {step} is saved", f"go on with: forge resume {run.folder}")
    adapter = not job.adapter.leaves_model
    folder = run.folder / ("adapter" if adapter else "model")
    folder.mkdir(exist_ok=True)
    write_tensors(folder / f"{'adapter_' if adapter else ''}model.safetensors", {"light.weight": (WIDTH, WIDTH)})
    (folder / f"{'adapter_' if adapter else ''}config.json").write_text('{"light": true}')
    facts = run.plan.facts
    return Trained(
        weights=folder.name,
        kind="adapter" if adapter else "full",
        task=facts.task,
        base={"id": facts.id, "revision": facts.revision, "digest": facts.digest},
        processor=folder.name,
        traits=loaded.traits,
        metrics={"train_loss": 2 / keys.max_steps},
    )


class Echo:
    """A model that says the last word that it is asked, and is certain of it."""

    sampling = Sampling()
    advice = "none"

    def chat(self, messages: Sequence[Mapping[str, Any]], _sampling: Sampling) -> Generator[str, None, Answer]:
        """Answer a conversation."""
        said = _last(str(messages[-1]["content"]))
        yield said
        return Answer(said, 1, finished=True)

    def complete(
        self, prompts: Sequence[Prompt], _sampling: Sampling, count: int = 1, batch_size: int = 8
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Answer prompts."""
        del batch_size
        for index, prompt in enumerate(prompts):
            yield index, [Answer(_last(prompt.text), 1, finished=True)] * count

    def losses(self, rows: Sequence[Any], batch_size: int = 8) -> list[tuple[float, int]]:
        """Return no loss for each row."""
        del batch_size
        return [(0.0, len(row["input_ids"])) for row in rows]

    def base(self) -> None:
        """Return nothing: the base model is another object."""

    def close(self) -> None:
        """Free nothing."""


def generate() -> Echo:
    """Return what answers."""
    return Echo()


def eval_problems(job: Job) -> Iterable[Problem]:
    """Yield the metrics that the light stages do not know."""
    for index, name in enumerate(job.eval.metrics if job.eval else ()):
        if name != "exact-match" and measured_by(name) is None:
            yield Problem(
                f"eval.metrics.{index}", "the light stages know exact-match alone", "name it, or [use] evaluate"
            )


def evaluate(job: Job, run: Run, generate: Callable[[Who], Any]) -> Evaluated:
    """Ask the last rows of all models."""
    from forge.api import Answers, Prompt

    rows = [row for source in job.data.all_sources() for row in _rows(job, source)][-4:]
    models: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, Any]] = {}
    assert isinstance(run.plan, Answers)
    for who in run.plan.models:
        start, model = time.monotonic(), generate(who)
        said = dict(model.complete([Prompt(text=row["text"]) for row in rows], model.sampling))
        model.close()
        right = sum(said[index][0].text == row["answer"] for index, row in enumerate(rows)) / len(rows)
        models[who.value] = {"seconds": time.monotonic() - start, "answers": len(said)}
        values[who.value] = {"value": right, "stderr": 0.0, "low": right, "high": right, "n": len(rows), "share": True}
    return Evaluated(rows=len(rows), models=models, metrics={"exact-match": values})


def export(run: Run, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Copy the weights."""
    shutil.copytree(run.folder / trained.weights, out, dirs_exist_ok=True)
    return Exported(report={"format": export.format})


def _rows(job: Job, source: Source) -> Iterator[dict[str, Any]]:
    for text in [source.path] if isinstance(source.path, str) else source.path or ():
        try:
            if read_by(text):
                yield from (_row(raw, f"{text}:{number}") for number, raw in enumerate(rows_of(job, source, text), 1))
                continue
            lines = job.path(text).read_text(encoding="utf-8").splitlines()
            raws = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            why = f"{error}; the light stages read JSON Lines"
            raise DataError(f"{text} cannot be read", why, 'write [use] collate = "huggingface"') from error
        yield from (_row(raw, f"{text}:{number}") for number, raw in enumerate(raws, 1))


def _row(raw: Mapping[str, Any], origin: str) -> dict[str, Any]:
    said = [str(each["content"]) for each in raw["messages"]] if "messages" in raw else [json.dumps(raw)]
    ids = list("\n".join(said).encode())
    return {"input_ids": ids, "labels": ids, "origin": origin, "text": said[0], "answer": said[-1]}


def _last(text: str) -> str:
    return (text.split() or [""])[-1]

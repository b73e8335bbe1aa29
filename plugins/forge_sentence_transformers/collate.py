"""COLLATE: rows of texts, on disk as the trainer takes them; texts become tokens when a batch is made."""

from __future__ import annotations

import hashlib
import heapq
import json
import random
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from forge.api import Collated, Data, DataError, Decision, Finding, Noted, Warned
from forge_huggingface.data.collate import drawn, eval_sources
from forge_huggingface.data.mixing import mixed, weights
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rendering import tokenizers
from forge_huggingface.sources.sources import left_out
from forge_sentence_transformers.rows import TextReader, check_columns, columns, read, shape_of, told
from forge_sentence_transformers.shapes import LOSSES, RERANKER, USUAL, Shape, Texts, fitting, misfit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from forge.api import Job, Run

SHAPE = "shape.json"
"""What the rows of a run are, beside them."""

_LONGEST = 64


def collate(job: Job, run: Run) -> Data:
    """Read the job's rows, tell what they are by their columns, and choose the loss that goes with them.

    Raises:
        DataError: The rows cannot be used as the job says.
    """
    folder = snapshot(job, run, weights=False)
    tokenizer = tokenizers.load(job, folder)
    if tokenizer.pad_token is None:
        tokenizers.settle_pad(tokenizer, tokenizers.vocabulary(job, folder))
    limit, joined = longest_text(job, run, tokenizer), job.train.method == RERANKER
    check_columns(job)
    readers = [TextReader(job, source) for source in job.data.all_sources()]
    rows = read(job, readers, tokenizer, limit, joined=joined)
    rows.tally.refuse_cut()
    shape = shape_of(rows.texts, readers)
    rng = random.Random(job.train.options["seed"])  # noqa: S311 - a repeatable choice, not a secret
    held = whole_queries(rows.texts, drawn(job, len(rows.texts), rng), rng)
    ends = [*rows.starts[1:], len(rows.texts)]
    parts = [[at for at in range(start, end) if at not in held] for start, end in zip(rows.starts, ends, strict=True)]
    order = mixed(parts, weights(job.data, [len(part) for part in parts]), rng)
    if not order:
        why = f"{len(held)} were held out: rows of one query together"
        raise DataError("no rows are left to train on", why, "lower eval_size")
    place = run.folder / "data"
    train = store([rows.texts[at] for at in order], shape, place / "train.arrow")
    others, evals = eval_sources(job), {}
    warnings = rows.tally.warnings("training rows")
    if held:
        evals["eval"] = store([rows.texts[at] for at in sorted(held)], shape, place / "eval.arrow")
    elif others:
        held_readers = [TextReader(job, source) for source in others]
        found = read(job, held_readers, tokenizer, limit, joined=joined)
        refuse_other(shape, shape_of(found.texts, held_readers), held_readers)
        evals["eval"] = store(found.texts, shape, place / "eval.arrow")
        warnings += found.tally.warnings("held-out rows")
    (place / SHAPE).write_text(json.dumps(asdict(shape)), encoding="utf-8")
    decide(job, run, shape)
    digest = _digest([train, *evals.values()])
    if job.data.digest and job.data.digest != digest:
        raise DataError("the rows are not those that the job names", None, "use the same files, or remove the digest")
    sources = [{**reader.to_json(), "format": shape.kind} for reader in readers]
    held_out = {name: {"rows": len(each)} for name, each in evals.items()}
    summary = rows.tally.to_json() | {"rows": len(order), "sources": sources, "eval": held_out, "max_seq_length": limit}
    run.emit(Collated.from_values(summary | {"digest": digest}))
    for message in left_out(job, [*job.data.all_sources(), *others]):
        run.emit(Warned(message, "name them in path, or take them out of the folder, if that is not what you want"))
    for warning in warnings:
        run.emit(Warned(**warning))
    origins = [rows.origins[at] for at in order]
    return Data(
        processor=tokenizer,
        train=train,
        eval=evals,
        layout="sentence-transformers/texts",
        digest=digest,
        longest=tuple(heapq.nsmallest(_LONGEST, range(len(order)), key=lambda at: (-rows.lengths[order[at]], at))),
        summary=summary,
        preview=lambda data, count: _preview(data, count, origins, limit, joined=joined),
    )


def whole_queries(rows: Sequence[Texts], drawn: frozenset[int], rng: random.Random) -> frozenset[int]:
    """Return as many rows as were drawn, or a few more, such that no anchor is both held out and trained on."""
    groups: dict[str, list[int]] = {}
    for at, row in enumerate(rows):
        groups.setdefault(row.anchor, []).append(at)
    if not drawn or len(groups) == len(rows):
        return drawn
    held: list[int] = []
    for anchor in rng.sample(list(groups), len(groups)):
        if len(held) >= len(drawn):
            break
        held += groups[anchor]
    return frozenset(held)


def longest_text(job: Job, run: Run, tokenizer: Any) -> int:
    """Return the most tokens of a text: the job's limit, or the model's positions where these are fewer."""
    own = (run.plan.facts.context or sys.maxsize, tokenizer.model_max_length or sys.maxsize)
    return min(tokenizers.longest_row(job, run, tokenizer), *own)


def decide(job: Job, run: Run, shape: Shape) -> None:
    """Settle the loss and the batches, which go by what the rows are.

    Raises:
        DataError: The loss that the job names does not take such rows.
    """
    method, asked = job.train.method, job.train.options["loss"]
    if asked == "auto":
        asked = USUAL[method][shape.kind]
        why = f"rows have {told(shape)}"
        run.decide(Decision("train.loss", asked, why))
        run.emit(Noted(f"loss = {asked}: {why}"))
    loss = LOSSES[method][asked]
    if (fault := misfit(loss, shape)) is not None:
        do = f"take {' or '.join(fitting(method, shape))}, or leave loss out"
        raise DataError(f'loss = "{asked}" cannot be used', f"{fault}, and rows have {told(shape)}", do)
    if job.train.options["scale"] is not None and "scale" not in loss.takes:
        raise DataError("[train] scale has no effect", f"{asked}, which rows of {shape} take, reads none", "remove it")
    if job.train.options["batch_sampler"] == "auto":
        value = "no_duplicates" if loss.mixes else "batch_sampler"
        mixed = "the same text twice in a batch would be its own negative"
        run.decide(Decision("train.batch_sampler", value, mixed if loss.mixes else "no row is another's negative"))
    there = {"anchor", "positive", *(["negative"] if shape.negatives else [])}
    strange = sorted(set(job.train.options.get("prompts") or ()) - there)
    if strange:
        raise DataError(
            f"[train] prompts.{strange[0]} is for a column that no row has", f"rows have {shape}", "remove it"
        )


def refuse_other(shape: Shape, other: Shape, readers: Sequence[TextReader]) -> None:
    """Refuse held-out rows of another kind. Raises :class:`DataError`."""
    if (shape.kind, shape.negatives) != (other.kind, other.negatives):
        names = ", ".join(reader.name for reader in readers)
        why = f"those to train on have {told(shape)}, and these {told(other)}"
        raise DataError(f"the held-out rows in {names} are of another kind", why, "give them the same columns")


def store(rows: Sequence[Texts], shape: Shape, path: Path) -> Any:
    """Write rows to an Arrow file, and return them memory-mapped."""
    from datasets import Dataset, Features, Value
    from datasets.arrow_writer import ArrowWriter

    kinds = Features({name: Value("large_string") for name in shape.columns})
    if shape.rated:
        kinds["label"] = Value("float32")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with ArrowWriter(features=kinds, path=str(part)) as writer:
        for row in rows:
            writer.write(columns(row, shape))
        writer.finalize()
    part.replace(path)
    return Dataset.from_file(str(path))


def _digest(tables: Iterable[Any]) -> str:
    sha = hashlib.sha256()
    for rows in tables:
        for row in rows:
            sha.update(json.dumps(row, ensure_ascii=False).encode())
        sha.update(b"\0")
    return sha.hexdigest()


def _preview(data: Data, count: int, origins: Sequence[str], limit: int, *, joined: bool) -> list[dict[str, Any]]:
    """Return the first rows with the tokens of each of their texts; a reranker reads two texts as one."""
    shown: list[dict[str, Any]] = []
    for index in range(min(count, len(data.train))):
        row = dict(data.train[index])
        label = row.pop("label", None)
        names, texts = list(row), list(row.values())
        given: list[Any] = [(texts[0], other) for other in texts[1:]] if joined else texts
        parts: list[dict[str, Any]] = []
        for name, text in zip(names[int(joined) :], given, strict=True):
            pair = text if isinstance(text, tuple) else (text,)
            ids = list(data.processor(*pair, truncation=True, max_length=limit)["input_ids"])
            whole = data.processor.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            tokens = [data.processor.decode([token]) for token in ids]
            title = f"anchor and {name}" if joined else name
            parts.append(
                {
                    "name": title if label is None else f"{title}, label {label:g}",
                    "input_ids": ids,
                    "labels": ids,
                    "length": len(ids),
                    "supervised": len(ids),
                    "segments": [{"text": whole, "ids": ids, "tokens": tokens, "supervised": True}],
                }
            )
        lengths = [part["length"] for part in parts]
        shown.append({"origin": origins[index], "length": max(lengths), "supervised": sum(lengths), "parts": parts})
    return shown


def findings(job: Job, run: Run, data: Data) -> Iterable[Finding]:
    """Yield what would make the training fail, before the model is loaded."""
    options, facts = job.train.options, run.plan.facts
    width = facts.shape.hidden if facts.shape else None
    longer = [each for each in options.get("matryoshka_dims") or () if width is not None and each > width]
    if longer:
        yield Finding(
            "error",
            f"[train] matryoshka_dims: {longer[0]} is more than the {width} numbers of an embedding",
            "name lengths up to that",
        )
    batch = options["per_device_train_batch_size"]
    if LOSSES[job.train.method][options["loss"]].mixes and min(batch, len(data.train)) < 2:
        yield Finding(
            "error",
            f"{options['loss']} takes the other rows of a batch for negatives, and there is one row",
            "write per_device_train_batch_size = 2 or more",
        )


def held_out(run: Run) -> Any:
    """Return the rows that a run held out. Raises :class:`DataError` if they are gone."""
    from datasets import Dataset

    path = run.folder / "data" / "eval.arrow"
    if not path.is_file():
        raise DataError("the run's held-out rows are gone", f"there is no {path}", "write [eval] path")
    return Dataset.from_file(str(path))


def shape_of_run(run: Run) -> Shape:
    """Return what the rows of a run are. Raises :class:`DataError` if nobody knows any more."""
    path = run.folder / "data" / SHAPE
    try:
        return Shape(**json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path} cannot be read", str(error), "write [eval] path") from error

"""The stage collate: from the job's sources to tokens on disk.

It needs the tokenizer only, so everything that can be wrong with data is found before a weight is loaded, and
`forge data` is this stage and nothing else. Reading, converting, rendering and counting have modules of their own; here
they are put in order.
"""

from __future__ import annotations

import functools
import heapq
import random
import time
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from forge.api import Collated, Data, DataError, Decision, Noted, Reading, Stage, Warned
from forge_huggingface.data.doubts import of_limit, of_template, shared, untold, unused
from forge_huggingface.data.layouts import LAYOUTS, layout_of
from forge_huggingface.data.mixing import mixed, weights, whole
from forge_huggingface.data.packing import joined, pack, packed
from forge_huggingface.data.preview import preview
from forge_huggingface.data.reader import Reader, RenderedRow
from forge_huggingface.data.store import Store, digest, features
from forge_huggingface.data.stream import Stream
from forge_huggingface.data.tally import Tally
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rendering import clock, tokenizers
from forge_huggingface.rendering.agreement import disagreements
from forge_huggingface.rendering.render import Renderer, special_prefix
from forge_huggingface.rendering.templates import Template, choose
from forge_huggingface.rendering.tokenizers import fingerprint
from forge_huggingface.rows import Record
from forge_huggingface.sources.sources import left_out
from forge_huggingface.vision import processors
from forge_huggingface.vision.render import ImageRenderer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from forge.api import Job, Run, Source
    from forge_huggingface.data.layout import Layout


_LONGEST = 64
_SAY_SECONDS = 2.0


def collate(job: Job, run: Run) -> Data:
    """Return the job's rows in the layout that the method asks for; of SFT on images, in the layout ``"images"``.

    Raises:
        DataError: The rows cannot be used as the job says.
        ModelError: The tokenizer cannot be had.
    """
    folder = snapshot(job, run, weights=False)
    sees = run.plan.facts.task == "vision"
    processor = processors.load(job, folder) if sees else tokenizers.load(job, folder)
    tokenizer = processor.tokenizer if sees else processor
    if sees and processor.chat_template:
        tokenizer.chat_template = processor.chat_template
    template = choose(job, tokenizer, folder, bos=bool(special_prefix(tokenizer)))
    if template is not None and template.origin != "model":
        # Saved with the weights, so that inference asks as training did; a processor has one of its own beside it.
        tokenizer.chat_template = processor.chat_template = template.text
    vocabulary = tokenizers.vocabulary(job, folder)
    pad, pad_how = tokenizers.settle_pad(tokenizer, vocabulary)
    if template is not None and template.date is None and clock.asks(template.sources):
        template = replace(template, date=run.group.first(clock.now()))
        run.decide(Decision("data.date", template.date, f"the chat template {template.name} writes a date"))
    asked = next(name for name in run.plan.step(Stage.COLLATE).words if name in LAYOUTS)
    limit = tokenizers.longest_row(job, run, tokenizer)
    layout = layout_of(asked, job.train.options)(job, processor, pad, sees, limit)
    settings: dict[str, Any] = {
        "train_on": layout.train_on or job.data.train_on,
        "max_seq_length": limit,
        "on_long_row": job.data.on_long_row,
        "mask_empty_reasoning": job.data.mask_empty_reasoning,
        "stops": tokenizers.stop_ids(folder),
        "vocabulary": vocabulary,
        **({} if layout.ends else {"ends": False}),
    }
    if template is not None:
        for text in (template.text, template.tool_use):
            clock.stop(text, template.date)  # for trainers, which render by themselves what they ask
    renderer = (
        ImageRenderer(processor, template, gallery=processors.gallery(job, run, processor), folder=folder, **settings)
        if sees
        else Renderer(tokenizer, template, **settings)
    )
    unread = left_out(job, [*job.data.all_sources(), *eval_sources(job)])
    build = _stream if job.data.streaming else _once
    built = build(job, run, renderer, layout)
    layout = layout.by(built.summary)
    used = template if built.converses or not layout.templated else None
    summary = built.summary | _settings(renderer, used, pad_how)
    if job.data.digest and job.data.digest != built.digest:
        raise DataError(
            "the rows are not those that the job names",
            f"[data] digest is {job.data.digest[:12]}…, these have {built.digest[:12]}…",
            "use the same files, template and versions, or remove the digest",
        )
    run.emit(Collated.from_values(summary | {"digest": built.digest}))
    if renderer.template is not None and renderer.template.traits.unasked:
        name = renderer.template.name
        what = f"the chat template {name} writes the head of an answer behind the last one, though none is asked for"
        run.emit(Warned(message=f"{what}; it is left out of the rows"))
    for message in unread:
        run.emit(Warned(message, "name them in path, or take them out of the folder, if that is not what you want"))
    told = of_template(job, template) if layout.templated and template is not None else []
    if isinstance(renderer, ImageRenderer) and job.data.max_pixels:
        told += of_limit(renderer, job.data.max_pixels)
    for warning in built.warnings + told:
        run.emit(Warned(**warning))
    if layout.ends:
        for each in disagreements(renderer, renderer.template if used else None, folder, online=asked == "prompts"):
            run.emit(each)
    return Data(
        processor=processor,
        train=built.train,
        eval=built.eval,
        layout="images" if sees and asked == "tokens" else layout.name,
        digest=built.digest,
        collator=layout.collator(),
        longest=built.longest,
        summary=summary,
        fingerprint=fingerprint,
        preview=functools.partial(preview, layout=layout),
    )


@dataclass(slots=True)
class _Built:
    train: Any
    eval: dict[str, Any]
    digest: str
    summary: dict[str, Any]
    warnings: list[Any]
    converses: bool
    longest: tuple[int, ...] = ()


def _once(job: Job, run: Run, renderer: Renderer, layout: Layout) -> _Built:
    """Have rank 0 render everything, and let the other processes take its files: they are the same rows, mapped."""
    built = run.group.first(_fixed(job, run, renderer, layout) if run.rank == 0 else None)
    assert built is not None
    if run.rank:
        built.digest = digest(each.data for each in (built.train, *built.eval.values()))  # as this process sees them
    return built


def _fixed(job: Job, run: Run, renderer: Renderer, layout: Layout) -> _Built:
    """Render everything now, into files of the run folder."""
    folder = run.folder / "data"
    tally, held_tally = Tally(job.data), Tally(job.data)
    readers = [Reader(job, source, renderer, layout) for source in job.data.all_sources()]
    first = Store(folder / "rows.arrow", layout.store)
    of_source: list[range] = []
    with first:
        left = job.data.max_rows
        for reader in readers:
            before, seen = len(first.starts), tally.read
            _fill(first, reader.rows(limit=left), tally, renderer, run)
            of_source.append(range(before, len(first.starts)))
            left = None if left is None else left - (tally.read - seen)
        tally.check(done=True)
        _refuse_nothing(tally, readers)
        tally.refuse_cut()
    layout = layout.settled(first, run)
    rows, rng = first.open(stored=True), random.Random(_seed(job))  # noqa: S311 - a repeatable choice, not a secret
    held = drawn(job, len(first.starts), rng)
    left_in = [[index for index in part if index not in held] for part in of_source]
    order = first.pieces(mixed(left_in, weights(job.data, [len(part) for part in left_in]), rng))
    if not order:
        raise DataError(
            "no rows are left to train on",
            f"{len(first.starts)} rows were read and {len(held)} held out",
            "lower eval_size, or raise the weights",
        )
    train = _choose(first, rows, order, folder / "train.arrow", layout.store)
    summary = tally.to_json()
    if len(order) != len(first):
        summary |= _totals(train)
    evals: dict[str, Store] = {}
    warnings = untold(job, readers) + unused(renderer, readers)
    if held:
        evals["eval"] = _choose(first, rows, first.pieces(sorted(held)), folder / "eval.arrow", layout.store)
    elif others := eval_sources(job):
        eval_readers = [Reader(job, source, renderer, layout) for source in others]
        evals["eval"] = Store(folder / "eval.arrow", layout.store)
        with evals["eval"] as store:
            _fill(store, chain.from_iterable(reader.rows() for reader in eval_readers), held_tally, renderer, run)
            held_tally.check(done=True)
            _refuse_nothing(held_tally, eval_readers)
    told, said, doubts = layout.told(train)
    if said:
        run.emit(Noted(said))
    warnings += doubts
    warnings += tally.warnings("training rows") + held_tally.warnings("held-out rows")
    warnings += shared(train, evals)
    if job.data.packing:
        train = _pack(train, folder / "packed.arrow", renderer.max_seq_length)
        summary |= _filled(train.lengths, renderer.max_seq_length)
    data, held_data = train.open(), {name: store.open() for name, store in evals.items()}
    summary |= told | ({"told": said} if said else {})
    summary["sources"] = [reader.to_json() for reader in readers]
    cut = held_tally.cuts() if held_tally.read else {}  # of rows that were read for this alone
    summary["eval"] = {name: _totals(store) | cut for name, store in evals.items()}
    longest = heapq.nsmallest(_LONGEST, range(len(train)), key=lambda index: (-train.lengths[index], index))
    return _Built(
        data,
        held_data,
        digest(each.data for each in (data, *held_data.values())),
        summary,
        warnings,
        any(reader.converses for reader in readers),
        tuple(longest),
    )


def _stream(job: Job, run: Run, renderer: Renderer, layout: Layout) -> _Built:
    """Render rows when they are asked for; only the first few are looked at now."""
    import pyarrow
    from datasets import IterableDataset

    stream = Stream(job, renderer, layout, _seed(job), tell=lambda _: None)  # what these rows lose is told below
    first = list(islice(stream.rows(), 64))
    stream.tally.check(done=True)
    _refuse_nothing(stream.tally, stream.readers)
    stream.tally.refuse_cut(first=True)
    summary = stream.tally.to_json() | {"streaming": True, "sources": [each.to_json() for each in stream.readers]}
    if job.data.packing:
        first = [dict(each) for each in packed(first, renderer.max_seq_length)]
        summary |= _filled([len(each["input_ids"]) for each in first], renderer.max_seq_length)
    kinds = features("packed" if job.data.packing else layout.store)
    tables: list[Any] = [pyarrow.Table.from_pylist(first, schema=kinds.arrow_schema)]
    warnings = stream.tally.warnings("the first rows") + untold(job, stream.readers)
    warnings += unused(renderer, stream.readers)
    held, summary["eval"], told = run.group.first(
        _held_beside_stream(job, run, renderer, layout) if run.rank == 0 else ({}, {}, [])
    )
    warnings += told
    data = IterableDataset.from_generator(Stream(job, renderer, layout, _seed(job), run.emit), features=kinds)
    converses = any(reader.converses for reader in stream.readers)
    return _Built(data, held, digest([*tables, *(each.data for each in held.values())]), summary, warnings, converses)


def _held_beside_stream(
    job: Job, run: Run, renderer: Renderer, layout: Layout
) -> tuple[dict[str, Any], dict[str, Any], list[Any]]:
    """Render the held-out rows that the job names; return them, what is counted of them, and warnings."""
    others = eval_sources(job)
    if not others:
        return {}, {}, []
    tally, readers = Tally(job.data), [Reader(job, source, renderer, layout) for source in others]
    store = Store(run.folder / "data" / "eval.arrow", layout.store)
    with store:
        _fill(store, chain.from_iterable(reader.rows() for reader in readers), tally, renderer, run)
        tally.check(done=True)
        _refuse_nothing(tally, readers)
    return {"eval": store.open()}, {"eval": _totals(store) | tally.cuts()}, tally.warnings("held-out rows")


def _fill(store: Store, rows: Iterable[RenderedRow], tally: Tally, renderer: Renderer, run: Run) -> None:
    bos, said = renderer.tokenizer.bos_token_id, time.monotonic()
    for origin, row in rows:
        if (now := time.monotonic()) - said > _SAY_SECONDS:
            said = now
            run.emit(Reading(tally.read))
        if tally.see(origin, row, bos) and isinstance(row, Record):
            store.take(origin, row)


def _refuse_nothing(tally: Tally, readers: Sequence[Reader]) -> None:
    if not tally.kept:
        names = ", ".join(reader.name for reader in readers)
        first = f"; the first: {tally.dropped[0]}" if tally.dropped else ""
        raise DataError(
            f"no usable rows in {names}", f"{tally.read} were read and {tally.bad + tally.long} dropped{first}"
        )


def drawn(job: Job, count: int, rng: random.Random) -> frozenset[int]:
    """Return which rows of the files are held out; a text that has become several rows is held out whole."""
    size = job.data.eval_size
    if size is None:
        return frozenset()
    wanted = int(size) if size >= 1 else max(1, round(count * size))
    if wanted >= count:
        raise DataError(
            f"eval_size = {size:g} leaves nothing to train on", f"there are {count} rows", "lower eval_size"
        )
    return frozenset(rng.sample(range(count), wanted))


def _choose(store: Store, rows: Any, order: Sequence[int], path: Path, layout: str) -> Store:
    """Return a store with these rows: the one that is there, if it is they."""
    if order == range(len(store)) or list(order) == list(range(len(store))):
        return store
    origins = store.origins()
    chosen = Store(path, layout)
    with chosen:
        for index in order:
            counts = (store.lengths[index], store.supervised[index], store.tokens[index])
            chosen.add(origins[index], rows[index], *counts)
    return chosen


def _pack(store: Store, path: Path, capacity: int) -> Store:
    rows, origins = store.open(), store.origins()
    packs = Store(path, "packed")
    with packs:
        for indices in pack(store.lengths, capacity):
            columns = joined([rows[index] for index in indices])
            origin = " + ".join(origins[index] for index in indices)
            count = len(columns["input_ids"])
            packs.add(origin, columns, count, sum(store.supervised[index] for index in indices), count)
    return packs


def _filled(lengths: Sequence[int], capacity: int) -> dict[str, Any]:
    return {"packed": len(lengths), "filled": round(sum(lengths) / (len(lengths) * capacity), 4)}


def _totals(store: Store) -> dict[str, Any]:
    tokens, supervised = sum(store.tokens), sum(store.supervised)
    return {
        "rows": len(store),
        "tokens": tokens,
        "supervised": supervised,
        "share": round(supervised / tokens, 4),
        "longest": max(store.lengths),
    }


def eval_sources(job: Job) -> list[Source]:
    """Return the sources that hold the held-out rows, where they are not taken out of the training rows."""
    data = job.data
    if data.eval_path is not None:
        return [whole(data.all_sources()[0], path=data.eval_path, name=None, split=None, revision=None)]
    if data.eval_split is not None:
        return [whole(source, split=data.eval_split) for source in data.all_sources()]
    return []


def _settings(renderer: Renderer, template: Template | None, pad: str) -> dict[str, Any]:
    return {
        "template": _told(template) if template else None,
        "train_on": renderer.train_on,
        "max_seq_length": renderer.max_seq_length,
        "pad": pad,
        "eos_token": renderer.tokenizer.eos_token,
        "stops": renderer.tokenizer.convert_ids_to_tokens(sorted(renderer.stops)),
    }


def _told(template: Template) -> dict[str, Any]:
    told: dict[str, Any] = {"name": template.name, "origin": template.origin}
    if template.tool_use is not None:
        told["tool_use"] = True
    return told | ({"date": template.date} if template.date is not None else {})


def _seed(job: Job) -> int:
    return int(job.train.options.get("seed", 42))

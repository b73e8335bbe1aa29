"""What to warn of once rows are read: what the job says and no row or template takes up, rows on both sides."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from forge_huggingface.rendering import clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.api import Job
    from forge_huggingface.data.reader import Reader
    from forge_huggingface.data.store import Store
    from forge_huggingface.rendering.render import Renderer
    from forge_huggingface.rendering.templates import Template
    from forge_huggingface.vision.render import ImageRenderer


def shared(train: Store, evals: dict[str, Store]) -> list[Any]:
    """Warn of held-out rows that are trained on as well."""
    found: list[Any] = []
    for name, store in evals.items():
        known = set(store.fingerprints())
        both = {print_ for print_ in train.fingerprints() if print_ in known}
        if both:
            found.append(
                {
                    "message": f"{len(both)} of the {len(known)} different rows of {name} are trained on too",
                    "do": "remove them from one side; the held-out loss is too good with them",
                }
            )
    return found


def untold(job: Job, readers: Sequence[Reader]) -> list[Any]:
    """Warn of a system message or tools for conversations, where there are none, and of rows that are too few."""
    few = [
        {"message": f"{each.name} has {each.short} rows: all are taken", "do": f"draw_rows is {each.source.draw_rows}"}
        for each in readers
        if each.short is not None
    ]
    given = [name for name in ("system_prompt", "tools") if getattr(job.data, name) is not None]
    if not given or any(reader.converses for reader in readers):
        return few
    message = f"[data] {' and '.join(given)} went into no row: none is a conversation"
    return [*few, {"message": message, "do": "remove it, or give the rows as messages"}]


def unused(renderer: Renderer, readers: Sequence[Reader]) -> list[Any]:
    """Warn of what the model has for rows and they do not use: a chat template, or eyes."""
    found: list[Any] = []
    if renderer.sees and not any(reader.shows for reader in readers):
        what = "the model takes images, and no row has one"
        found.append({"message": what, "do": 'if some should, name their column: [data] columns = { images = "…" }'})
    if renderer.template is None:
        return found
    names = [reader.name for reader in readers if reader.bypasses]
    message = "its rows are plain text with an answer, so no chat template is put around them"
    do = 'write them as messages, or name their columns as turns: columns = { instruction = "…", output = "…" }'
    return [*found, *({"message": f"{name}: {message}", "do": do} for name in names)]


def of_limit(renderer: ImageRenderer, most: int) -> list[Any]:
    """Warn of a limit that makes images smaller and rows no shorter: some processors scale them up again."""
    side = max(1, math.isqrt(most))
    if renderer.areas or renderer.tokens_of((2 * side, 2 * side)) > renderer.tokens_of((side, side)):
        return []
    what = f"max_pixels saves no tokens here: {type(renderer.processor).__name__} scales images to a size of its own"
    return [{"message": what, "do": "remove it, or change the size in the model's preprocessor_config.json"}]


def of_template(job: Job, template: Template) -> list[Any]:
    """Warn of a template that asks for the time, and of variables that it has no use for."""
    found: list[Any] = []
    if clock.asks(template.sources):
        message = f"the chat template {template.name} writes a date: {template.date} stays now in this run and its lock"
        do = "[data] date sets another; wherever the model is used, the template writes that day's"
        found.append({"message": message, "do": do})
    for name in job.data.variables:
        if re.search(rf"\b{re.escape(name)}\b", template.sources) is None:
            message = f"[data] chat_template_kwargs: the chat template {template.name} never reads {name}"
            found.append({"message": message, "do": "see its source for the names that it reads, or remove it"})
    return found

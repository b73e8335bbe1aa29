"""Messages with images in them: as rows keep them, and as a model is shown them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge_huggingface.rows import Message, parts_of
from forge_huggingface.vision.images import reopen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def hung(messages: Any, pictures: Sequence[Mapping[str, Any]]) -> Any:
    """Return messages of the store with its pictures in their places, not opened."""
    return filled(messages, iter(pictures)) if pictures else messages


def opened(messages: Any, kept: dict[Any, Any] | None = None) -> Any:
    """Return messages whose pictures are pixels.

    Args:
        messages: As :func:`hung` gives them; a text stays as it is.
        kept: Pixels by what tells pictures apart, where several messages may have the same ones.

    Raises:
        DataError: A picture is not what it was.
    """
    if isinstance(messages, str):
        return messages
    kept = {} if kept is None else kept
    found = []
    for part in (part for message in messages for part in parts_of(message["content"]) if part["type"] == "image"):
        picture = part["image"]
        key = tuple(picture[name] for name in ("sha256", "width", "height", "background"))
        if key not in kept:
            kept[key] = reopen(picture)
        found.append(kept[key])
    return filled(messages, iter(found)) if found else messages


def filled(messages: Sequence[Message], images: Iterator[Any]) -> list[Message]:
    """Return messages with these in the places of their images, in order."""
    return [
        {**message, "content": [_with(part, images) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in messages
    ]


def _with(part: Mapping[str, Any], images: Iterator[Any]) -> Mapping[str, Any]:
    return {"type": "image", "image": next(images)} if part["type"] == "image" else part

"""Records to JSON and back: frozen dataclasses, checked by pydantic on the way in.

pydantic takes 50 ms to import, and listing plugins or printing help needs no JSON; so it is imported where a record is
written or read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import TypeAdapter

T = TypeVar("T")


_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}


def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def to_json(record: object) -> Any:
    """Return a record as JSON data."""
    return _adapter(type(record)).dump_python(record, mode="json")


def from_json(kind: type[T], data: Any) -> T:
    """Rebuild a record from :func:`to_json`'s data; keys that it does not know are left out.

    Raises:
        ValueError: A key is missing, or a value is of another type; the message names it.
    """
    from pydantic import ValidationError

    try:
        # As JSON, since there the strict reading still takes a list for a tuple, and a word for a member of an enum.
        record: T = _adapter(kind).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ValueError(_said(error.errors(include_url=False)[0])) from error
    return record


def _said(detail: Mapping[str, Any]) -> str:
    """Return what pydantic found first, in words."""
    where = ".".join(map(str, detail["loc"]))
    if detail["type"] == "missing":
        return f"{where} is missing"
    if detail["type"] == "unexpected_keyword_argument":
        return f"{where} is an unknown key"
    if detail["type"].startswith("dataclass"):
        return f"{where or 'it'} must be a JSON object"
    return f"{where}: {detail['msg'][0].lower()}{detail['msg'][1:]}, not {detail['input']!r:.80}"

"""JSON Schemas: what is wrong with one, and whether JSON fits one.

The second is done aside: patterns may backtrack without end, and schemas may be made so that a small value takes years.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from forge_huggingface.rewards.text import only_block

if TYPE_CHECKING:
    from collections.abc import Iterator

    from referencing import Resource


_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_HERE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
"""Keywords whose schemas are for the same value, not for a part of it."""

_TOO_DEEP = "it is nested too deeply"


def schema_fault(schema: Any) -> str | None:
    """Return what is wrong with a schema, or None; also without jsonschema, which the plan then asks for."""
    if not isinstance(schema, dict | bool):
        return "it is neither a table nor true or false"
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
    except ImportError:
        return None
    try:
        validator_for(schema).check_schema(schema)
        return next(_faults_inside(schema), None)
    except SchemaError as error:
        path = "/".join(map(str, error.absolute_path))
        return f"{error.message[:300]}" + (f" (at {path})" if path else "")
    except RecursionError:
        return _TOO_DEEP


@functools.lru_cache(maxsize=256)
def fault_of_text(text: str) -> str | None:
    """Return what is wrong with a schema that is written as JSON, or None."""
    try:
        schema = json.loads(text)
    except ValueError as error:
        return f"it is not JSON: {error}"
    except RecursionError:
        return _TOO_DEEP
    return schema_fault(schema)


def _faults_inside(schema: Any) -> Iterator[str]:
    """Yield references to nowhere or in a circle: what else only shows once JSON is checked."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable

    root = _resource(schema)
    resolver = Registry().with_resource("", root).resolver_with_root(root)
    leads: dict[int, list[int]] = {}
    waiting = [(root, resolver)]
    while waiting:
        resource, resolver = waiting.pop()
        parts = resource.contents
        if not isinstance(parts, dict) or id(parts) in leads:
            continue
        leads[id(parts)] = [id(part) for key in _HERE if key in parts for part in _schemas(parts[key])]
        for key in _REFERENCES:
            if isinstance(parts.get(key), str):
                try:
                    there = resolver.lookup(parts[key])
                except Unresolvable:
                    yield f"{key} leads nowhere: {parts[key][:200]} (nothing is fetched)"
                    continue
                leads[id(parts)].append(id(there.contents))
                waiting.append((_resource(there.contents), there.resolver))
        waiting += [(part, resolver.in_subresource(part)) for part in resource.subresources()]
    if _circular(leads):
        yield "its references lead in a circle"


def _resource(schema: Any) -> Resource[Any]:
    from referencing import Resource
    from referencing.jsonschema import DRAFT202012

    return Resource.from_contents(schema, default_specification=DRAFT202012)


def _schemas(value: Any) -> list[Any]:
    """Return the schemas under a keyword: the value, or those in it."""
    return [value, *(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())]


def _circular(leads: dict[int, list[int]]) -> bool:
    """Whether one comes back to where one was: what remains when all that lead nowhere further are taken away."""
    left = {each: {place for place in places if place in leads} for each, places in leads.items()}
    while ends := {each for each, places in left.items() if not places}:
        left = {each: places - ends for each, places in left.items() if each not in ends}
    return bool(left)


def misfit(text: str, schema: Any) -> tuple[bool, str | None]:
    """Return whether a text is JSON, and what is wrong with it or its fit to a schema, or None."""
    block = only_block(text, {"json"})
    try:
        value = json.loads(text if block is None else block, parse_constant=_refuse)
    except ValueError as error:
        return False, f"The answer is not valid JSON: {error}"
    except RecursionError:
        return False, f"The answer is not valid JSON: {_TOO_DEEP}"
    return True, None if schema is None else _fault(value, schema)


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _fault(value: Any, schema: Any) -> str | None:
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry

    # An empty registry: without one, a reference to a URL would be fetched.
    try:
        error = best_match(validator_for(schema)(schema, registry=Registry()).iter_errors(value))
        if error is None:
            return None
        path, message = "/".join(map(str, error.absolute_path)), error.message
    except (RecursionError, OverflowError) as caught:
        why = _TOO_DEEP if isinstance(caught, RecursionError) else str(caught)
        return f"The JSON cannot be held to the schema: {why}"
    message = message if len(message) < 300 else f"{message[:300]}…"
    return f"The JSON does not fit the schema{f' at {path}' if path else ''}: {message}"

"""The reward ``json-schema``: whether a completion is JSON, and fits a JSON Schema.

jsonschema checks it: schemas have references, combinations and a version of their own, and a part of that rebuilt here
would pay for JSON that the reader of the output refuses.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import Mistake, Table
from forge_huggingface.rewards.score import Score, WrongReturnError
from forge_huggingface.rewards.text import answer_of, only_block

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


class Args(Table):
    """Settings of ``json-schema``."""

    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="The schema; without one, any JSON will do."
    )
    column: str | None = Field(None, description="Column with each row's own schema, as a string of JSON.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the settings contradict each other in."""
        if self.schema_ is not None and self.column is not None:
            yield Mistake("schema and column are two ways to say the same; keep one", ("schema", "column"))
        if self.schema_ is not None and (fault := schema_fault(self.schema_)):
            yield Mistake(f"schema is no JSON Schema: {fault}", ("schema",))

    def columns(self) -> tuple[str, ...]:
        """Return the columns that the rows must have."""
        return (self.column,) if self.column else ()


def schema_fault(schema: Any) -> str | None:
    """Return what is wrong with a schema, or None; also without jsonschema, which the plan then asks for."""
    try:
        from jsonschema import SchemaError
        from jsonschema.validators import validator_for
    except ImportError:
        return None
    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        path = "/".join(map(str, error.absolute_path))
        return f"{error.message}" + (f" (at {path})" if path else "")
    return None


def score(args: Args, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Score]:
    """Score completions: the whole text after the thinking, or its only fenced block, must be JSON."""
    schemas = columns[args.column] if args.column else [args.schema_] * len(completions)
    return [
        _score(answer_of(completion), _schema(schema, index))
        for index, (completion, schema) in enumerate(zip(completions, schemas, strict=True))
    ]


def _schema(given: Any, index: int) -> Any:
    if not isinstance(given, str):
        return given
    try:
        schema = json.loads(given)
    except ValueError as error:
        raise WrongReturnError(f"the row's schema is not JSON: {error}", index, "mend the row") from None
    if fault := schema_fault(schema):
        raise WrongReturnError(f"the row's schema is no JSON Schema: {fault}", index, "mend the row")
    return schema


def _score(text: str, schema: Any) -> Score:
    block = only_block(text, {"json"})
    try:
        value = json.loads(text if block is None else block, parse_constant=_refuse)
    except ValueError as error:
        return Score(0.0, f"The answer is not valid JSON: {error}", {"valid_json": 0})
    except RecursionError:
        return Score(0.0, "The answer is not valid JSON: it is nested too deeply", {"valid_json": 0})
    fault = None if schema is None else _misfit(value, schema)
    return Score(float(fault is None), fault, {"valid_json": 1})


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _misfit(value: Any, schema: Any) -> str | None:
    from jsonschema.exceptions import best_match
    from jsonschema.validators import validator_for
    from referencing import Registry

    # An empty registry: without one, a reference to a URL would be fetched.
    error = best_match(validator_for(schema)(schema, registry=Registry()).iter_errors(value))
    if error is None:
        return None
    path = "/".join(map(str, error.absolute_path))
    message = error.message if len(error.message) < 300 else f"{error.message[:300]}…"
    return f"The JSON does not fit the schema{f' at {path}' if path else ''}: {message}"

"""The reward ``json-schema``: whether a completion is JSON, and fits a JSON Schema.

jsonschema checks it: schemas have references, combinations and a version of their own, and a part of that rebuilt here
would pay for JSON that the reader of the output refuses.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import Field

from forge.api import Mistake, Table
from forge_huggingface.rewards.aside import TooLongError, WorkError, ask
from forge_huggingface.rewards.builtin.schemas import fault_of_text, schema_fault
from forge_huggingface.rewards.score import Score, WrongReturnError
from forge_huggingface.rewards.text import answer_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


SECONDS = 3
"""Seconds for one answer."""


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


def row_fault(args: Args, row: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a row's schema, or None."""
    if args.column is None:
        return None
    try:
        fault = fault_of_text(_text(row[args.column]))
    except (TypeError, ValueError, RecursionError) as error:  # a date, or what is nested too deeply
        fault = f"it is not JSON: {error}"
    return fault and f"the row's schema is no JSON Schema: {fault}"


def _text(schema: Any) -> str:
    """Return a row's schema as JSON; a column may hold tables too."""
    return schema if isinstance(schema, str) else json.dumps(schema)


def score(args: Args, completions: Sequence[Any], columns: Mapping[str, Any]) -> list[Score]:
    """Score completions: the whole text after the thinking, or its only fenced block, must be JSON."""
    schemas = columns[args.column] if args.column else [args.schema_] * len(completions)
    scores = []
    for index, (completion, given) in enumerate(zip(completions, schemas, strict=True)):
        if args.column and (fault := row_fault(args, {args.column: given})):
            raise WrongReturnError(fault, index, "mend the row")
        scores.append(_score(answer_of(completion), json.loads(_text(given)) if args.column else given))
    return scores


def _score(text: str, schema: Any) -> Score:
    try:
        valid, fault = ask("forge_huggingface.rewards.builtin.schemas:misfit", SECONDS, text, schema)
    except TooLongError:
        why = f"it took longer than {SECONDS} s"
    except WorkError as error:
        why = str(error)
    else:
        return Score(float(fault is None), fault, {"valid_json": int(valid), "gave_up": 0})
    return Score(0.0, f"The JSON could not be held to the schema: {why}", {"valid_json": 0, "gave_up": 1})

"""What requests hold: a model for each body, and reading one with every mistake told at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from forge.api import problems_of
from forge_serve.web.problems import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

DEEPEST = 64
"""How deep the values of a body may be nested."""

Name = Annotated[str, StringConstraints(pattern=r"^[\w][\w.-]{0,63}$")]


class Body(BaseModel):
    """The base of every body: no unknown key, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)


class JobBody(Body):
    """A job."""

    job: str | dict[str, Any] = Field(description="The job: a TOML text, or its tables as JSON.")
    set: list[str] = Field(default_factory=list, description="Changes, as `train.max_steps=10`.")
    name: Name | None = Field(None, description="What the job's file is called, without `.toml`: in messages and runs.")


class DataBody(JobBody):
    """A job whose rows are to be shown."""

    rows: int = Field(3, ge=1, le=1000, description="How many rows to show.")


class StartBody(JobBody):
    """A job to be trained."""

    dry_run: bool = Field(False, description="Do everything but train.")


class StopBody(Body):
    """How to stop."""

    now: bool = Field(False, description="Do not wait for the step to end, and save nothing.")


class ResumeBody(Body):
    """Nothing yet."""


class ExportBody(Body):
    """What to export; without anything, what the job says."""

    format: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None, description="The format, as of `[[export]]`."
    )
    types: list[str] = Field(default_factory=list, description="Files of these types; needs `format`.")
    set: list[str] = Field(default_factory=list, description="Changes of the job, as `export.0.types=…`.")


class EvalBody(Body):
    """What to evaluate; without anything, what the job says."""

    data: str | None = Field(None, description="Rows to ask: a file below the roots, or a hub id.")
    metrics: list[str] = Field(default_factory=list, description="Metrics to judge by.")
    max_rows: int | None = Field(None, ge=1, description="Ask only this many rows.")
    base: bool | None = Field(None, description="Whether to ask the base model too.")
    set: list[str] = Field(default_factory=list, description="Changes of the job, as `eval.max_new_tokens=64`.")


class QuickStartBody(Body):
    """Nothing yet."""


class UploadBody(Body):
    """A piece of a file of rows."""

    name: Annotated[str, StringConstraints(pattern=r"^\w[\w .-]{0,99}\.(jsonl|json|csv|tsv|txt|md)$")] = Field(
        description="What the file is called; in pieces after the first, what the answer called it."
    )
    text: str = Field(description="The piece, as text.")
    after: int = Field(0, ge=0, description="Bytes of the file that have been sent before.")
    last: bool = Field(True, description="Whether the file ends with this piece.")


class DeleteBody(Body):
    """That it is really meant."""

    confirm: str | None = Field(None, description="The id of the run, once more; an entry that waits needs none.")


class QueueBody(Body):
    """What to do with the queue."""

    paused: bool = Field(description="Whether nothing more is begun.")


class EntryBody(Body):
    """Where an entry is to wait."""

    position: int = Field(ge=0, description="Its place among those that wait, from 0.")


class ChatBody(Body):
    """A question to a model."""

    question: Annotated[str, StringConstraints(min_length=1, max_length=100_000)] = Field(description="What is asked.")
    model: Literal["tuned", "base"] = Field("tuned", description="Who answers.")
    system: str | None = Field(None, max_length=100_000, description="A system message before it.")
    max_new_tokens: int | None = Field(None, ge=1, le=100_000, description="The longest answer.")
    temperature: float | None = Field(None, ge=0, le=100, description="0 takes the most probable token each time.")


BODIES = (
    JobBody,
    DataBody,
    StartBody,
    StopBody,
    ResumeBody,
    ExportBody,
    EvalBody,
    DeleteBody,
    QueueBody,
    EntryBody,
    ChatBody,
    QuickStartBody,
    UploadBody,
)

Model = TypeVar("Model", bound=BaseModel)


async def json_of(request: Request, *, text: str | None = None) -> Any:
    """Return the JSON of a request's body; an empty one is an empty object.

    Args:
        request: The request.
        text: The body, where it has been read already.

    Raises:
        Refused: It is no JSON that a program could work with.
    """
    if text is None:
        try:
            text = (await request.body()).decode()
        except UnicodeDecodeError as error:
            raise Refused(400, f"the body is not UTF-8: byte {error.start}") from None
    if not text.strip():
        return {}
    try:
        data = json.loads(text, parse_constant=_no_constant)
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refused(400, "the body holds half a letter: a surrogate without its partner") from None
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is not JSON: {error}") from None
    if depth_of(data) > DEEPEST:
        raise Refused(400, f"the body is nested more than {DEEPEST} levels deep")
    return data


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def depth_of(value: Any) -> int:
    """Return how deep a value of JSON is nested."""
    depth, level = 0, [value]
    while level := [item for each in level for item in _inside(each)]:
        depth += 1
    return depth


def _inside(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


async def taken(request: Request, model: type[Model]) -> Model:
    """Return what a request holds. Raises :class:`Refused` with all of its mistakes."""
    return checked(await json_of(request), model)


def checked(data: Any, model: type[Model]) -> Model:
    """Return data as a body. Raises :class:`Refused` with all of its mistakes."""
    if not isinstance(data, dict):
        raise Refused(422, "the body must be an object")
    if found := problems_of(model, data, "body"):
        problems = [
            {"where": each.where.removeprefix("body."), "line": None, "message": each.message, "hint": each.do}
            for each in found
        ]
        first = problems[0]
        more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise Refused(422, f"{first['where']} {first['message']}{more}", problems)
    return model.model_validate(data)

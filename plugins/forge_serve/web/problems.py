"""Answers, and what is answered where something is wrong: ``application/problem+json``, all mistakes at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from forge.api import ForgeError, UsageError, masked
from forge.disk.events import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.requests import Request

TITLES = {
    400: "The request cannot be read",
    401: "The token is missing or wrong",
    403: "Another site asked",
    404: "There is no such thing",
    405: "That cannot be done with it",
    409: "That cannot be done now",
    413: "The request is too large",
    415: "The request is no JSON",
    421: "The request was meant for another host",
    422: "There are mistakes in it",
    429: "Too many at a time",
    500: "forge itself failed",
    504: "It took too long",
}


class Refused(Exception):  # noqa: N818 - an answer, and no fault of the program
    """An answer that something is wrong.

    Args:
        status: The status of HTTP.
        detail: What is wrong, in a sentence.
        problems: Single mistakes, each with ``where``, ``line``, ``message`` and ``hint``.
        error: An error of forge's, as JSON data.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        problems: Sequence[Mapping[str, Any]] = (),
        *,
        error: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problems = status, detail, list(problems)
        self.error, self.headers = error, dict(headers or {})

    def response(self) -> Response:
        """Return the answer."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": TITLES.get(self.status, "It was refused"),
            "status": self.status,
            "detail": self.detail,
            "problems": self.problems,
        }
        if self.error is not None:
            body["error"] = {name: self.error.get(name) for name in ("type", "what", "why", "do")}
        return answer(body, self.status, media_type="application/problem+json", headers=self.headers)


def answer(
    data: Any, status: int = 200, *, media_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> Response:
    """Return data as JSON, without any secret: whatever was written, a token of the environment is masked in it."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # a file of a run may hold what is not finite
        text = json.dumps(plain(data), ensure_ascii=False, allow_nan=False, default=str)
    return Response(
        masked(text).encode(errors="backslashreplace"), status, media_type=media_type, headers=dict(headers or {})
    )


def refused(error: Mapping[str, Any], status: int = 422) -> Refused:
    """Return the answer to a request that forge has an error for, as its commands print it as JSON."""
    problems = [
        {"where": each.get("where"), "line": each.get("line"), "message": each.get("message"), "hint": each.get("do")}
        for each in error.get("problems") or ()
    ]
    if "UsageError" not in error.get("kinds", ()):
        status = 504 if "took more than" in str(error.get("what")) else 500
    return Refused(
        status, str(ForgeError(str(error["what"]), error.get("why"), error.get("do"))), problems, error=error
    )


async def on_refused(_request: Request, error: Exception) -> Response:
    """Answer a request that was refused."""
    assert isinstance(error, Refused)
    return error.response()


async def on_forge_error(_request: Request, error: Exception) -> Response:
    """Answer a request that met an error of forge's: in the wrong state, or of something that is not there."""
    assert isinstance(error, ForgeError)
    if not isinstance(error, UsageError):
        return Refused(500, str(error), error=error.to_json()).response()
    status = 404 if error.what.startswith("there is no") else 409
    return Refused(status, str(error), error=error.to_json()).response()


async def on_http(_request: Request, error: Exception) -> Response:
    """Answer a request for what is not there, or in a way that is not offered."""
    status = getattr(error, "status_code", 500)
    said = {404: "there is nothing at this address", 405: "this address does not take this method"}
    headers = getattr(error, "headers", None)
    return Refused(status, said.get(status) or str(getattr(error, "detail", "")), headers=headers).response()


async def on_fault(_request: Request, error: Exception) -> Response:
    """Answer where forge itself failed; the traceback goes to the terminal, and to nobody else."""
    detail = f"{type(error).__name__}; the terminal of `forge serve` shows more, please report it"
    return Refused(500, detail).response()

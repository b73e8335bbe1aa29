"""Requests that nobody would write, made of the API's description: no fault, no traceback, and answers as described."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from forge_serve.web.app import ROUTES
from forge_serve.web.openapi import openapi

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.serving import Served

schemathesis = pytest.importorskip("schemathesis", reason="pip install schemathesis")
pytestmark = pytest.mark.slow

ENDLESS = {"GET /api/v1/stream", "POST /api/v1/quickstart"}  # the second downloads a model
PLANS = {"POST /api/v1/plan", "POST /api/v1/data", "POST /api/v1/runs", "POST /api/start_training"}


def asking(served: Served, operation: Any, seen: set[int]) -> Callable[[Any], None]:
    """Return what asks one case of an operation and looks at the answer."""

    def ask(case: Any) -> None:
        if case.body == {"paused": False}:
            case.body = {"paused": True}
        headers = {"Authorization": f"Bearer {served.token}", "Accept": "*/*"}  # no stream, which never ends
        response = case.call(base_url=f"http://{served.host}", headers=headers, timeout=60, allow_redirects=False)
        seen.add(response.status_code)
        assert response.status_code < 500, response.text
        assert "Traceback" not in response.text
        if "json" in response.headers.get("content-type", [""])[0] and response.status_code not in {405, 421}:
            operation.validate_response(response)

    return ask


def test_fuzzed_requests_meet_no_fault(served: Served) -> None:
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis.generation import GenerationMode

    served.call("PATCH", "/api/v1/queue", {"paused": True})  # what the fuzzing queues is not to be trained
    schema = schemathesis.openapi.from_dict({**openapi(), "servers": [{"url": f"http://{served.host}"}]})
    asked: dict[str, set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.label in ENDLESS:
            continue
        seen = asked.setdefault(operation.label, set())
        for mode in GenerationMode:
            count = 10 if operation.label in PLANS else 40
            held = {"max_examples": count, "deadline": None, "database": None}
            checked = given(case=operation.as_strategy(generation_mode=mode))(asking(served, operation, seen))
            with suppress(Unsatisfiable):  # what takes nothing cannot be asked wrongly
                settings(**held, suppress_health_check=list(HealthCheck))(checked)()
    assert len(asked) == sum(len((route.methods or set()) - {"HEAD"}) for route in ROUTES) - len(ENDLESS)
    assert all(asked.values()), asked
    assert served.process.poll() is None
    assert served.get("/api/v1/queue")["paused"]

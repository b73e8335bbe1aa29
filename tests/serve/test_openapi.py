"""The description of the API is held to the routes, and real answers to the description."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from forge_serve.web.app import ROUTES
from forge_serve.web.openapi import openapi

if TYPE_CHECKING:
    from support.serving import Reply, Served

jsonschema = pytest.importorskip("jsonschema")

RUN = "old~20260101-000000"


def operations() -> set[tuple[str, str]]:
    """Return what the routes take: methods and paths."""
    return {
        (method.lower(), re.sub(r":path\}", "}", route.path))
        for route in ROUTES
        for method in (route.methods or set()) - {"HEAD"}
    }


def fits(answer: Reply, method: str, path: str) -> None:
    """Hold an answer to its description."""
    said = openapi()["paths"][path][method]["responses"]
    found = said.get(str(answer.status)) or said[f"{answer.status // 100}XX"]
    kind = answer.headers["content-type"].partition(";")[0]
    schema = found["content"][kind]["schema"]
    if kind.endswith("json"):
        jsonschema.Draft202012Validator({**schema, "components": openapi()["components"]}).validate(answer.json)


def test_every_route_is_described_and_nothing_else() -> None:
    described = {(method, path) for path, found in openapi()["paths"].items() for method in found}
    assert described == operations()


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    schemas = openapi()["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    named = set(re.findall(r"#/components/schemas/(\w+)", str(openapi())))
    assert named <= schemas.keys()
    assert schemas.keys() <= named, "none is left over"


@pytest.mark.parametrize(("method", "path"), sorted(operations()))
def test_answers_are_as_described(served: Served, method: str, path: str) -> None:
    names = {"id": RUN, "path": "job.toml", "name": "page.css" if "static" in path else "loss"}
    filled = re.sub(r"\{(\w+)\}", lambda found: names[found[1]], path)
    if path in {"/api/v1/stream", "/login"}:  # one never ends, the other answers with another page
        return
    body: Any = None if method == "get" else {}
    fits(served.call(method.upper(), filled, body), method, path)
    nothing = filled.replace(RUN, "nothing")
    if "{id}" in path:
        answer = served.call(method.upper(), nothing, body)
        assert answer.status in {404, 422}
        fits(answer, method, path)


def test_the_description_can_be_read_without_a_network(served: Served) -> None:
    found = served.get("/openapi.json")
    assert found["openapi"] == "3.1.0"
    assert "http" not in str(found["paths"])


def test_what_is_not_there_and_what_cannot_be_done_are_problems_too(served: Served) -> None:
    for method, path, status in [
        ("GET", "/nothing", 404),
        ("PUT", "/api/v1/runs", 405),
        ("POST", "/api/v1/queue", 405),
    ]:
        found = served.call(method, path, {} if method != "GET" else None)
        assert found.status == status
        assert found.headers["content-type"] == "application/problem+json"
        assert found.json["status"] == status

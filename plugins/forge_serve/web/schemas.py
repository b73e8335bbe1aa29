"""The shapes of what the server answers, as schemas of OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

STATES = ["queued", "running", "trained", "dry run", "planned", "stopped", "failed", "lost", "done", "unknown"]


def _maybe(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


def _object(required: dict[str, Any], optional: dict[str, Any] | None = None, *, about: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }
    return {**found, "description": about} if about else found


def ref(name: str) -> dict[str, Any]:
    """Return a reference to a schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


_ERROR = {"anyOf": [{"type": "null"}, ref("Error")]}

_LINE = {
    "id": {"type": "string"},
    "run": {**_maybe("string"), "description": "`name/time`, as `forge runs` lists it; null before it has begun."},
    "name": {"type": "string"},
    "kind": {"enum": ["run", "dry-run", "resume", "export", "eval"]},
    "state": {"enum": STATES},
    "entry": {**_maybe("string"), "description": "The entry of the queue that began it."},
    "position": {**_maybe("integer"), "description": "Its place among those that wait, from 0."},
    "step": _maybe("integer"),
    "of": _maybe("integer"),
    "loss": _maybe("number"),
    "eval_loss": _maybe("number"),
    "seconds_left": _maybe("number"),
    "tokens_per_second": _maybe("number"),
    "memory": {**_maybe("number"), "description": "Bytes at the peak."},
    "stage": _maybe("string"),
    "time": {**_maybe("number"), "description": "Of the last event, in seconds since the epoch."},
    "error": _ERROR,
    "events": {"type": "integer", "description": "Bytes of events.jsonl: where a stream of what is new begins."},
    "url": {"type": "string"},
    "waiting": {"type": "array", "items": {"type": "string"}, "description": "Entries for this run that wait."},
    "stopping": {"type": "boolean"},
    "sort": {"type": "number"},
}

SCHEMAS: dict[str, Any] = {
    "Error": _object(
        {"what": {"type": "string"}},
        {"type": {"type": "string"}, "why": _maybe("string"), "do": _maybe("string")},
        about="What happened, why, and what to do.",
    ),
    "Mistake": _object(
        {"where": _maybe("string"), "line": _maybe("integer"), "message": _maybe("string"), "hint": _maybe("string")},
        about="One mistake: its key, its line in the job's text, what is wrong, and what to write.",
    ),
    "Problem": _object(
        {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "problems": {"type": "array", "items": ref("Mistake")},
        },
        {"error": ref("Error")},
        about="Why a request was refused (RFC 9457); `problems` has all mistakes at once.",
    ),
    "Run": _object(_LINE, about="A run, or what waits to become one, as lists show it."),
    "Runs": _object(
        {
            "runs": {"type": "array", "items": ref("Run")},
            "after": {**_maybe("string"), "description": "What to give as `after` for the next page."},
            "version": {"type": "integer"},
        }
    ),
    "Record": {
        "allOf": [
            ref("Run"),
            _object(
                {"folder": _maybe("string"), "job": _maybe("string"), "can": {"type": "object"}},
                {
                    "set": {"type": "array", "items": {"type": "string"}},
                    "printed": {"type": "string"},
                    "lock": _maybe("string"),
                    "plan": _maybe("object"),
                    "text": {**_maybe("string"), "description": "The plan as `forge plan` prints it."},
                    "data": _maybe("object"),
                    "trained": _maybe("object"),
                    "result": {**_maybe("object"), "description": "evaluation.json."},
                    "exports": {"type": "array", "items": {"type": "object"}},
                    "checkpoint": _maybe("string"),
                    "speed": {"type": ["array", "null"], "items": {"type": "string"}},
                    "files": {
                        "type": "array",
                        "items": _object({"name": {"type": "string"}, "bytes": {"type": "integer"}}),
                    },
                    "log": {"type": "integer"},
                    "unread": {"type": "object"},
                },
            ),
        ]
    },
    "Started": _object(
        {
            "id": {"type": "string"},
            "state": {"enum": STATES},
            "position": _maybe("integer"),
            "url": {"type": "string"},
        }
    ),
    "Stopping": _object(
        {
            "id": {"type": "string"},
            "state": {"enum": STATES},
            "stopping": {"type": "boolean"},
            "url": {"type": "string"},
        }
    ),
    "Removed": _object({"id": {"type": "string"}, "trash": _maybe("string")}),
    "Entry": _object(
        {
            "id": {"type": "string"},
            "kind": {"enum": ["run", "dry-run", "resume", "export", "eval"]},
            "name": {"type": "string"},
            "state": {"enum": ["queued", "running", "done", "failed", "stopped", "lost"]},
            "position": _maybe("integer"),
            "source": {"type": "string"},
            "added": {"type": "number"},
            "begun": _maybe("number"),
            "devices": {**_maybe("string"), "description": "The GPUs of its slot; null for all."},
            "ended": _maybe("number"),
            "error": _ERROR,
            "folder": {**_maybe("string"), "description": "The folder of its run."},
            "stopping": {"type": "boolean"},
        }
    ),
    "Queue": _object(
        {
            "entries": {"type": "array", "items": ref("Entry")},
            "paused": _maybe("object"),
            "dispatches": {"type": "boolean", "description": "Whether this server starts what waits."},
            "slots": {"type": "array", "items": _maybe("string")},
            "by_hand": {"type": "array", "items": {"type": "string"}, "description": "Trainings that are not its own."},
        }
    ),
    "QuickStart": _object(
        {
            "state": {"enum": ["absent", "making", "made", "failed", "missing"]},
            "said": {"type": "string", "description": "What its script said last."},
            "job": {**_maybe("string"), "description": "The job as TOML, once all is made."},
        }
    ),
    "Upload": _object(
        {
            "name": {"type": "string"},
            "path": {"type": "string", "description": "What a job names it by."},
            "bytes": {"type": "integer"},
            "whole": {"type": "boolean"},
        }
    ),
    "Plan": _object({"plan": {"type": "object"}, "text": {"type": "string"}}),
    "Rows": _object(
        {
            "id": {"type": "string"},
            "state": {"enum": ["running", "done", "failed"]},
            "result": _maybe("object"),
            "error": _ERROR,
            "url": {"type": "string"},
        },
        about="`result` is what `forge data --json` prints: `rows`, each with `segments`, and a `summary`.",
    ),
    "Figures": _object(
        {
            "events": {"type": "integer"},
            "figures": {
                "type": "array",
                "items": _object(
                    {
                        "name": {"type": "string"},
                        "title": {"type": "string"},
                        "main": {"type": "boolean"},
                        "wide": {"type": "boolean"},
                        "html": {"type": "string"},
                    }
                ),
            },
        }
    ),
    "Series": _object(
        {"steps": {"type": "object"}, "evals": {"type": "object"}},
        about="By name, the steps and the values: `[[1, 2], [2.5, 2.25]]`.",
    ),
    "Chat": _object(
        {
            "question": {"type": "string"},
            "answer": {"type": "string"},
            "tokens": {"type": "integer"},
            "finished": {"type": "boolean"},
            "seconds": {"type": "number"},
        }
    ),
    "About": _object(
        {
            "version": {"type": "string"},
            "allow_code": {"type": "boolean"},
            "roots": {"type": "array", "items": {"type": "string"}},
            "runs": {"type": "string"},
            "dispatches": {"type": "boolean"},
            "slots": {"type": "array", "items": _maybe("string")},
            "links": {"type": "object"},
        }
    ),
    "Health": _object({"ok": {"const": True}}),
    "Example": _object({"job": {"type": "string"}}),
    "Object": {"type": "object"},
    "Plugins": {"type": "array", "items": {"type": "object"}},
    "TrainingStarted": _object(
        {
            "success": {"const": True},
            "message": {"type": "string"},
            "run": {"type": "string"},
            "url": {"type": "string"},
            "dataset_info": _maybe("object"),
            "notes": {"type": "array", "items": {"type": "string"}},
        }
    ),
    "Status": _object(
        {
            "status": {"enum": ["idle", "running", "completed", "error"]},
            "progress": {"type": "integer", "minimum": 0, "maximum": 100},
            "message": {"type": "string"},
            "run": _maybe("string"),
        }
    ),
}
"""Each by its name."""

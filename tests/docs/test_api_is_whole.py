"""Whatever a plugin is given or gives can be imported from the one door, and stands in the guide."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest

from forge import api
from forge.api.hooks import EventHooks, ReadHooks

PAGES = Path(__file__).parents[2] / "docs" / "plugins"
GUIDE = "".join(path.read_text(encoding="utf-8") for path in sorted(PAGES.glob("*.md")))
ELSEWHERE = {
    "Any", "Callable", "Collection", "Iterable", "Iterator", "Literal", "Mapping", "None", "Path", "Sequence",
    "AbstractContextManager", "Event",
}  # fmt: skip
WORDS = {
    "Stage": "## Offer",
    "Offer": "## Offer",
    "Extension": "`Extension`",
    "Command": "forge_commands",
    "Function": "Function(",
    "Who": '`"tuned"`',
    "Generator": "### Generator",
    "Task": "run.plan.task",
    "Verdict": "`verdicts`",
    "ModelTask": "### ModelFacts",
}
"""Where the guide tells of what has no heading of its own."""


def names(annotation: str) -> set[str]:
    without = re.sub(r"(['\"]).*?\1", "", annotation)
    return {name for name in re.findall(r"[A-Z]\w+", without) if name not in ELSEWHERE}


def in_hooks() -> set[str]:
    hooks = [
        hook
        for of in (api.PlanHooks, api.RunHooks, ReadHooks, EventHooks)
        for hook in vars(of).values()
        if callable(hook)
    ]
    signatures = [inspect.signature(hook) for hook in hooks]
    texts = [str(each.annotation) for signature in signatures for each in signature.parameters.values()]
    return {name for text in (*texts, *(str(each.return_annotation) for each in signatures)) for name in names(text)}


def in_fields() -> set[str]:
    kinds = [api.Offer, api.Extension, *(getattr(api, name) for name in in_hooks() & set(api.__all__))]
    return {name for kind in kinds if is_dataclass(kind) for each in fields(kind) for name in names(str(each.type))}


def test_the_hooks_have_arguments_and_results() -> None:
    assert in_hooks() >= {"Job", "Run", "Data", "Loaded", "Trained", "ExportTable", "Exported", "ModelFacts", "Offer"}
    assert in_fields() >= {"Machine", "Problem", "Decision", "Plan", "Package", "Stage"}


@pytest.mark.parametrize("name", sorted(in_hooks() | in_fields()))
def test_every_type_of_a_signature_is_in_the_door_and_in_the_guide(name: str) -> None:
    assert name in api.__all__
    assert f"### {name}\n" in GUIDE or WORDS[name] in GUIDE


@pytest.mark.parametrize("name", ["config", "dry_run", "checkpoint", "emit", "learn", "decide", "of"])
def test_what_a_run_can_do_stands_in_the_guide(name: str) -> None:
    assert hasattr(api.Run, name)
    assert re.search(rf"^\| `{name}[(`]", GUIDE, re.MULTILINE)

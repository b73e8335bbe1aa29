"""Whatever a run holds is shown as text, in every part of the page, and no letter of it goes unseen."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from forge.api import Estimate, Part
from forge.text.visible import UNSEEN
from forge_report.markup import fill, seen
from forge_report.page import PARTS, render
from support.pages import Page

if TYPE_CHECKING:
    from support.pages import Run

EVIL = '<script>alert("1")</script>\'&\u202egnp\u200b\u2066\u061c\x07'
SHOWN = "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&#39;&amp;\\u202egnp\\u200b\\u2066\\u061c\\u0007"
ANYWHERE = ("title", "header", "footer", "summary", *(part.name for part in PARTS))


@pytest.fixture
def page(run: Run) -> str:
    """The page of a run in which every name and every text is evil."""
    run.tell("loaded", device=EVIL, **{EVIL: EVIL}).tell("warning", message=EVIL, do=EVIL).begin()
    run.step(1, **{EVIL: 1.0}).step(2, **{EVIL: 2.0}).tell("eval", step=1, **{f"eval_{EVIL}_loss": 1.0})
    run.tell("answers", step=1, answers=[{"prompt": EVIL, "completion": EVIL, "rewards": {EVIL: 1.0}, EVIL: [EVIL]}])
    run.tell("stage", stage=EVIL, state="finished", seconds=1.0).tell("speed", first=1.0, steps=2, seconds=1.0)
    run.tell("failed", error={"what": EVIL, "why": EVIL, "do": EVIL}).trained()
    source = {"path": EVIL, "format": EVIL, "split": EVIL, "columns": {EVIL: "prompt"}, "ignored": [EVIL]}
    summary = {"rows": 1, EVIL: EVIL, "sources": [source], "dropped_first": [EVIL], "eval": {EVIL: {"rows": 1}}}
    run.file("data.json", {"digest": EVIL, "summary": summary})
    files = {EVIL: {"bytes": 1, "sha256": EVIL}}
    run.file("exports/1-merged/export.json", {"format": EVIL, "url": EVIL, "report": {EVIL: EVIL}, "files": files})
    value = {"value": 1.0, "stderr": 0.1, "low": 0.9, "high": 1.1, "n": 5, "share": False}
    run.file(
        "evaluation.json",
        {
            "rows": 1,
            "samples": [{"origin": EVIL, "prompt": EVIL, "answers": {EVIL: EVIL}, EVIL: 1}],
            "metrics": {EVIL: {EVIL: value}},
            "models": {EVIL: {EVIL: EVIL}},
            "report": {EVIL: EVIL},
        },
    )
    run.file("evaluations/2.json", {"rows": 1, "metrics": {EVIL: {EVIL: value}}})
    plan = json.loads((run.folder.path / "plan.json").read_text())
    for step in plan["steps"]:
        step |= {"plugin": EVIL, "label": EVIL, "version": EVIL, "impl": EVIL}
    for kind in ("verdicts", "decisions"):
        plan[kind] = [{**each, **{key: EVIL for key in each if key != "ok"}} for each in plan[kind]]
    plan |= {"notes": [EVIL], "overrides": [EVIL], "named": [EVIL], "job_digest": EVIL}
    plan["machine"]["versions"] = {EVIL: EVIL}
    plan["facts"]["id"] = EVIL
    part = Part(EVIL, 2**30, "estimated", EVIL)
    plan["estimate"] = Estimate(
        parts=(part,), peak=2**30, process=2**31, room=2**33, device="cpu", batch=EVIL
    ).to_json()
    run.file("plan.json", plan)
    (run.folder.path / "job.lock.toml").write_text(EVIL, encoding="utf-8")
    text = render(replace(run.record, name=EVIL, path=Path(EVIL), state=EVIL))
    assert "This part cannot be shown" not in text
    return text


@pytest.mark.parametrize("where", ANYWHERE)
def test_evil_text_is_escaped_and_cleaned_in_every_part_of_the_page(page: str, where: str) -> None:
    found = dict(re.findall(r'<section [^>]*id="(\w+)"[^>]*>(.*?)</section>', page, re.DOTALL))
    for name in ("title", "header", "footer"):
        found |= re.findall(f"<({name})>(.*?)</{name}>", page, re.DOTALL)
    assert set(found) == set(ANYWHERE)
    assert SHOWN in found[where]
    assert "<script" not in found[where]
    assert not UNSEEN.search(found[where])


def test_a_page_of_evil_text_is_whole_and_runs_nothing(page: str) -> None:
    assert Page(page).words.count("<script>") > 40
    assert not UNSEEN.search(page)


def test_no_template_says_that_a_value_is_safe() -> None:
    folder = Path(fill.__code__.co_filename).parent / "templates"
    for path in folder.glob("*.jinja"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe\b|autoescape|__html__", text), path.name
        assert not re.search(r"=\s*\{\{", text), f"{path.name}: an attribute without quotes can be left by a space"


def test_letters_that_people_write_are_left_as_they_are() -> None:
    text = "Zoë, 日本語, עברית, می‌خواهم, 👩\u200d🚀, a\tb\nc"
    assert seen(text) == text


@pytest.mark.parametrize(("value", "shown"), [(None, ""), (0, "0"), (1.5, "1.5"), ("", ""), (Markup("<b>"), "<b>")])
def test_values_of_other_types_become_text(value: object, shown: str) -> None:
    assert seen(value) == shown


def test_a_template_that_asks_for_what_it_was_not_given_fails() -> None:
    with pytest.raises(UndefinedError, match="'error' is undefined"):
        fill("broken", version="1")


def test_no_login_stands_in_a_page() -> None:
    assert seen("asked http://me:WORD@host/?token=WORD") == "asked http://***@host/?token=***"

"""Each view: it is there, it holds to the rules of its policy, it fits a small screen, and everybody can use it."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.browsing import AXE

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.browsing import Looker
    from support.projects import Project
    from support.serving import Served

OLD = "run/old~20260101-000000"
VIEWS = ("runs", "training", "queue", "machine", OLD)


def is_there(looker: Looker, view: str) -> None:
    """Go to a view and wait for what takes longest on it."""
    page = looker.go(view)
    last = {
        "runs": page.get_by_role("link", name="old"),
        "training": page.get_by_label("Search among all"),
        "queue": page.get_by_role("heading", name="Waiting"),
        "machine": page.get_by_role("heading", name="huggingface"),
        OLD: page.get_by_role("img", name="Loss:"),
    }[view]
    last.first.wait_for()


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_there_and_fits_320_pixels(served: Served, look: Callable[..., Looker], view: str) -> None:
    looker = look(served, width=320, height=700, scheme="dark")
    is_there(looker, view)
    assert looker.width() <= 0
    assert "forge" in looker.page.title()


@pytest.mark.skipif(not AXE, reason="axe-core is not there; `nox -s browser` fetches it")
@pytest.mark.parametrize(("view", "scheme"), [("training", "light"), (OLD, "dark")])  # and all of them as pictures
def test_axe_finds_nothing(served: Served, look: Callable[..., Looker], view: str, scheme: str) -> None:
    looker = look(served, scheme=scheme)
    is_there(looker, view)
    for summary in looker.page.locator("summary").all()[:8]:
        summary.click()
    assert looker.violations() == []


def test_the_token_stays_in_no_address(served: Served, look: Callable[..., Looker]) -> None:
    page = look(served).page
    page.get_by_role("heading", level=1).wait_for()
    assert served.token not in page.url
    assert page.evaluate("() => document.referrer") == ""
    page.go_back()
    assert served.token not in page.url
    page.go_forward()
    assert served.token not in page.url


def test_a_job_is_one_text_in_form_and_editor(served: Served, look: Callable[..., Looker], job: str) -> None:
    page = look(served).go("training")
    page.get_by_role("radio", name="TOML").check()
    editor = page.get_by_label("The job as TOML")
    editor.fill("# mine\n" + job)
    page.get_by_role("radio", name="Form").check()
    length = page.get_by_label("Max sequence length")
    assert length.input_value() == "128"
    length.fill("96")
    page.get_by_role("radio", name="unsloth").check()
    page.get_by_label("Search among all").fill("weight decay")
    page.get_by_role("textbox", name="weight_decay").fill("0.1")
    page.get_by_label("a whole model").check()
    page.get_by_role("radio", name="TOML").check()
    text = editor.input_value()
    assert text.startswith("# mine\n")
    assert "max_seq_length = 96" in text
    assert "weight_decay = 0.1" in text
    assert '[[export]]\nformat = "merged"' in text
    assert '[use]\nbackend = "unsloth"' in text
    page.reload()  # what was written outlives the page
    assert page.get_by_label("The job as TOML").input_value() == text


def test_mistakes_are_told_at_once_and_lead_to_their_lines(
    served: Served, look: Callable[..., Looker], job: str
) -> None:
    page = look(served).go("training")
    page.get_by_role("radio", name="TOML").check()
    editor = page.get_by_label("The job as TOML")
    editor.fill(job.replace("max_seq_length", "max_seq_lenght").replace("max_steps = 4", "max_steps = -4"))
    page.get_by_text("2 mistakes to mend").wait_for()
    assert page.get_by_text("did you mean max_seq_length?").is_visible()
    assert page.get_by_role("button", name="Show rows").is_disabled()
    page.get_by_role("button", name="Go there: model.max_seq_lenght").click()
    selected = editor.evaluate("(area) => area.value.slice(area.selectionStart, area.selectionEnd)")
    assert selected == "max_seq_lenght = 128"
    assert page.locator(".gutter .wrong").count() == 2
    page.get_by_role("radio", name="Form").check()
    page.get_by_role("button", name="Go there: train.max_steps").click()
    steps = page.get_by_label("Steps at most")
    assert steps.evaluate("(field) => field === document.activeElement")
    assert steps.get_attribute("aria-invalid") == "true"
    steps.fill("4")
    page.get_by_text("1 mistake to mend").wait_for()


def test_an_event_is_on_the_page_within_a_fifth_of_a_second(
    served: Served, look: Callable[..., Looker], place: Project
) -> None:
    looker = look(served)
    is_there(looker, OLD)
    page = looker.page
    page.get_by_text("live", exact=True).wait_for()
    file = place.runs / "old" / "20260101-000000" / "events.jsonl"
    waits = []
    for number in range(5):
        page.evaluate(
            "() => { window.seen = new Promise((done) => new MutationObserver((_, watcher) => {"
            " watcher.disconnect(); done(Date.now() / 1000); })"
            ".observe(document.querySelector('.feed'), { childList: true })); }"
        )
        begun = time.time()
        with file.open("a", encoding="utf-8") as events:
            events.write(json.dumps({"time": begun, "kind": "note", "message": f"news {number}"}) + "\n")
        waits.append(page.evaluate("() => window.seen") - begun)
    assert sorted(waits)[2] < 0.2, waits
    assert page.get_by_text("news 4").is_visible()


def test_hostile_text_is_shown_as_text(served: Served, look: Callable[..., Looker], place: Project) -> None:
    folder = place.runs / "<img src=x onerror=alert(1)>" / "20260101-000001"
    folder.parent.mkdir()
    (place.runs / "old" / "20260101-000000").rename(folder)
    try:
        bad = "<script>document.title='taken'</script><b>bold</b>"
        lines: list[Any] = [
            {"time": 1.0, "kind": "note", "message": bad},
            {"time": 2.0, "kind": "warning", "message": "\x1b[31mred\x00 \u202eleft"},
            {"time": 3.0, "kind": bad, "x": 1},
            {"time": 4.0, "kind": "note", "message": "y" * 1_000_000},
            {"time": "soon", "kind": "step", "step": {"a": []}, "loss": None},
        ]
        with (folder / "events.jsonl").open("ab") as events:
            for line in lines:
                events.write(json.dumps(line).encode() + b"\n")
            events.write(b'{"time": 5.0, "kind": "note", "message": "half \xff\xfe"}\nno json\n[1]\n')
        with (folder / "log.txt").open("ab") as log:
            log.write(f"{bad}\n\x1b[2Kplain\n".encode() + b"\xff\x00\n" + b"z" * 1_000_000)
        looker = look(served)
        page = looker.go("runs")
        page.get_by_role("link", name="<img src=x").click()
        page.get_by_text(bad).first.wait_for()
        page.get_by_text("998,000 more characters").wait_for()
        assert page.get_by_text("␛[31mred␀").count()
        page.get_by_text("half ��").first.wait_for()
        page.wait_for_timeout(300)
        assert page.locator("main img, main script, main b").count() == 0
        assert "taken" not in page.title()
        assert looker.width() <= 0
    finally:
        folder.rename(place.runs / "old" / "20260101-000000")


def test_a_server_that_was_started_again_is_told_by_who_has_its_token(
    served: Served, look: Callable[..., Looker]
) -> None:
    page = look(served).go("runs")
    page.context.clear_cookies()
    page.evaluate("() => { location.hash = '#/machine'; }")
    page.get_by_text("This page is not logged in").wait_for()
    page.get_by_label("Link or token").fill(f"http://somewhere/login?token={served.token}")
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", level=1).wait_for()
    assert page.get_by_text("This page is not logged in").count() == 0
    assert not re.search("token", page.url)

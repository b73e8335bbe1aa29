"""What people do on the page who have no terminal, with real trainings: all of `-m browser` that trains."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from support.browsing import call
from support.pictures import EXAMPLE
from support.projects import Project, wait_for
from support.serving import serve
from support.tiny import make_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from support.browsing import Looker
    from support.serving import Served

pytestmark = pytest.mark.browser
SLOW = 90_000


@pytest.fixture
def shop(tmp_path: Path, tiny_model: Path) -> Project:
    """A folder of somebody who has a model and rows, and the quick start's as its script would leave them."""
    project = Project(tmp_path / "project", tiny_model, rows=64)
    quick = project.folder / "quickstart"
    shutil.copytree(tiny_model, quick / "model")
    (quick / "data").mkdir()
    shutil.copy(EXAMPLE / "metrics.py", quick)
    make_rows(quick / "data" / "train.jsonl", 48)
    make_rows(quick / "data" / "eval.jsonl", 8)
    return project


@pytest.fixture
def own(shop: Project) -> Iterator[Served]:
    """A server of this test's own; what it began is ended with it."""
    served = serve(shop.folder)
    yield served
    if served.process.poll() is not None:
        return
    for line in served.get("/api/v1/runs")["runs"]:
        if line["state"] == "queued":
            served.call("DELETE", line["url"], {})
        elif line["state"] == "running":
            served.call("POST", f"{line['url']}/stop", {"now": True})
    served.kill()


def write(page: Page, text: str) -> None:
    """Write a job as TOML."""
    page.goto(page.url.partition("#")[0] + "#/training")
    page.get_by_role("radio", name="TOML").check()
    page.get_by_label("The job as TOML").fill(text)
    page.get_by_text("Ready.").wait_for(timeout=SLOW)


def is_state(page: Page, state: str) -> None:
    """Wait until the run's state is told."""
    page.locator(f".head .state[data-state='{state}']").wait_for(timeout=SLOW)


def job_of(project: Project, steps: int, **train: Any) -> str:
    """Return a job of so many steps."""
    return project.write(train={"max_steps": steps, "save_steps": 50, **train}).read_text(encoding="utf-8")


def test_the_quick_start_from_a_click_to_a_download(own: Served, shop: Project, look: Callable[..., Looker]) -> None:
    page = look(own).page
    page.get_by_role("button", name="Take the quick start").click()
    page.get_by_text("Ready.").wait_for(timeout=SLOW)
    assert page.get_by_label("Model", exact=True).input_value() == "quickstart/model"
    page.get_by_role("button", name="Show rows").click()
    page.get_by_role("heading", name="Row 1").wait_for(timeout=SLOW)
    assert "<|im_start|>user" in page.locator(".sequence").first.inner_text()
    assert page.locator(".sequence mark").first.inner_text().strip()
    page.get_by_label("Show the tokens").check()
    assert page.locator(".sequence mark .token").count() > 6
    page.get_by_label("Steps at most").fill("12")
    page.get_by_text("Ready.").wait_for(timeout=SLOW)
    page.get_by_role("button", name="Start training").dblclick()  # and one run comes of it
    is_state(page, "running")
    page.get_by_role("img", name="Loss:").wait_for(timeout=SLOW)
    is_state(page, "trained")
    assert len(own.get("/api/v1/runs")["runs"]) == 1
    page.get_by_role("row", name="json").wait_for(timeout=SLOW)
    page.get_by_text("reference", exact=True).first.wait_for()
    page.get_by_label("Question", exact=True).fill("Give the country card of Peru.")
    page.get_by_label("Question", exact=True).press("Control+Enter")
    log = page.get_by_role("log")
    log.locator("small", has_text="token").nth(1).wait_for(timeout=SLOW)
    assert log.locator(".who").all_inner_texts() == ["TUNED", "BASE"]
    with page.expect_download() as saved:
        page.get_by_role("link", name="Download .zip of exports/1-merged").click()
    with zipfile.ZipFile(saved.value.path()) as archive:
        assert archive.testzip() is None
        assert {"1-merged/model.safetensors", "1-merged/config.json"} <= set(archive.namelist())
    page.get_by_role("combobox", name="Format").select_option("adapter")
    page.get_by_role("button", name="Export", exact=True).click()
    page.get_by_role("link", name="Download .zip of exports/2-adapter").wait_for(timeout=SLOW)
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Report").click()
    opened.value.get_by_role("heading", level=1).wait_for()
    own.post("/api/v1/runs", {"job": "[model]\nid = 'model'\n[data]\npath = 'rows.jsonl'", "dry_run": True})


def test_rows_from_another_computer_are_trained_on(
    own: Served, shop: Project, look: Callable[..., Looker], tmp_path: Path
) -> None:
    rows = tmp_path / "my rows.jsonl"
    one = json.dumps(
        {"messages": [{"role": "user", "content": "é" * 3000}, {"role": "assistant", "content": "ü"}]},
        ensure_ascii=False,
    )
    rows.write_text(f"{one}\n" * 200, encoding="utf-8")
    page = look(own).page
    write(page, job_of(shop, 4))
    page.get_by_role("radio", name="Form").check()
    page.get_by_label("A file of rows").set_input_files(rows)
    page.locator("[data-key='data.path'][value], [data-key='data.path']").first.wait_for()
    wait_for(lambda: page.get_by_label("Data", exact=True).input_value() == "uploads/my-rows.jsonl")
    assert (shop.folder / "uploads" / "my-rows.jsonl").read_bytes() == rows.read_bytes()
    rows.write_bytes(b"\xff\xfe\x00")
    page.get_by_label("A file of rows").set_input_files(rows)
    page.get_by_text("is not text in UTF-8").wait_for()


def test_start_stop_and_go_on_by_keyboard_alone(own: Served, shop: Project, look: Callable[..., Looker]) -> None:
    page = look(own).page
    write(page, job_of(shop, 400))

    def press(name: str) -> None:
        """Go to a button by the tabulator and press it."""
        for _ in range(200):
            page.keyboard.press("Tab")
            if page.evaluate("() => document.activeElement.textContent") == name:
                page.keyboard.press("Enter")
                return
        raise AssertionError(f"the tabulator does not reach {name}")

    page.locator("h1").focus()
    press("Start training")
    is_state(page, "running")
    page.get_by_text("step 3 /").first.wait_for(timeout=SLOW)
    page.locator("h1").focus()
    press("Stop")
    is_state(page, "stopped")
    line = own.get("/api/v1/runs")["runs"][0]
    assert line["step"] < 400
    page.locator("h1").focus()
    press("Resume")
    is_state(page, "running")
    is_state(page, "trained")
    folder = shop.runs / line["run"]
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event["step"] for event in map(json.loads, lines) if event["kind"] == "step"]
    assert steps == list(range(1, 401))


def test_a_server_that_is_killed_comes_back_with_nothing_lost_on_the_page(
    own: Served, shop: Project, look: Callable[..., Looker]
) -> None:
    page = look(own).page
    write(page, job_of(shop, 600))
    page.get_by_role("button", name="Start training").click()
    page.get_by_text("step 20 /").first.wait_for(timeout=SLOW)
    own.kill()
    page.get_by_text("no connection, trying again").wait_for()
    line = shop.runs.glob("*/*/events.jsonl").__next__()
    size = line.stat().st_size
    wait_for(lambda: line.stat().st_size > size + 2000)
    again = serve(shop.folder, port=own.port)
    try:
        page.get_by_text("live", exact=True).wait_for()
        is_state(page, "trained")
        told = [text.split()[1] for text in page.locator(".feed .step").all_inner_texts() if text.startswith("step")]
        numbers = [int(each.replace(",", "")) for each in told]
        assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1))
        assert numbers[0] == 600
        assert numbers[-1] < 20
        elsewhere = look(again).page  # and another browser that comes later sees the same
        elsewhere.get_by_role("link", name=line.parents[1].name).first.click()
        elsewhere.get_by_text("step 600 /").wait_for()
        elsewhere.get_by_role("img", name=re.compile("^Loss: .* at step 600,")).wait_for(timeout=SLOW)
    finally:
        again.kill()


def test_a_worker_that_is_killed_has_failed_on_the_page_and_can_go_on(
    own: Served, shop: Project, look: Callable[..., Looker]
) -> None:
    page = look(own).page
    write(page, job_of(shop, 2000, save_steps=10))
    page.get_by_role("button", name="Start training").click()
    page.get_by_text("checkpoint-10 is whole").wait_for(timeout=SLOW)
    lock = next(shop.runs.glob("*/*/.lock"))
    os.kill(int(lock.read_text(encoding="utf-8")), signal.SIGKILL)
    begun = time.monotonic()
    is_state(page, "failed")
    assert time.monotonic() - begun < 4
    page.get_by_role("alert").get_by_text("killed").first.wait_for()
    page.get_by_role("button", name="Resume").click()
    is_state(page, "running")
    page.get_by_role("button", name="Stop now").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop now").click()
    is_state(page, "stopped")


def test_the_queue_is_ordered_paused_and_emptied(own: Served, shop: Project, look: Callable[..., Looker]) -> None:
    page = look(own).page
    for name in ("first", "second", "third"):
        write(page, f'name = "{name}"\n' + job_of(shop, 300))
        page.get_by_role("button", name="Start training").click()
        page.get_by_role("heading", name=name, level=1).wait_for()
    page.get_by_role("link", name="Queue").click()
    page.get_by_role("button", name="Pause the queue").click()
    page.get_by_text("The queue is paused.").wait_for()
    page.get_by_role("button", name="Move third up").click()
    waiting = page.locator("section", has=page.get_by_role("heading", name="Waiting")).locator("li a")
    wait_for(lambda: waiting.all_inner_texts() == ["third", "second"])
    assert page.evaluate("() => document.activeElement.tagName") == "BUTTON"
    page.get_by_role("button", name="Remove second").click()
    wait_for(lambda: waiting.all_inner_texts() == ["third"])
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("button", name="Stop first").click()
    page.locator("section", has=page.get_by_role("heading", name="Running")).get_by_role("link", name="third").wait_for(
        timeout=SLOW
    )


def test_a_job_that_a_run_was_made_of_is_taken_again(own: Served, shop: Project, look: Callable[..., Looker]) -> None:
    page = look(own).page
    text = "# a remark of mine\n" + job_of(shop, 2)
    write(page, text)
    page.get_by_role("button", name="Dry run").click()
    is_state(page, "dry run")
    page.evaluate("() => localStorage.clear()")
    page.get_by_role("button", name="Use this job").click()
    page.get_by_role("radio", name="TOML").check()
    assert page.get_by_label("The job as TOML").input_value() == text
    page.go_back()
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete it").click()
    page.get_by_text("Nothing has been trained here yet").wait_for()
    assert len(list((shop.runs / ".trash").iterdir())) == 1
    assert call(page, "unquoted", '"x"') == "x"

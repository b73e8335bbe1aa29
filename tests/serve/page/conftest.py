"""A browser, and pages in it; what needs one is skipped where there is none, and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from support.browsing import CHROMIUM, OPTIONS, Looker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.serving import Served


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser, started once."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    if not CHROMIUM:
        pytest.skip("there is no chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def look(chromium: Any) -> Iterator[Callable[..., Looker]]:
    """Open pages that are logged in; in the end none of them may have met an error."""
    opened: list[Looker] = []

    def open_one(served: Served, *, width: int = 1280, height: int = 900, scheme: str = "light") -> Looker:
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(15_000)
        opened.append(Looker(context.new_page(), served))
        return opened[-1]

    yield open_one
    for each in opened:
        each.page.context.close()
    assert [fault for each in opened for fault in each.faults] == []

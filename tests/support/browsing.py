"""A real Chromium that looks at a real `forge serve`, and what it is asked about."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

    from support.serving import Served

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STATIC = Path(__file__).parents[2] / "plugins" / "forge_serve" / "static"
AXE = os.environ.get("FORGE_AXE", "")
"""The file axe.min.js of axe-core, where there is one: `nox -s browser` fetches it."""


@dataclass
class Looker:
    """A page of the browser, with what went wrong on it.

    Attributes:
        page: Playwright's page.
        served: The server that it looks at.
        faults: Errors of its scripts, and what its policy refused.
    """

    page: Page
    served: Served
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self.heard)
        self.page.goto(f"http://{self.served.host}/login?token={self.served.token}")

    def heard(self, message: ConsoleMessage) -> None:
        """Keep what a console says is wrong, but for answers of the server that are refusals."""
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.faults.append(message.text)

    def go(self, view: str) -> Page:
        """Go to a view and wait until it is there."""
        self.page.goto(f"http://{self.served.host}/#/{view}")
        self.page.get_by_role("heading", level=1).wait_for()
        return self.page

    def width(self) -> int:
        """Return by how much the page is wider than its window."""
        found: int = self.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        return found

    def violations(self) -> list[str]:
        """Return what axe finds wrong."""
        session = self.page.context.new_cdp_session(self.page)  # the page's policy lets no script in
        session.send("Runtime.evaluate", {"expression": Path(AXE).read_text(encoding="utf-8")})
        found: list[str] = self.page.evaluate(
            "async () => (await axe.run({resultTypes: ['violations']})).violations.map("
            "(each) => `${each.id}: ${each.nodes.map((node) => node.html.slice(0, 200)).join(' | ')}`)"
        )
        return found


def toml_functions() -> str:
    """Return the part of the page's script that reads and changes TOML, as an expression of its functions."""
    script = (STATIC / "page.js").read_text(encoding="utf-8")
    part = re.search(r"// -+ TOML, with comments\n(.*?)\n// -{20,}", script, re.DOTALL)
    assert part is not None
    return f"(() => {{ {part[1]} return {{ scan, withValue, without, withExport, unquoted }}; }})()"


def call(page: Page, name: str, *arguments: Any) -> Any:
    """Call one of those functions in the browser."""
    return calls(page, name, [list(arguments)])[0]


def calls(page: Page, name: str, each: list[list[Any]]) -> list[Any]:
    """Call one of those functions in the browser, once for each list of arguments."""
    found: list[Any] = page.evaluate(
        f"([name, each]) => {{ const all = {toml_functions()}; return each.map((given) => all[name](...given)); }}",
        [name, each],
    )
    return found

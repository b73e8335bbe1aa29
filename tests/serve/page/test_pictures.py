"""The pictures of the documentation: each view as people see it, light, dark and on a small screen, looked at by axe.

`nox -s browser -- --draw` draws those of the documentation anew; otherwise they are drawn and thrown away.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.browsing import AXE
from support.pictures import make_shop
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.browsing import Looker
    from support.serving import Served

pytestmark = pytest.mark.browser
FOLDER = os.environ.get("FORGE_PICTURES", "")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    """A server with runs of all kinds: of the quick start's numbers, and one that runs."""
    folder = make_shop(tmp_path_factory.mktemp("shown") / "project", tiny_model)
    with serving(folder, "--allow-code") as served:
        served.call("PATCH", "/api/v1/queue", {"paused": True})
        text = (folder / "job.toml").read_text(encoding="utf-8")
        for name in ("capitals", "currencies", "regions"):
            served.post("/api/v1/runs", {"job": f'name = "{name}"\n{text}'})
        yield served


def job(page: Any) -> None:
    page.get_by_role("button", name="Take the quick start").click()
    page.get_by_text("Ready.").wait_for(timeout=60_000)


def toml(page: Any) -> None:
    job(page)
    page.get_by_role("radio", name="TOML").check()
    editor = page.get_by_label("The job as TOML")
    editor.fill(
        editor.input_value().replace("lora_alpha", "lora_alhpa").replace("max_steps = 20", 'max_steps = "many"')
    )
    page.get_by_text("2 mistakes to mend").wait_for(timeout=60_000)


def rows(page: Any) -> None:
    job(page)
    page.get_by_role("button", name="Show rows").click()
    page.get_by_role("heading", name="Row 1").wait_for(timeout=60_000)
    page.evaluate("() => document.querySelector('.legend').closest('.card').scrollIntoView()")
    page.wait_for_timeout(600)


def curves(page: Any) -> None:
    page.get_by_role("img", name="Loss:").wait_for(timeout=60_000)
    page.get_by_role("row", name="card").wait_for()


VIEWS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "runs": ("runs", lambda page: page.get_by_role("link", name="capitals").first.wait_for()),
    "training": ("training", job),
    "toml": ("training", toml),
    "rows": ("training", rows),
    "run": ("run/quickstart~20260101-100000", curves),
    "queue": ("queue", lambda page: page.get_by_role("heading", name="Waiting").wait_for()),
    "machine": ("machine", lambda page: page.get_by_role("heading", name="huggingface").wait_for()),
}
SIZES = {"light": (1280, 860, "light"), "dark": (1280, 860, "dark"), "small": (320, 640, "light")}
SHOWN = ("run-light", "training-light", "toml-dark", "rows-light", "queue-dark", "run-small")
"""Those that the documentation shows."""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("view", VIEWS)
def test_a_view_is_drawn(shown: Served, look: Callable[..., Looker], view: str, size: str, tmp_path: Path) -> None:
    from PIL import Image

    width, height, scheme = SIZES[size]
    looker = look(shown, width=width, height=height, scheme=scheme)
    address, ready = VIEWS[view]
    page = looker.go(address)
    ready(page)
    page.get_by_text("live", exact=True).wait_for()
    assert looker.width() <= 0
    picture = Image.open(io.BytesIO(page.screenshot()))
    assert len(picture.convert("RGB").getcolors(2**24) or ()) > 50  # something is there
    name = f"{view}-{size}"
    folder = Path(FOLDER) if FOLDER and name in SHOWN else Path(os.environ.get("FORGE_ALL_PICTURES") or tmp_path)
    picture.save(folder / f"serve-{name}.webp", quality=82, method=6)
    if AXE:
        assert looker.violations() == []

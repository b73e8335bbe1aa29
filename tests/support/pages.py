"""Runs that are written event by event, and pages about them that are checked while they are read."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

from forge.api import Custom
from forge.disk.events import EventLog
from forge.disk.files import write_json
from forge_report.page import render
from forge_report.record import Record, read_record

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder

VOID = {"meta"}
PHRASING = {"a", "code", "small", "span", "strong", "time"}
"""What may stand in a paragraph; anything else would end it."""


class Page(HTMLParser):
    """A page, checked while it is read: every element closed in order, and nothing that runs or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.wanted: set[str] = set()
        self.titles: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)
        assert self.wanted <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {
            "script",
            "img",
            "iframe",
            "link",
            "object",
            "embed",
            "base",
            "form",
            "use",
            "image",
            "foreignobject",
        }
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            assert name not in {"src", "style", "srcdoc"}, (tag, name)
            if name == "href":
                assert value is not None
                assert value.startswith("#")
                self.wanted.add(value[1:])
            if name == "id":
                assert value is not None
                self.ids.append(value)
            if name == "aria-labelledby":
                assert value is not None
                self.wanted.add(value)
        assert "p" not in self.open or tag in PHRASING, tag
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)
        if self.open and self.open[-1] != "style":
            self.words += data


class Run:
    """A run folder that is written event by event, as workers write it."""

    def __init__(self, folder: RunFolder, plan: Any) -> None:
        self.folder, self.plan = folder, plan
        self.log = EventLog(folder.events)

    def tell(self, kind: str, **values: Any) -> Run:
        self.log.append(Custom(kind, more=values))
        return self

    def begin(self, start: int = 0, steps: int = 10) -> Run:
        self.tell("stage", stage="collate", state="started", plugin="huggingface")
        self.tell("stage", stage="collate", state="finished", seconds=0.5)
        return self.tell("training", steps=steps, epochs=1, **{"from": start})

    def step(self, step: int, loss: float = 1.0, **more: Any) -> Run:
        return self.tell("step", step=step, of=10, loss=loss, **more)

    def file(self, name: str, data: Any) -> Run:
        path = self.folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, data)
        return self

    def trained(self) -> Run:
        return self.file(
            "trained.json",
            {
                "weights": "adapter",
                "kind": "adapter",
                "task": "text",
                "base": {},
                "processor": "adapter",
                "traits": [],
                "best_step": None,
                "metrics": {},
                "files": {"adapter_model.safetensors": {"bytes": 1, "sha256": "5ea1"}},
            },
        )

    @property
    def record(self) -> Record:
        return read_record(self.folder)

    @property
    def page(self) -> Page:
        page = Page(render(self.record))
        assert "This part cannot be shown" not in page.words
        return page

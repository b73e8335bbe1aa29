"""Where images come from, and what is refused."""

from __future__ import annotations

import base64
import http.server
import io
import json
import pickle
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.vision import images
from support.looking import Collated, rewrite, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.looking import VisionProject


def content(project: VisionProject, name: str = "0.png") -> bytes:
    return (project.folder / "pictures" / name).read_bytes()


def same_row(project: VisionProject, image: Any, **parts: Any) -> None:
    """Check that a form of an image gives the tokens and pixels that its path gives."""
    rewrite(project, [row("pictures/0.png")])
    first = Collated(project)
    rewrite(project, [parts or row(image)])
    second = Collated(project)
    assert first.data.digest == second.data.digest
    assert (first.batch()["pixel_values"] == second.batch()["pixel_values"]).all()


def test_each_form_of_an_image_is_the_same_image(project: VisionProject) -> None:
    raw = base64.b64encode(content(project)).decode()
    for form in (
        str(project.folder / "pictures/0.png"),
        {"path": "pictures/0.png"},
        raw,
        {"base64": raw},
        f"data:image/png;base64,{raw}",
        {"bytes": raw},
    ):
        same_row(project, form)


@pytest.mark.parametrize("key", ["image", "path", "url", "image_url"])
def test_an_image_may_stand_in_the_message(project: VisionProject, key: str) -> None:
    raw = f"data:image/png;base64,{base64.b64encode(content(project)).decode()}"
    value = {"url": raw} if key == "image_url" else raw if key == "url" else "pictures/0.png"
    messages = row(None)["messages"]
    messages[0]["content"][0] = {"type": "image_url" if key == "image_url" else "image", key: value}
    same_row(project, None, messages=messages)


def test_parquet_files_hold_images_as_bytes_and_path(project: VisionProject) -> None:
    import pyarrow
    from pyarrow import parquet

    first = Collated(project)
    rows = [json.loads(line) for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    for each in rows:
        path = each["images"][0]
        each["images"] = [{"bytes": (project.folder / path).read_bytes(), "path": "gone.png"}]
        each["messages"][1]["content"] = [{"type": "text", "text": each["messages"][1]["content"]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), project.folder / "rows.parquet")
    project.write(data={"path": "rows.parquet"})
    assert Collated(project).data.digest == first.data.digest


def test_hub_rows_keep_the_bytes_of_their_files(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, List
    from PIL import Image as Pillow

    from forge_huggingface.sources.sources import _undecoded

    Pillow.new("RGB", (4, 3), "red").save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    rows = Dataset.from_dict(
        {"image": [str(tmp_path / "a.png")], "images": [[str(tmp_path / "a.png")]]},
        Features({"image": Image(), "images": List(Image())}),
    )
    for kind in (rows, rows.to_iterable_dataset()):
        first = next(iter(_undecoded(kind)))
        found = first["image"]
        assert (found["bytes"] or Path(found["path"]).read_bytes()) == data
        assert set(first["images"][0]) == {"bytes", "path"}


def test_pillow_images_are_taken(project: VisionProject) -> None:
    from PIL import Image

    gallery = images.Gallery(Collated(project).job, Collated(project).run)
    picture, _ = gallery.open(Image.new("RGBA", (5, 4)), None, 1)
    assert (picture.width, picture.height, picture.path) == (5, 4, None)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one picture, and counts."""

    data = b""
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/a.png" else 404)
        self.end_headers()
        self.wfile.write(self.data if self.path == "/a.png" else b"")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    Server.asked = 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


def test_links_are_fetched_once_and_kept_with_the_run(project: VisionProject, web: str) -> None:
    Server.data = content(project)
    rewrite(project, [row(f"{web}/a.png"), row(f"{web}/a.png", "It is green.")])
    seen = Collated(project)
    assert Server.asked == 1
    assert len(list((seen.run.folder / "data" / "images").iterdir())) == 1
    same_row(project, f"{web}/a.png")


@pytest.mark.parametrize(
    ("link", "why"),
    [("/gone.png", "404"), ("/moved", "cannot be fetched")],
)
def test_a_link_that_leads_nowhere_names_its_row(project: VisionProject, web: str, link: str, why: str) -> None:
    rewrite(project, [row("pictures/0.png"), row(web + link)])
    error = project.perform().error
    assert "rows.jsonl:2" in error["what"]
    assert "image 1" in error["what"]
    assert why in error["what"] + str(error["why"])


def test_links_are_not_fetched_offline(project: VisionProject, web: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rewrite(project, [row(f"{web}/a.png")])
    error = project.perform().error
    assert "offline" in error["why"]
    assert Server.asked == 0


BROKEN: dict[str, tuple[Any, str]] = {
    "missing": ("pictures/none.png", "was not found"),
    "text": ("text.png", "is no image"),
    "cut": ("cut.png", "is damaged"),
    "empty": ("empty.png", "is no image"),
    "bomb": ("bomb.png", "is too large"),
    "postscript": ("page.eps", "is no image"),
    "base64": ({"base64": "!!"}, "is not base64"),
    "data URL": ("data:image/png,abc", "without base64"),
    "ftp": ("ftp://host/a.png", "kind ftp"),
    "file": ("file:///etc/passwd", "is no image"),
    "file elsewhere": ("file://host/a.png", "of another machine"),
    "number": (5, "is no image"),
    "object": ({"width": 5}, "without an image"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_image_names_its_row_and_number(project: VisionProject, name: str) -> None:
    folder = project.folder
    (folder / "text.png").write_text("no picture at all")
    (folder / "empty.png").write_bytes(b"")
    (folder / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    noise = io.BytesIO()
    from PIL import Image

    Image.effect_noise((60, 40), 50).save(noise, "PNG")
    (folder / "cut.png").write_bytes(noise.getvalue()[:900])
    Image.new("1", (20000, 20000)).save(folder / "bomb.png")
    image, why = BROKEN[name]
    bad = row("pictures/0.png")
    bad["images"] = ["pictures/0.png", image]
    bad["messages"][0]["content"].insert(0, {"type": "image"})
    rewrite(project, [row("pictures/0.png"), bad])
    done = project.perform()
    assert done.code == 2, done.printed
    error = done.error
    assert error["what"].startswith("rows.jsonl:2 has an image that cannot be used: image 2"), error
    assert why in error["what"]
    project.write(data={"on_bad_row": "drop", "max_bad_rows": 1})
    assert len(Collated(project).data.train) == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": []}, "has 0 images and 1 places"),
        ({"images": ["pictures/0.png", "pictures/1.png"]}, "has 2 images and 1 places"),
    ],
)
def test_images_and_their_places_must_be_equally_many(project: VisionProject, change: dict[str, Any], why: str) -> None:
    rewrite(project, [row("pictures/0.png") | change])
    error = project.perform().error
    assert error["what"].startswith("rows.jsonl:1 ")
    assert why in error["what"]


def test_a_placeholder_in_the_text_is_no_place(project: VisionProject) -> None:
    bad = row("pictures/0.png")
    bad["messages"][0]["content"][1]["text"] = "What is <image>?"
    rewrite(project, [bad])
    assert "has 2 placeholders for 1 images" in project.perform().error["what"]


def test_images_are_an_error_for_a_model_of_text(project: VisionProject, tiny_model: Path) -> None:
    project.write(model={"id": str(tiny_model)})
    error = project.perform().error
    assert error["what"] == "rows.jsonl:1 has images"
    assert "text only" in error["why"]


def test_a_row_is_never_cut_within_or_before_an_image(project: VisionProject) -> None:
    rewrite(project, [row("pictures/0.png"), row("pictures/1.png", "It is green. " * 30)])
    project.write(model={"max_seq_length": 16})
    error = project.perform().error
    assert "its last image ends at" in error["what"]
    project.write(model={"max_seq_length": 64}, data={"on_long_row": "truncate"})
    seen = Collated(project)
    assert [len(each["input_ids"]) for each in seen.data.train] == [41, 64]
    batch = seen.batch()
    assert batch["input_ids"].shape[1] == 64
    assert batch["attention_mask"].sum(1).tolist() == [41, 64]
    project.write(model={"max_seq_length": 64}, data={"on_long_row": "drop"})
    assert len(Collated(project).data.train) == 1
    project.write(model={"max_seq_length": 64}, data={"on_long_row": "error"})
    assert "rows.jsonl:2 has" in project.perform().error["what"]


def test_the_digest_knows_the_pixels(project: VisionProject) -> None:
    first = Collated(project).data
    assert Collated(project).data.digest == first.digest
    (project.folder / "pictures/0.png").write_bytes(content(project, "1.png"))
    second = Collated(project).data
    assert second.train[0]["input_ids"] == first.train[0]["input_ids"]
    assert second.digest != first.digest


def test_an_image_that_changes_after_the_rows_were_made_is_found_out(project: VisionProject) -> None:
    from forge.errors import DataError

    seen = Collated(project)
    (project.folder / "pictures/0.png").write_bytes(content(project, "1.png"))
    with pytest.raises(DataError, match="is not what it was"):
        seen.batch()
    (project.folder / "pictures/0.png").unlink()
    with pytest.raises(DataError, match="not there any more"):
        seen.batch()


def test_rows_hold_references_and_the_collator_can_be_pickled(project: VisionProject) -> None:
    seen = Collated(project)
    first = seen.data.train[0]
    assert first["pictures"][0]["bytes"] is None
    assert sum(path.stat().st_size for path in (seen.run.folder / "data").glob("*.arrow")) < 20_000
    assert seen.data.collator is not None
    again = pickle.loads(pickle.dumps(seen.data.collator(None)))  # type: ignore[arg-type]  # the model does not matter
    assert (again([first])["pixel_values"] == seen.batch(1)["pixel_values"]).all()


def test_streamed_rows_are_the_same_rows(project: VisionProject) -> None:
    whole = list(Collated(project).data.train)
    project.write(data={"streaming": True})
    streamed = list(Collated(project).data.train)
    assert [each["input_ids"] for each in streamed] == [each["input_ids"] for each in whole]
    assert [each["pictures"] for each in streamed] == [each["pictures"] for each in whole]
    done = project.perform()
    assert done.code == 0, done.printed


def test_equal_questions_about_other_pictures_are_other_rows(project: VisionProject) -> None:
    rewrite(project, [row(f"pictures/{index}.png") for index in range(6)])
    project.write(data={"eval_size": 2})
    done = project.perform()
    assert done.code == 0, done.printed
    assert not done.of_kind("warning")

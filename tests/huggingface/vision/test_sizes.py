"""How large a model is shown an image, and what of an image nobody would read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from forge.errors import ForgeError
from forge_huggingface.generation.load import make_renderer
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rows import BadRow
from forge_huggingface.vision.images import reference, reopen
from forge_huggingface.vision.processors import areas, limit
from forge_huggingface.vision.sizes import fitted
from support.looking import Collated, rewrite, row

if TYPE_CHECKING:
    from pathlib import Path

    from support.looking import VisionProject


@pytest.mark.parametrize(
    ("size", "wish", "expected"),
    [
        ((400, 300), {}, (400, 300)),
        ((400, 300), {"max_pixels": 120_000}, (400, 300)),
        ((400, 300), {"max_pixels": 30_000}, (200, 150)),
        ((4000, 1), {"max_pixels": 100}, (632, 1)),
        ((40, 30), {"min_pixels": 4800}, (80, 60)),
        ((40, 30), {"resized_width": 7, "resized_height": 9, "max_pixels": 1}, (7, 9)),
    ],
)
def test_an_image_fits_its_limits(size: tuple[int, int], wish: dict[str, int], expected: tuple[int, int]) -> None:
    assert fitted(size, wish) == expected


def sizes(seen: Collated) -> list[tuple[int, int]]:
    """Return the sizes of all pictures, as they are kept and as they are opened again."""
    pictures = [picture for each in seen.data.train for picture in each["pictures"]]
    kept = [(picture["width"], picture["height"]) for picture in pictures]
    assert [reopen(picture).size for picture in pictures] == kept
    return kept


def warnings(seen: Collated) -> list[str]:
    """Return what was warned of."""
    return [event.values["message"] for event in seen.events if event.kind == "warning"]


def write(project: VisionProject, *images: Any, name: str = "large.png") -> None:
    Image.new("RGB", (224, 112), "red").save(project.folder / "pictures" / name)
    rewrite(project, [row(image) for image in images])


@pytest.mark.slow
def test_the_jobs_limit_holds_for_rows_and_batches(project: VisionProject) -> None:
    write(project, "pictures/large.png")
    plain = Collated(project)
    assert sizes(plain) == [(224, 112)]
    project.write(data={"max_pixels": 56 * 28})
    small = Collated(project)
    assert sizes(small) == [(56, 28)]
    fewer = small.data.summary["image_tokens"] < plain.data.summary["image_tokens"]
    assert fewer != any("max_pixels saves no tokens here" in said for said in warnings(small))
    shown = project.forge("data", "job.toml")
    assert f"images: 1, {small.data.summary['image_tokens']} tokens, about" in shown


def test_an_images_own_limit_wins(project: VisionProject) -> None:
    part = {"type": "image", "image": "pictures/large.png"}
    wishes: list[dict[str, int]] = [{"max_pixels": 28 * 14}, {"resized_width": 84, "resized_height": 56}, {}]
    write(project)
    rows = []
    for wish in wishes:
        each = row(None)
        del each["images"]
        each["messages"][0]["content"][0] = part | wish
        rows.append(each)
    rewrite(project, rows)
    project.write(data={"max_pixels": 112 * 56})
    assert sizes(Collated(project)) == [(28, 14), (84, 56), (112, 56)]


def test_chat_and_evaluation_show_what_training_showed(project: VisionProject) -> None:
    write(project, "pictures/large.png")
    project.write(data={"max_pixels": 56 * 28, "image_background": "#ff0000"})
    seen = Collated(project)
    renderer: Any = make_renderer(seen.job, seen.run, seen.data.processor, snapshot(seen.job, seen.run, weights=False))
    assert renderer.gallery.open("pictures/large.png", project.folder, 1)[1].size == (56, 28)
    Image.new("LA", (28, 28), (0, 0)).save(project.folder / "pictures/clear.png")
    opened = renderer.gallery.open("pictures/clear.png", project.folder, 1)[1]
    assert opened.getpixel((0, 0)) == (255, 0, 0)


def test_a_transparent_picture_is_trained_on_as_it_is_seen(project: VisionProject) -> None:
    Image.new("RGBA", (28, 28), (0, 0, 0, 0)).save(project.folder / "pictures/clear.png")
    rewrite(project, [row("pictures/clear.png")])
    for colour, expected in ((None, 255), ("black", 0), ("#808080", 128)):
        project.write(data={"image_background": colour})
        (picture,) = Collated(project).data.train[0]["pictures"]
        assert np.asarray(reopen(picture)).mean() == expected


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ({"image": "a.png", "max_pixels": "x"}, "has max_pixels = 'x'"),
        ({"image": "a.png", "max_pixels": 0}, "has max_pixels = 0"),
        ({"image": "a.png", "resized_width": 28}, "has one side of a size"),
        ({"image": "a.png", "crop": [1, 2]}, "has an image with 'crop'"),
        ({"type": "image_url", "image_url": "a.png", "detail": "high"}, "has an image with 'detail'"),
    ],
)
def test_a_wish_that_nobody_follows_is_a_bad_row(part: dict[str, Any], what: str) -> None:
    with pytest.raises(BadRow) as caught:
        reference(part)
    assert caught.value.what == what


def test_limits_are_for_models_that_see_and_fit_together(project: VisionProject, tiny_model: Path) -> None:
    project.write(data={"max_pixels": 100, "min_pixels": 200})
    assert "min_pixels (200) is above max_pixels (100)" in project.forge("plan", "job.toml", code=2)
    project.write(data={"max_pixels": 100}, model={"id": str(tiny_model)})
    assert "max_pixels: the model takes no images; remove it" in project.forge("plan", "job.toml", code=2)


def test_a_processor_with_limits_of_its_own_gets_the_jobs() -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    def tokens(**job: int | None) -> int:
        processor = Qwen2VLImageProcessorPil()
        limit(processor, job.get("least"), job.get("most"))
        grid = processor(images=[Image.new("RGB", (56, 56))], return_tensors="np")["image_grid_thw"][0]
        return int(np.prod(grid)) // processor.merge_size**2

    assert areas(Qwen2VLImageProcessorPil()) == (56 * 56, 28 * 28 * 1280)
    assert (tokens(), tokens(most=28 * 28), tokens(least=112 * 112)) == (4, 1, 16)
    large = Qwen2VLImageProcessorPil()
    limit(large, None, 28 * 28 * 5000)
    assert areas(large) == (56 * 56, 28 * 28 * 5000)


def test_a_mark_without_an_image_is_a_bad_row(project: VisionProject) -> None:
    bad = {
        "messages": [{"role": "user", "content": "<image>\nWhich colour?"}, {"role": "assistant", "content": "Red."}]
    }
    rewrite(project, [bad, bad | {"images": []}, row("pictures/0.png")])
    error = project.perform().error
    assert error["what"] == "rows.jsonl:1 has 1 place for an image (<image>) and no image"
    assert "columns = { images" in error["do"]
    project.write(data={"on_bad_row": "drop", "max_bad_rows": 2})
    assert len(Collated(project).data.train) == 1


@pytest.mark.parametrize("column", ["videos", "audio"])
def test_a_row_with_a_video_or_sound_is_a_bad_row(project: VisionProject, column: str) -> None:
    rewrite(project, [row("pictures/0.png", **{column: ["a.mp4"]}), row("pictures/1.png", **{column: []})])
    assert f"rows.jsonl:1 has {column!r}, which no model is shown here" in project.perform().error["what"]
    project.write(data={"on_bad_row": "drop", "max_bad_rows": 1})
    assert len(Collated(project).data.train) == 1


def test_rows_without_any_image_are_told(project: VisionProject) -> None:
    rewrite(
        project, [{"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]}] * 4
    )
    seen = Collated(project)
    assert len(seen.data.train) == 4
    assert "the model takes images, and no row has one" in warnings(seen)


def test_a_file_url_is_its_path(project: VisionProject) -> None:
    write(project, (project.folder / "pictures/large.png").as_uri())
    assert sizes(Collated(project)) == [(224, 112)]
    rewrite(project, [row("file://elsewhere/a.png")])
    with pytest.raises(ForgeError, match="of another machine"):
        Collated(project)


def test_a_picture_with_several_frames_is_told(project: VisionProject) -> None:
    red, blue = (Image.new("RGB", (56, 56), name) for name in ("red", "blue"))
    red.save(project.folder / "pictures/moving.gif", save_all=True, append_images=[blue])
    red.save(project.folder / "pictures/still.gif")
    rewrite(project, [row("pictures/moving.gif"), row("pictures/still.gif")])
    seen = Collated(project)
    assert "training rows: in 1 row an image has several frames or pages, and the first is seen" in warnings(seen)
    assert len(seen.data.train) == 2

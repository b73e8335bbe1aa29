"""Rows with images to tokens and labels: the renderer for models that see.

A chat template writes one placeholder for an image; the processor writes as many tokens as the image's size asks for.
So the row is rendered and its answers are found in the template's text, as for any model, and only then moved to the
processor's text, by what it says it put where. The tokens of that text are compared with the processor's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from forge.api import DataError, first_line
from forge_huggingface.rendering.labels import Piece
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.spans import inside
from forge_huggingface.rendering.templates import with_parts
from forge_huggingface.rows import BadRow, Conversation, Ids, Message, Plain, Rendered, Span, parting, parts_of
from forge_huggingface.vision.images import MARK, marks, seat
from forge_huggingface.vision.pixels import SEVERAL
from forge_huggingface.vision.processors import areas, image_tokens, placeholder
from forge_huggingface.vision.sizes import KEYS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forge_huggingface.rendering.templates import Template
    from forge_huggingface.vision.images import Gallery, Picture


@dataclass(frozen=True, slots=True)
class _Expanded:
    """A text with its images' placeholders replaced."""

    text: str
    spans: tuple[tuple[Span, Span], ...] = ()  # of each placeholder, and of what replaced it

    def place(self, character: int) -> int:
        """Return where a character of the text before is now; one inside a placeholder moves behind its image."""
        shift = 0
        for (start, end), (_, new_end) in self.spans:
            if character <= start:
                break
            if character < end:
                return new_end
            shift = new_end - end
        return character + shift


class ImageRenderer(Renderer):
    """Turns rows of text and images into tokens and labels.

    Args:
        processor: The model's processor.
        gallery: Opens images.
        folder: The model's folder.
        template: The chat template, or None if there is none.
        named: The other arguments of :class:`Renderer`.
    """

    sees = True

    def __init__(
        self, processor: Any, template: Template | None, *, gallery: Gallery, folder: Path, **named: Any
    ) -> None:
        tokenizer = getattr(processor, "tokenizer", processor)
        super().__init__(processor, template and with_parts(template, tokenizer), **named)
        self.processor, self.gallery = processor, gallery
        # Batches are made from a row's text, and a text that is cut between two tokens may come back as others.
        self.labels.splits = False
        self.areas = areas(processor.image_processor)
        self.images = image_tokens(processor, folder)
        self.placeholder = placeholder(processor)

    def render(self, rows: Sequence[Plain]) -> list[Rendered | BadRow]:
        """Turn rows into tokens and labels, one by one: pixels of a batch of rows would not fit into memory."""
        rendered: list[Rendered | BadRow] = []
        for row in rows:
            try:
                rendered.append(self._render(row))
            except BadRow as bad:
                rendered.append(bad)
        return rendered

    def foreign(self, ids: Sequence[int], *, given: bool = False) -> BadRow | None:
        """Return what is wrong with tokens that the model has no embedding for; images stand in for their tokens."""
        return super().foreign([token for token in ids if token not in self.images], given=given)

    def tokens_of(self, size: tuple[int, int]) -> int:
        """Return how many tokens an image of a width and height takes."""
        from PIL import Image

        _, ids = self._expand(self.placeholder or "", [Image.new("RGB", size)])
        return sum(token in self.images for token in ids or ())

    def shown(
        self, messages: Sequence[Message], images: Sequence[Any], folder: Path | None
    ) -> tuple[list[Message], list[tuple[Picture, Any]]]:
        """Return a prompt that the model is to answer, as the template wants it, and its pictures with their pixels.

        Args:
            messages: The prompt.
            images: What its row has in the column of images.
            folder: The folder of the row's file.

        Raises:
            BadRow: They have no places, cannot be opened, or the template refuses the prompt.
        """
        seated, given = seat(messages, images)
        if not given and (count := marks(seated)):
            do = 'name the column of the images: [data] columns = { images = "…" }; or take the mark out'
            raise BadRow(f"has {count} places for an image ({MARK}) and no image", None, do)
        if given and self.template is not None and not self.template.parts:
            raise BadRow(
                "has images", f"the chat template {self.template.name} takes text only", "take the model's own"
            )
        pairs = self.gallery.open_all(given, folder)
        for reference, (picture, _) in zip(given, pairs, strict=True):
            self._refuse_unkept(reference, picture)
        return [{**each, "content": parts_of(each["content"])} for each in self.asked(seated)], pairs

    def _render(self, row: Plain) -> Rendered | BadRow:
        if isinstance(row, Ids):
            raise DataError(
                "rows of the format tokens cannot be used",
                "a vision model's batches are made from text and images",
                "write rows as messages or text",
            )
        self._refuse_split(row)
        seated = row.pictures if isinstance(row, Conversation) else ()
        if seated and self.template is not None and not self.template.parts:
            raise DataError(
                f"the chat template {self.template.name} has no place for images",
                "it takes a message's content as text only",
                "use the model's own template, or one for this model as a .jinja file",
            )
        piece = self._piece(row)
        folder = row.folder if isinstance(row, Conversation) else None
        opened = self.gallery.open_all(seated, folder)
        for given, (picture, _) in zip(seated, opened, strict=True):
            self._refuse_unkept(given, picture)
        expanded, ids = self._expand(piece.text, [image for _, image in opened])
        moved, diverged = _move(piece, expanded)
        ((found, encoding),) = self._tokenise([expanded.text])
        if ids is not None and ids != found:
            raise DataError(
                f"{type(self.processor).__name__} cannot be used yet", "it does not say which tokens stand for an image"
            )
        images = inside(encoding.offsets, [new for _, new in expanded.spans]) if expanded.spans else []
        if len(images) != len(opened):
            raise DataError("the tokens of an image cannot be told", f"{len(opened)} images have {len(images)} places")
        if any(image.info.get(SEVERAL) for _, image in opened):
            moved = replace(moved, notes=(*moved.notes, "an image has several frames or pages, and the first is seen"))
        result = self.labels.put(moved, found, encoding, None, images)
        if isinstance(result, BadRow):
            return result
        labels = [-100 if label in self.images else label for label in result.labels]
        if all(label == -100 for label in labels[1:]):
            return BadRow("has nothing to train on", "its answers are tokens of images only")
        pictures = tuple(
            replace(picture, start=start, end=end).to_json()
            for (picture, _), (start, end) in zip(opened, images, strict=True)
        )
        text = self._written(piece, result, expanded)
        turns = _turns(row) if isinstance(row, Conversation) else "[]"
        return replace(result, labels=labels, diverged=diverged, text=text, pictures=pictures, turns=turns)

    def _refuse_unkept(self, given: Any, picture: Picture) -> None:
        """Refuse an image whose own limits the processor would not keep to."""
        if self.areas is None or not isinstance(given, Mapping) or not any(given.get(key) for key in KEYS):
            return
        least, most = self.areas
        if not least <= picture.width * picture.height <= most:
            key = "min_pixels" if picture.width * picture.height < least else "max_pixels"
            raise BadRow(
                f"has an image of {picture.width} x {picture.height} pixels by its own limits",
                f"the processor makes {least} to {most} of every image",
                f"write [data] {key} = {picture.width * picture.height}",
            )

    def _expand(self, text: str, images: list[Any]) -> tuple[_Expanded, list[int] | None]:
        """Return the text as the processor writes it, and its tokens."""
        places = text.count(self.placeholder) if self.placeholder else len(images)
        if places != len(images):
            raise BadRow(
                f"has {places} placeholders for {len(images)} images in the rendered text",
                f"{self.placeholder} stands for an image",
                "remove it from the row's text",
            )
        if not images:
            return _Expanded(text), None
        try:
            made = self.processor(
                text=[text], images=[images], add_special_tokens=False, return_text_replacement_offsets=True
            )
        except MemoryError:
            raise
        except Exception as error:
            # What image processors raise for a size or shape that they cannot take is of any kind.
            raise BadRow("has images that the processor refuses", first_line(error)) from error
        offsets = made.get("text_replacement_offsets")
        ids = [int(token) for token in made["input_ids"][0]]
        if offsets is None:
            # A processor that says nothing may write nothing either, as Llama 3.2's; the ids tell if that is not so.
            alone = [each.span() for each in re.finditer(re.escape(self.placeholder or "\0"), text)]
            return _Expanded(text, tuple((span, span) for span in alone)), ids
        spans, pieces, last = [], [], 0
        for place in offsets[0]:
            (start, end), new = place["span"], place["replacement"]
            pieces += [text[last:start], new]
            begin = sum(map(len, pieces)) - len(new)
            spans.append(((start, end), (begin, begin + len(new))))
            last = end
        return _Expanded("".join([*pieces, text[last:]]), tuple(spans)), ids

    def _written(self, piece: Piece, row: Rendered, expanded: _Expanded) -> str:
        """Return the text from which the processor makes exactly the row's tokens."""
        added = self.tokenizer.eos_token if row.eos == "appended" else ""
        if not added and not (piece.plain and self.before):
            return piece.text
        for start in ("", self.tokenizer.decode(self.before)):
            ids = self._tokenise([start + expanded.text + added])[0][0]
            if ids[: len(row.input_ids)] == row.input_ids:
                return start + piece.text + added
        raise BadRow("cannot be written as text and read back", "its tokens come out otherwise")


def _move(piece: Piece, expanded: _Expanded) -> tuple[Piece, bool]:
    """Return the piece in the processor's text, its prompt as a span; and whether the prompt is another text."""
    if piece.prompt is not None:
        same = piece.text.startswith(piece.prompt)
        start = len(piece.prompt) if same else parting(piece.prompt, piece.text)
        spans: tuple[Span, ...] | None = ((start, len(piece.text)),)
    else:
        same, spans = True, piece.spans
    if spans is not None:
        spans = tuple((expanded.place(start), expanded.place(end)) for start, end in spans)
    return replace(piece, text=expanded.text, prompt=None, spans=spans), not same


def _turns(row: Conversation) -> str:
    messages = [{**message, "content": parts_of(message["content"])} for message in row.messages]
    return json.dumps(messages, ensure_ascii=False, default=str)

"""A draft as the text of a job file, with its comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import tomli_w

if TYPE_CHECKING:
    from forge_migrate.draft import Draft

ORDER = ("model", "adapter", "data", "train", "generation", "eval", "use")
WIDTH = 110


def text_of(draft: Draft, source: str) -> str:
    """Return the job file of a draft; ``source`` names what it was made of."""
    blocks = ["\n".join(_head(draft, source))]
    for name in ORDER:
        table = dict(draft.tables.get(name, {}))
        if name == "data" and len(draft.sources) == 1:
            table = {**draft.sources[0], **table}
        if table:
            blocks.append("\n".join([f"[{name}]", *_lines(table, draft, name)]))
        rows = {"data": draft.sources if len(draft.sources) > 1 else [], "train": draft.rewards}.get(name, [])
        place = {"data": "data.sources", "train": "train.reward"}.get(name, "")
        blocks += ["\n".join([f"[[{place}]]", *_lines(row, draft, place)]) for row in rows]
    blocks += ["\n".join(["[[export]]", *_lines(row, draft, "export")]) for row in draft.exports]
    return "\n\n".join(blocks) + "\n"


def _head(draft: Draft, source: str) -> Iterator[str]:
    yield f"# Made by `forge migrate` of {_one_line(source)} ({draft.tool})."
    for title, said in (
        ("To know:", draft.told),
        ("Missing, so that this trains something else than there:", [str(each) for each in draft.missing]),
        ("Left out; it changes nothing of the training:", [str(each) for each in draft.dropped]),
    ):
        if said:
            yield "#"
            yield f"# {title}"
            for text in said:
                yield from textwrap.wrap(
                    _one_line(text),
                    WIDTH,
                    initial_indent="# - ",
                    subsequent_indent="#   ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )


def _lines(table: Mapping[str, Any], draft: Draft, name: str) -> Iterator[str]:
    for key, value in table.items():
        note = draft.notes.get((name, key))
        line = f"{_key(key)} = {toml(value)}"
        yield f"{line}  # {_one_line(note)}" if note else line


def toml(value: Any) -> str:
    """Return a value as TOML writes it in a line.

    >>> toml({"eta_min": 0.1, "names": ["a"]})
    '{ eta_min = 0.1, names = ["a"] }'
    """
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_key(str(key))} = {toml(each)}" for key, each in value.items() if each is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(each) for each in value)}]"
    return tomli_w.dumps({"v": value}).removeprefix("v = ").strip()


def _key(name: str) -> str:
    return tomli_w.dumps({name: 1}).rpartition(" = ")[0].strip()


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())

"""Tell the format of a source by its columns.

Data sets call the same thing by many names. Here, and only here, the names of columns are known: later modules see
:class:`~forge_huggingface.rows.Row`. What was taken and what was left out is reported, because a column that is
ignored without a word is how training goes wrong unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forge.api import DataError
from forge_huggingface.data.cells import parsed
from forge_huggingface.data.ids import LOSS_MASK
from forge_huggingface.data.shape import IMAGES, Shape
from forge_huggingface.rows import BadRow


@dataclass(frozen=True, slots=True)
class _Format:
    needs: Mapping[str, tuple[str, ...]]
    takes: Mapping[str, tuple[str, ...]]

    def names(self) -> set[str]:
        return {*self.needs, *self.takes}


_IMAGES: dict[str, tuple[str, ...]] = {"images": IMAGES}
_TEMPLATE: dict[str, tuple[str, ...]] = {
    "tools": ("tools",),
    "chat_template_kwargs": ("chat_template_kwargs",),
    **_IMAGES,
}
_SYSTEM: dict[str, tuple[str, ...]] = {"system": ("system", "system_prompt")}

FORMATS: Mapping[str, _Format] = {
    "messages": _Format({"messages": ("messages", "conversation", "conversations")}, _TEMPLATE),
    "sharegpt": _Format({"conversations": ("conversations", "conversation", "messages")}, _SYSTEM | _TEMPLATE),
    "prompt-completion": _Format({"prompt": ("prompt",), "completion": ("completion",)}, _TEMPLATE),
    "instruction": _Format(
        {"instruction": ("instruction",), "output": ("output", "response")}, {"input": ("input",), **_SYSTEM, **_IMAGES}
    ),
    "input-output": _Format({"input": ("input", "question"), "output": ("output", "answer")}, _SYSTEM | _IMAGES),
    "text": _Format({"text": ("text",)}, {}),
    "tokens": _Format(
        {"input_ids": ("input_ids", "tokens")},
        {"labels": ("labels",), "loss_mask": LOSS_MASK, "attention_mask": ("attention_mask",)},
    ),
    "preference": _Format(
        {"chosen": ("chosen",), "rejected": ("rejected",)}, {"prompt": ("prompt",), "margin": ("margin",), **_TEMPLATE}
    ),
    "unpaired-preference": _Format(
        {"prompt": ("prompt",), "completion": ("completion",), "label": ("label",)}, _TEMPLATE
    ),
    "prompt": _Format({"prompt": ("prompt",)}, {}),
    "question": _Format({"question": ("question", "problem", "instruction", "input")}, _SYSTEM),
}
"""What each format needs and takes: forge's name, then the column names that it goes by. In the order of detection."""

_LISTS = {"messages": "role", "sharegpt": "from"}


def detect(
    format: str,  # noqa: A002
    columns: Mapping[str, str],
    first: Mapping[str, Any],
    where: str,
    fitting: Sequence[str] = tuple(FORMATS),
    whose: str = 'method = "sft"',
) -> Shape:
    """Return the shape of a source.

    Args:
        format: The job's format, or ``"auto"``.
        columns: The job's names: what forge calls a column, and what the source calls it.
        first: The first row.
        where: The source's name for errors.
        fitting: The formats that can be trained on, in the order of detection.
        whose: Who trains on them, for errors.

    Raises:
        DataError: The columns fit no format, or not the one that the job names.
    """
    if format != "auto" and format not in fitting:
        raise DataError(
            f'format = "{format}" cannot be used under {whose}',
            f"it trains on {' or '.join(fitting)}",
            "change one of them",
        )
    there = ", ".join(map(repr, first)) or "none"
    missing = [column for column in columns.values() if column not in first]
    if missing:
        raise DataError(f"{where} has no column {missing[0]!r}", f"its columns are {there}", "mend [data] columns")
    wanted = list(fitting) if format == "auto" else [format]
    named = {name: FORMATS[name].names() for name in wanted}
    fitting = [name for name in wanted if set(columns) <= named[name]]
    if not fitting:
        known = sorted(set().union(*named.values()))
        stranger = next((name for name in columns if name not in known), None)
        problem = f"{stranger!r} is no name of forge" if stranger else f"no format has {' and '.join(columns)} together"
        raise DataError("[data] columns cannot be used", problem, f"the names are {', '.join(known)}")
    for name in fitting:
        if shape := _match(name, columns, first):
            return shape
    needs = "; ".join(f"{name} needs {_describe(name)}" for name in wanted)
    what = f"{where} is not of the format {format}" if format != "auto" else f"the format of {where} is not known"
    # Not where the job names a format: a row that lacks a column of it may well be a prompt alone.
    others = (name for name in FORMATS if name not in wanted and _match(name, columns, first))
    if format == "auto" and (other := next(others, None)):
        what = f"{where} has rows of the format {other}, which {whose} cannot train on"
    raise DataError(
        what, f"its columns are {there}, and {needs}", "name the columns in [data] columns, or mend the file"
    )


def _describe(name: str) -> str:
    text = " and ".join("/".join(aliases) for aliases in FORMATS[name].needs.values())
    if name in _LISTS:
        text += ' of {"role", "content"}' if name == "messages" else ' of {"from", "value"}'
    return text


def _match(name: str, columns: Mapping[str, str], first: Mapping[str, Any]) -> Shape | None:
    used: dict[str, str] = dict(columns)
    for key, aliases in FORMATS[name].needs.items():
        found = used.get(key) or next((alias for alias in aliases if alias in first), None)
        if found is None:
            return None
        if name in _LISTS and not _is_list_of(_loosely_parsed(first[found]), _LISTS[name]):
            found = next((a for a in aliases if _is_list_of(_loosely_parsed(first.get(a)), _LISTS[name])), None)
            if found is None or key in columns:
                return None
        used[key] = found
    for key, aliases in FORMATS[name].takes.items():
        found = used.get(key) or next((alias for alias in aliases if alias in first), None)
        if found is not None:
            used[key] = found
    kept = name in ("prompt", "question")  # all other columns go to reward functions
    ignored = () if kept else tuple(column for column in first if column not in used.values())
    return Shape(name, used, ignored, auto_images="images" not in columns)


def _is_list_of(value: Any, key: str) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and key in value[0]


def _loosely_parsed(value: Any) -> Any:
    try:
        return parsed(value, "")
    except BadRow:
        return None

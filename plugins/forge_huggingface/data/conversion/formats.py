"""Tell the format of a source by its columns.

Data sets call the same thing by many names. Here, and only here, the names of columns are known: later modules see
:class:`~forge_huggingface.rows.Row`. What was taken and what was left out is reported, because a column that is
ignored without a word is how training goes wrong unseen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from forge.api import DataError
from forge_huggingface.data.conversion.columns import Columns, blank
from forge_huggingface.data.conversion.ids import LOSS_MASK
from forge_huggingface.data.conversion.messages import is_list_of, written_messages
from forge_huggingface.data.conversion.roles import Speech
from forge_huggingface.data.conversion.shape import Shape
from forge_huggingface.data.conversion.templates import Wording

if TYPE_CHECKING:
    from forge.api import Source

Names = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Format:
    """What a format needs and takes: forge's name of a column, and all the names that it goes by.

    Attributes:
        needs: What a row must have.
        takes: What it may have.
        instead: Other columns that do instead of those that it needs.
        lists: The columns that hold messages, if they are what the format is told by.
        speaks: Whether its rows may be messages.
    """

    needs: Names
    takes: Names
    instead: tuple[Names, ...] = ()
    lists: tuple[str, ...] = ()
    speaks: bool = True

    def names(self) -> dict[str, tuple[str, ...]]:
        """Return all columns."""
        return {name: columns for names in (self.takes, *self.instead, self.needs) for name, columns in names.items()}


_IMAGES: Names = {"images": ("images", "image")}
_TEMPLATE: Names = {
    "tools": ("tools", "functions"),
    "chat_template_kwargs": ("chat_template_kwargs",),
    **_IMAGES,
}
_SYSTEM: Names = {"system": ("system", "system_prompt")}
_HISTORY: Names = {"history": ("history",)}
_LIST: Names = {"messages": ("messages", "conversation", "conversations")}
_QUESTION: Names = {"question": ("question", "problem", "query")}
_INSTRUCTION: Names = {"instruction": ("instruction",)}
_INPUT: Names = {"input": ("input",)}
_LABEL: Names = {"label": ("label", "labels")}
_BOTH: Names = {"prompt": ("prompt",), "completion": ("completion",)}

FORMATS: Mapping[str, Format] = {
    "messages": Format(_LIST, _SYSTEM | _TEMPLATE, lists=("messages",)),
    "sharegpt": Format(
        {"conversations": ("conversations", "conversation", "messages")}, _SYSTEM | _TEMPLATE, lists=("conversations",)
    ),
    "prompt-completion": Format(_BOTH, _TEMPLATE),
    "instruction": Format(
        _INSTRUCTION | {"output": ("output", "response", "answer")},
        {"input": ("input", "context"), **_SYSTEM, **_HISTORY, **_IMAGES},
        speaks=False,
    ),
    "input-output": Format(
        {
            "input": ("question", "problem", "query", "input"),
            "output": ("output", "answer", "response", "solution"),
        },
        _SYSTEM | _HISTORY | _IMAGES,
        speaks=False,
    ),
    "text": Format({"text": ("text",)}, {}, speaks=False),
    "tokens": Format(
        {"input_ids": ("input_ids", "tokens")},
        {"labels": ("labels",), "loss_mask": LOSS_MASK, "attention_mask": ("attention_mask",)},
        speaks=False,
    ),
    "preference": Format(
        {"chosen": ("chosen",), "rejected": ("rejected",)},
        {
            "prompt": ("prompt",),
            **_QUESTION,
            **_INSTRUCTION,
            **_INPUT,
            **_SYSTEM,
            **_HISTORY,
            "margin": ("margin",),
            **_TEMPLATE,
        },
        instead=(_LIST | {"rejected_response": ("rejected_response", "rejected_messages")},),
    ),
    "unpaired-preference": Format(
        {**_BOTH, "label": ("label", "kto_tag")},
        _SYSTEM | _TEMPLATE,
        instead=(_LIST | {"label": ("label", "kto_tag")},),
    ),
    "classification": Format(
        {"text": ("text", "sentence", "sentence1", "premise"), **_LABEL},
        {"text_pair": ("text_pair", "sentence2", "hypothesis"), **_SYSTEM, **_TEMPLATE},
        instead=(_LIST | _LABEL,),
    ),
    "prompt": Format({"prompt": ("prompt",)}, _IMAGES),
    "question": Format(_QUESTION, _SYSTEM | _HISTORY | _IMAGES, instead=(_INSTRUCTION, _INPUT), speaks=False),
}
"""What each format needs and takes, in the order of detection."""

_STYLES = ("messages", "sharegpt")


def detect(
    source: Source,
    rows: Sequence[Mapping[str, Any]],
    where: str,
    fitting: Sequence[str] = tuple(FORMATS),
    whose: str = 'method = "sft"',
) -> Shape:
    """Return the shape of a source.

    The first row that fits a format decides, so an empty first row does not; a row that has the columns of a format
    that comes before, and nothing in them, decides only where all do.

    Args:
        source: The source, with what the job says of its rows.
        rows: Its first rows.
        where: The source's name for errors.
        fitting: The formats that can be trained on, in the order of detection.
        whose: Who trains on them, for errors.

    Raises:
        DataError: The columns fit no format, or not the one that the job names.
    """
    format, columns = source.format, source.columns  # noqa: A001
    if format != "auto" and format not in fitting:
        raise DataError(
            f'format = "{format}" cannot be used under {whose}',
            f"it trains on {' or '.join(fitting)}",
            "change one of them",
        )
    union = dict.fromkeys(column for row in rows for column in row)
    there = ", ".join(map(repr, union)) or "none"
    if source.row_template is not None:
        return _worded(source, union, where, fitting, whose)
    missing = [column for column in columns.values() if column not in union]
    if missing:
        raise DataError(f"{where} has no column {missing[0]!r}", f"its columns are {there}", "mend [data] columns")
    wanted = list(fitting) if format == "auto" else [format]
    named = {name: FORMATS[name].names() for name in wanted}
    able = [name for name in wanted if columns.keys() <= named[name].keys()]
    if not able:
        known = sorted(set().union(*named.values()))
        stranger = next((name for name in columns if name not in known), None)
        problem = f"{stranger!r} is no name of forge" if stranger else f"no format has {' and '.join(columns)} together"
        raise DataError("[data] columns cannot be used", problem, f"the names are {', '.join(known)}")
    speech = Speech(source)
    tests = [_Test(name, columns, speech) for name in able]
    found = _decide(tests, rows)
    if found is not None:
        _check_effect(source, found, where)
        others = _Others(found, tuple(tests))
        return Shape(
            Columns(columns, FORMATS[found].names()),
            speech,
            found,
            source.prompt_prefix or "",
            other=others,
            told=len(tests) == 1,
        )
    needs = "; ".join(f"{name} needs {_describe(name, speech)}" for name in wanted)
    what = f"{where} is not of the format {format}" if format != "auto" else f"the format of {where} is not known"
    # Not where the job names a format: a row that lacks a column of it may well be a prompt alone.
    rest = [_Test(name, columns, speech) for name in FORMATS if name not in wanted]
    if format == "auto" and (other := next((test.name for test in rest if any(map(test.full, rows))), None)):
        what = f"{where} has rows of the format {other}, which {whose} cannot train on"
    raise DataError(
        what, f"its columns are {there}, and {needs}", "name the columns in [data] columns, or mend the file"
    )


class _Test:
    """Tells whether rows are of a format."""

    def __init__(self, name: str, given: Mapping[str, str], speech: Speech) -> None:
        self.name, self.speech = name, speech
        known = FORMATS[name]
        columns = Columns(given, known.names())
        self.ways = [{key: columns.names[key] for key in needs} for needs in (known.needs, *known.instead)]
        self.keys = [role for style, (role, _) in speech.styles.items() if style == name or name not in _STYLES]
        self.lists = known.lists

    def full(self, raw: Mapping[str, Any]) -> bool:
        """Tell whether a row holds all that the format needs."""
        return any(all(self._holds(raw, key, names) for key, names in way.items()) for way in self.ways)

    def empty(self, raw: Mapping[str, Any]) -> bool:
        """Tell whether a row has the columns, and nothing that speaks against the format."""
        return any(
            all(
                any(name in raw and (blank(raw[name]) or self._holds(raw, key, (name,))) for name in names)
                for key, names in way.items()
            )
            for way in self.ways
        )

    def _holds(self, raw: Mapping[str, Any], key: str, names: Sequence[str]) -> bool:
        values = [value for name in names if not blank(value := raw.get(name))]
        if key in self.lists or key == "messages":
            return any(is_list_of(written_messages(value, self.speech), *self.keys) for value in values)
        return bool(values)


@dataclass(frozen=True, slots=True)
class _Others:
    """Tells which other format a row of a source is of, if it is not of the source's own."""

    own: str
    tests: tuple[_Test, ...]

    def __call__(self, raw: Mapping[str, Any]) -> str | None:
        full = [test.name for test in self.tests if test.full(raw)]
        return None if self.own in full else next(iter(full), None)


def _decide(tests: Sequence[_Test], rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the format of the first row that shows it."""
    for raw in rows:
        for test in tests:
            if test.full(raw):
                return test.name
            if test.empty(raw):  # the row lacks something of this format, which others may have
                break
    for tell in (_Test.full, _Test.empty):
        for raw in rows:
            for test in tests:
                if tell(test, raw):
                    return test.name
    return None


def _worded(source: Source, union: Mapping[str, Any], where: str, fitting: Sequence[str], whose: str) -> Shape:
    """Return the shape of a source whose rows the job writes itself."""
    wording = Wording(source.row_pieces(), labelled="classification" in fitting)
    there = ", ".join(map(repr, union)) or "none"
    if missing := [column for column in wording.wanted if column not in union]:
        raise DataError(
            f"{where} has no column {missing[0]!r}, which row_template names",
            f"its columns are {there}",
            "mend [data] row_template; {{ and }} are braces",
        )
    if wording.format not in fitting:
        raise DataError(
            f"[data] row_template makes rows of the format {wording.format}, which {whose} cannot train on",
            f"it trains on {' or '.join(fitting)}",
            "change one of them",
        )
    _check_effect(source, wording.format, where)
    names = FORMATS[wording.format].names()
    return Shape(Columns({}, names), Speech(source), wording.format, source.prompt_prefix or "", wording)


def _check_effect(source: Source, format: str, where: str) -> None:  # noqa: A002
    """Refuse keys that would do nothing to the rows of a format."""
    if source.prompt_prefix and format in {"text", "classification"}:
        raise DataError(
            "[data] prompt_prefix would do nothing",
            f"{where} has rows of the format {format}, which ask nothing",
            "remove it, or write it into row_template",
        )
    for key in ("roles", "message_keys"):
        if getattr(source, key) and not FORMATS[format].speaks:
            raise DataError(
                f"[data] {key} would do nothing",
                f"{where} has rows of the format {format}, without messages",
                "remove it",
            )


def _describe(name: str, speech: Speech) -> str:
    known = FORMATS[name]
    text = ", or ".join(
        " and ".join("/".join(aliases) for aliases in needs.values()) for needs in (known.needs, *known.instead)
    )
    if name in _STYLES:
        text += " of {" + ", ".join(f'"{key}"' for key in speech.styles[name]) + "}"
    return text

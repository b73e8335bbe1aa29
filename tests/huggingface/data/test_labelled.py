"""Rows with labels: what a row says, which classes there are, what is refused, and what is told."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import DataError
from forge.job.job import Job
from forge_huggingface.batches.answers import LabelledBatches
from forge_huggingface.data.labelled import LabelledRows
from forge_huggingface.data.reader import Reader
from forge_huggingface.heads import labels as known
from forge_huggingface.heads.labels import REGRESSION, SEVERAL, SINGLE, Labels
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.templates import Template
from forge_huggingface.rows import BadRow, Record
from support.tiny import CHATML
from support.tiny_encoders import make_encoder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ASKED = {"role": "user", "content": "the sea is wide"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer that puts marks around a text and tells two texts apart, without an end token."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_encoder(tmp_path_factory.mktemp("m") / "m"))


@pytest.fixture
def read(tmp_path: Path, tokenizer: Any) -> Callable[..., list[Record | BadRow]]:
    """Return a function that returns what becomes of rows."""

    def act(
        rows: list[Any], *, labels: Labels | None = None, limit: int = 32, long: str = "truncate", **more: Any
    ) -> list[Record | BadRow]:
        template = more.pop("template", None)
        data = {"path": "rows.jsonl", **more.pop("data", {})}
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        train = {"method": "classification", "labels": more.pop("named", None), **more}
        job = Job.model_validate({"model": {"id": "m"}, "data": data, "train": train})
        job = job.model_copy(update={"folder": tmp_path})
        template = template and Template(name="chatml", text=template, origin="model")
        renderer = Renderer(tokenizer, template, max_seq_length=limit, on_long_row=long, ends=False)
        layout = LabelledRows(job, tokenizer, 0, False, limit, labels)
        return [made for _, made in Reader(job, job.data.all_sources()[0], renderer, layout).rows()]

    return act


def targets(made: list[Record | BadRow]) -> list[Any]:
    return [str(each) if isinstance(each, BadRow) else json.loads(each.columns["target"]) for each in made]


@pytest.mark.parametrize(
    ("labels", "stored"),
    [
        (["no", "yes"], ["no", "yes"]),
        ([0, 3, True, "3"], ["0", "3", "true", "3"]),
        ([["a", "b"], [], [3]], [["a", "b"], [], ["3"]]),
        (['["a", "b"]', "[]"], [["a", "b"], []]),  # as a CSV has it
        (["[a", "b]"], ["[a", "b]"]),
        ([0.5, 2, "1.25"], [0.5, 2.0, 1.25]),
    ],
)
def test_a_label_is_kept_as_the_first_row_has_it(read: Any, labels: list[Any], stored: list[Any]) -> None:
    assert targets(read([{"text": "the sea", "label": label} for label in labels])) == stored


@pytest.mark.parametrize(
    ("first", "label", "words"),
    [
        ("a", None, "has nothing in 'label'"),
        ("a", "  ", "has an empty text in 'label'"),
        ("a", {"x": 1}, "has no label in 'label': it is a dict"),
        ("a", ["b"], "has a list of labels, and the others have one"),
        ("a", 1.5, "has the number 1.5 for a label: the others are names of classes"),
        (["a"], "b", "has one label, and the others a list of them"),
        (["a"], [0, 1, 0], "has the label '0' twice in 'label'"),
        (["a"], [0.0, 1.0], "has no label in 'label': it is 0.0"),
        (["a"], [None], "has no label in 'label': it is None"),
        (0.5, "much", 'has the label "much", which is no number'),
        (0.5, "nan", 'has the label "nan", which is no number'),
        pytest.param(0.5, 10**400, "which is no number", id="too large"),
        (0.5, -100, "has the number -100: transformers takes it for no label"),
    ],
)
def test_a_label_of_another_kind_is_a_bad_row(read: Any, first: Any, label: Any, words: str) -> None:
    good, bad = targets(read([{"text": "the sea", "label": each} for each in (first, label)]))
    assert good == first
    assert words in bad


def test_an_infinite_number_is_a_bad_row() -> None:
    from forge_huggingface.data.conversion.cells import label_of

    for value in (math.inf, math.nan):
        with pytest.raises(BadRow, match="has no number in 'label'"):
            label_of(value, "label", {})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": " "}, "has an empty text in 'text'"),
        ({"text": "\u200b"}, "is empty once it is rendered"),
        ({"text": 3}, "has no text in 'text': it is a int"),
        ({"text": "a\0b"}, "has a NUL character"),
        ({}, "has nothing in 'text'"),
        ({"messages": [ASKED], "tools": [{"type": "function", "function": {"name": "f"}}]}, "has tools"),
    ],
)
def test_a_text_that_cannot_be_read_is_a_bad_row(read: Any, row: Any, words: str) -> None:
    _, bad = read([{"text": "the sea", "label": "a"}, {**row, "label": "a"}])
    assert words in str(bad)


def test_two_texts_are_told_apart_and_cut_at_the_longer_one(read: Any, tokenizer: Any) -> None:
    rows = [
        {"premise": "the sea is wide", "hypothesis": "the wind", "label": 0},
        {"premise": "the sea " * 30, "hypothesis": "the wind", "label": 1},
    ]
    short, long = read(rows, limit=16)
    whole = tokenizer("the sea is wide", "the wind")
    assert (short.columns["input_ids"], short.columns["token_types"]) == (whole["input_ids"], whole["token_type_ids"])
    assert (len(long.columns["input_ids"]), long.parts[0].truncated) == (16, True)
    assert tokenizer.decode(long.columns["input_ids"]).endswith("[SEP] the wind [SEP]")
    batch = LabelledBatches(0, Labels(SINGLE, ("0", "1")))([short.columns, long.columns])
    assert batch["token_type_ids"].shape == batch["input_ids"].shape
    assert batch["labels"].tolist() == [0, 1]


def test_a_single_text_is_what_the_pipeline_reads(read: Any, tokenizer: Any) -> None:
    (made,) = read([{"sentence": "the sea is wide", "label": "a"}])
    assert made.columns["input_ids"] == tokenizer("the sea is wide")["input_ids"]
    assert made.columns["token_types"] == []
    assert "token_type_ids" not in LabelledBatches(0, None)([made.columns])


def test_a_long_text_is_refused_where_the_job_does_not_cut(read: Any) -> None:
    (bad,) = read([{"text": "the sea " * 30, "label": "a"}], limit=16, long="error")
    assert "max_seq_length is 16" in str(bad)


def test_messages_go_through_the_chat_template_or_are_joined(read: Any, tokenizer: Any) -> None:
    rows = [{"messages": [ASKED, {"role": "assistant", "content": "the wind"}], "label": "a"}]
    (joined,) = read(rows)
    assert joined.columns["input_ids"] == tokenizer("the sea is wide\n\nthe wind")["input_ids"]
    (written,) = read(rows, template=CHATML, limit=64)
    text = "<|im_start|>user\nthe sea is wide<|im_end|>\n<|im_start|>assistant\nthe wind<|im_end|>\n"
    assert written.columns["input_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]


def test_several_columns_become_a_text_by_a_template_of_the_row(read: Any, tokenizer: Any) -> None:
    (made,) = read([{"title": "the sea", "body": "is wide", "label": 3}], data={"row_template": "{title} {body}"})
    assert made.columns["input_ids"] == tokenizer("the sea is wide")["input_ids"]
    assert targets([made]) == ["3"]


def test_a_class_that_there_is_not_is_a_bad_row(read: Any) -> None:
    rows = [{"text": "the sea", "label": label} for label in ("a", "c")]
    assert "which no training row has: there are a, b" in targets(read(rows, labels=Labels(SINGLE, ("a", "b"))))[1]
    assert "which [train] labels does not name: there are a, b" in targets(read(rows, named=["a", "b"]))[1]


def test_a_job_names_the_classes_of_numbers() -> None:
    names = ["no", "yes"]
    assert [known.fitted(label, SINGLE, names, named=True) for label in (1, "0", "yes")] == ["yes", "no", "yes"]
    assert known.fitted(("0", "1"), SEVERAL, names, named=True) == ("no", "yes")
    for label, there in ((2, names), (0, ["1", "no"])):
        with pytest.raises(BadRow, match=r"\[train\] labels does not name"):
            known.fitted(label, SINGLE, there, named=True)


def test_classes_are_those_of_the_rows_in_an_order_that_stays() -> None:
    def names(found: list[Any], kind: str = SINGLE, own: list[str] | None = None, **options: Any) -> Any:
        return known.settle(found, options, kind, own).names

    assert names(["b", "a", "b"]) == ("a", "b")
    assert names(["10", "9", "-1", "x"]) == ("-1", "9", "10", "x")
    assert names([("b",), (), ("a", "b")], SEVERAL) == ("a", "b")
    assert names(["b", "a"], labels=["c", "b", "a"]) == ("c", "b", "a")
    assert names(["b", "a"], own=["b", "a"]) == ("b", "a")  # as the model that is trained further has them
    assert names(["b", "a"], own=["c", "a"]) == ("a", "b")


@pytest.mark.parametrize(
    ("found", "kind", "words"),
    [
        (["a", "a"], SINGLE, "there are no labels to tell apart"),
        ([(), ()], SEVERAL, "there are no labels to tell apart"),
        ([str(number) for number in range(40)], SINGLE, "there are 40 labels in 40 rows"),
        ([1.0, 2.0], REGRESSION, "whether the labels are numbers or classes"),
    ],
)
def test_labels_that_teach_nothing_end_the_run(found: list[Any], kind: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        known.settle(found, {}, kind, None)
    if kind == REGRESSION:
        assert known.settle(found, {"problem_type": REGRESSION}, kind, None) == Labels(REGRESSION)


def test_what_speaks_against_labels_is_told() -> None:
    labels = Labels(SINGLE, ("a", "b", "c"))
    rows = [(b"1", "a"), (b"2", "a"), (b"1", "b")]
    summary = known.described(labels, [label for _, label in rows])
    said = [each["message"] for each in known.doubts(labels, summary, rows)]
    assert said == [
        "no training row has the label c",
        "one training row only has the label b",
        "1 training row with the tokens of another row has another label",
    ]
    assert known.said(summary) == "3 labels: a 2, b 1, c 0"
    assert known.said(known.described(Labels(REGRESSION), [0.5, 1.5])) == "a number from 0.5 to 1.5, 1 on average"


def test_a_models_own_labels_are_read_from_its_files(tmp_path: Path) -> None:
    def write(**config: Any) -> list[str] | None:
        (tmp_path / "config.json").write_text(json.dumps(config))
        return known.own_labels(tmp_path)

    head = {"architectures": ["BertForSequenceClassification"]}
    assert write(**head, id2label={"1": "b", "0": "c"}) == ["c", "b"]
    assert write(**head, id2label={"0": "LABEL_0", "1": "LABEL_1"}) is None
    assert write(architectures=["BertForTokenClassification"], id2label={"0": "c"}) is None
    assert write(**head, id2label={"x": "c"}) is None
    (tmp_path / known.FILE).write_text(json.dumps({"labels": ["z", "y"]}))
    assert known.own_labels(tmp_path) == ["z", "y"]

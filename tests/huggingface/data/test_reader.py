"""Rows that end a run, and formats that are handed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from forge.errors import DataError
from forge.job.job import Job
from forge_huggingface.data.layout import Layout
from forge_huggingface.data.layouts import LAYOUTS
from forge_huggingface.data.reader import Reader
from forge_huggingface.rendering.render import Renderer
from support.tiny import make_tokenizer


def reader(folder: Path, rows: list[Any], layout: type[Layout] = Layout, **more: Any) -> Reader:
    from transformers import AutoTokenizer

    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"path": "rows.jsonl", "on_bad_row": "drop"}
    job = Job.model_validate({"model": {"id": "m"}, "data": data}).model_copy(update={"folder": folder})
    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(folder / "tokenizer", template=None))
    renderer = Renderer(
        tokenizer, None, train_on="all", max_seq_length=64, on_long_row="truncate", stops=frozenset({1})
    )
    return Reader(job, job.data.all_sources()[0], renderer, layout(job, tokenizer, 0, False, 64), **more)


def test_a_row_that_nobody_can_train_on_ends_the_run_even_where_bad_rows_are_dropped(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": [{"type": "audio"}]}, {"role": "assistant", "content": "a"}]}]
    with pytest.raises(DataError) as caught:
        list(reader(tmp_path, rows).rows())
    assert caught.value.what == "rows.jsonl:1 has a message with a part of type 'audio'"


def test_a_layout_without_chat_templates_takes_messages_without_one(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}]
    with pytest.raises(DataError, match="need a chat template"):
        list(reader(tmp_path, rows).rows())
    ((_, made),) = reader(tmp_path, rows, LAYOUTS["seq2seq"]).rows()
    assert not isinstance(made, Exception)


def test_formats_that_are_handed_in_are_looked_for_instead_of_those_of_the_layout(tmp_path: Path) -> None:
    rows = [{"input": "a", "output": "b", "text": "c"}]
    made = reader(tmp_path, rows, formats=("text", "input-output"))
    list(made.rows())
    assert made.shape
    assert made.shape.format == "text"


@pytest.mark.parametrize("margin", [float("nan"), float("inf"), 10**400, -1e300])
def test_a_margin_that_no_loss_can_be_made_of_is_a_bad_row(tmp_path: Path, margin: float) -> None:
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c", "margin": each} for each in (1, margin)]
    (_, first), (origin, second) = reader(tmp_path, rows, LAYOUTS["pairs"]).rows()
    assert not isinstance(first, Exception)
    assert origin == "rows.jsonl:2"
    assert "has a margin that no loss can be made of" in str(second)

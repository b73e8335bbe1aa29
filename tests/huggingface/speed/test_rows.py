"""How many rows there are and how long, from the first megabytes of their files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.speed import rows
from forge_huggingface.speed.rows import Uncounted, extent
from support.measuring import make_job

if TYPE_CHECKING:
    from pathlib import Path


def job(folder: Path, data: dict[str, Any], **train: Any) -> Any:
    made = make_job({"data": data}, num_train_epochs=1, max_steps=-1, **train)
    return made.model_copy(update={"folder": folder})


def write(path: Path, lengths: list[int]) -> None:
    """Write rows of so many tokens, four bytes each."""
    head = len(json.dumps({"text": ""}))
    path.write_text("".join(json.dumps({"text": "x" * (4 * length - head)}) + "\n" for length in lengths))


def test_batches_are_filled_up_to_their_longest_row(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [10, 30, 20, 20])
    found = extent(job(tmp_path, {"path": "a.jsonl"}, gradient_accumulation_steps=2), 64)
    assert (found.steps, found.length, found.tokens) == (1, 25.0, 100.0)
    cut = extent(job(tmp_path, {"path": "a.jsonl"}), 16)
    assert (cut.steps, cut.length) == (2, 16.0)


def test_packed_rows_are_as_long_as_the_limit(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [16] * 16)
    found = extent(job(tmp_path, {"path": "a.jsonl", "packing": True}), 64)
    assert (found.steps, found.length, found.tokens) == (2, 64.0, 128.0)


def test_held_out_rows_weights_and_epochs_count(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [16] * 40)
    write(tmp_path / "b.jsonl", [16] * 20)
    sources = [{"path": "a.jsonl", "weight": 0.5}, {"path": ["b.jsonl"]}]
    assert extent(job(tmp_path, {"path": None, "sources": sources, "eval_size": 0.1}), 64).steps == 18
    assert extent(job(tmp_path, {"path": "*.jsonl", "eval_size": 10}), 64).steps == 25
    twice = make_job({"data": {"path": "a.jsonl"}}, num_train_epochs=2, max_steps=-1).model_copy(
        update={"folder": tmp_path}
    )
    assert extent(twice, 64).steps == 40


def test_a_large_file_is_told_by_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LOOKED_AT", 1000)
    write(tmp_path / "a.jsonl", [16] * 300)
    write(tmp_path / "b.jsonl", [16] * 100)
    assert extent(job(tmp_path, {"path": ["a.jsonl", "b.jsonl"]}), 64).steps == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nobody/rows", "the rows of nobody/rows are not on this machine"),
        ("rows.parquet", "rows of rows.parquet are not counted while planning"),
        ("empty.jsonl", "there are no rows in empty.jsonl"),
    ],
)
def test_what_cannot_be_counted_says_why(path: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(Uncounted, match=why):
        extent(job(tmp_path, {"path": path}), 64)


def test_a_batch_that_is_decided_later_is_not_guessed_unless_the_rows_of_a_step_are_told(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [16] * 32)
    with pytest.raises(Uncounted, match="decided when the rows are there"):
        extent(job(tmp_path, {"path": "a.jsonl"}, per_device_train_batch_size="auto"), 64)
    assert extent(job(tmp_path, {"path": "a.jsonl"}, per_device_train_batch_size="auto", batch_size=8), 64).steps == 4

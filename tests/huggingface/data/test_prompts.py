"""Prompts as they are stored and as trainers get them."""

from __future__ import annotations

import json
from pathlib import Path

from forge_huggingface.data.store import Store, digest
from forge_huggingface.rows import put_back


def stored(path: Path, place: str, /, **columns: str) -> Store:
    with Store(path, "prompts") as store:
        store.add(place, {"prompt": json.dumps("1+1"), "columns": json.dumps(columns)}, 3, 0, 3)
    return store


def test_a_prompt_says_which_row_it_was(tmp_path: Path) -> None:
    (row,) = stored(tmp_path / "a.arrow", "rows.jsonl:7", answer="2").open()
    assert row == {"prompt": "1+1", "answer": "2", "origin": "rows.jsonl:7"}
    (own,) = stored(tmp_path / "b.arrow", "rows.jsonl:7", origin="a column of the rows").open()
    assert own["origin"] == "a column of the rows"


def test_the_name_of_a_file_does_not_change_what_its_rows_are(tmp_path: Path) -> None:
    stores = [stored(tmp_path / f"{place[0]}.arrow", place, answer="2") for place in ("rows.jsonl:7", "moved.jsonl:7")]
    assert len({digest([store.open().data]) for store in stores}) == 1


def test_a_column_that_a_trainer_would_take_for_its_own_is_set_apart(tmp_path: Path) -> None:
    columns = {"image": "none", "completions": "3", "answer": "2"}
    (row,) = stored(tmp_path / "a.arrow", "rows.jsonl:7", **columns).open()
    assert {"image", "completions"}.isdisjoint(row)
    assert put_back(row) == {"prompt": "1+1", "origin": "rows.jsonl:7", **columns}

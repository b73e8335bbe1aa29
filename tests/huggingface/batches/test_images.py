"""Batches of rows with images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.looking import Collated, make_pairs

if TYPE_CHECKING:
    from support.looking import Projects


def test_both_sides_of_a_batch_see_the_image_and_only_answers_are_in_the_loss(projects: Projects) -> None:
    project = projects("idefics3")
    make_pairs(project)
    project.write(train={"method": "dpo"})
    case = Collated(project)
    data, rows = case.data, [case.data.train[index] for index in range(2)]
    assert data.layout == "pairs"
    batch = data.collator(None)(rows)
    assert batch["input_ids"].shape[0] == 4
    assert batch["pixel_values"].shape[0] == 4
    for index, (row, side) in enumerate((row, side) for side in ("chosen", "rejected") for row in rows):
        ids = batch["input_ids"][index][batch["completion_mask"][index] == 1].tolist()
        assert ids == [label for label in row[f"{side}_labels"] if label != -100]

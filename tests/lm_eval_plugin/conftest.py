"""Tasks of the lm-evaluation-harness that need no network: YAML beside questions in JSON Lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

HEAD = """\
task: {task}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {file}
    train: {file}
test_split: test
fewshot_split: train
num_fewshot: 1
"""

CHOICE = """\
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""

WORDS = """\
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{choices[label]}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""

TEXT = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
"""

GROUP = """\
group: colours
task: [colours_choice, colours_more]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
"""


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A folder with a task of each kind, and a group of two."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = folder / "questions.jsonl"
    choices = ["red", "green", "blue"]
    asked = [
        {"question": f"Which colour has the number {number}?", "choices": choices, "label": number % 3}
        for number in range(12)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    for name, body in (
        ("colours_choice", CHOICE),
        ("colours_more", CHOICE),
        ("colours_words", WORDS),
        ("colours_text", TEXT),
    ):
        (folder / f"{name}.yaml").write_text(HEAD.format(task=name, file=rows) + body, encoding="utf-8")
    (folder / "group.yaml").write_text(GROUP, encoding="utf-8")
    return folder

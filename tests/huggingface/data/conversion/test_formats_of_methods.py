"""Formats of preferences, ratings and prompts: told by columns under the method, and strict about what fits it."""

from __future__ import annotations

from typing import Any

import pytest

from forge.errors import DataError
from forge_huggingface.rows import Completion, Conversation, Pair, Prompt, Rated
from support.shapes import shaped

ASKED, GOOD, BAD = (
    [{"role": role, "content": text}]
    for role, text in (("user", "Hi"), ("assistant", "Hello"), ("assistant", "Go away"))
)


@pytest.mark.parametrize(
    ("method", "raw", "name", "row"),
    [
        (
            "dpo",
            {"prompt": "a", "chosen": "b", "rejected": "c"},
            "preference",
            Pair(Completion("a", "b"), Completion("a", "c")),
        ),
        (
            "reward",
            {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2},
            "preference",
            Pair(Completion("a", "b"), Completion("a", "c"), 2.0),
        ),
        ("dpo", {"chosen": "a b", "rejected": "a c"}, "preference", Pair(Completion("a", " b"), Completion("a", " c"))),
        (
            "cpo",
            {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
            "preference",
            Pair(Conversation((*ASKED, *GOOD), 1, turns=False), Conversation((*ASKED, *BAD), 1, turns=False)),
        ),
        (
            "orpo",
            {"chosen": ASKED + GOOD, "rejected": ASKED + BAD},
            "preference",
            Pair(Conversation((*ASKED, *GOOD), 1, turns=False), Conversation((*ASKED, *BAD), 1, turns=False)),
        ),
        (
            "dpo",
            {"prompt": ASKED, "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
            "preference",
            Pair(Conversation((*ASKED, *GOOD), 1, turns=False), Conversation((*ASKED, *BAD), 1, turns=False)),
        ),
        (
            "kto",
            {"prompt": "a", "completion": "b", "label": 1},
            "unpaired-preference",
            Rated(Completion("a", "b"), True),
        ),
        (
            "kto",
            {"prompt": ASKED, "completion": BAD, "label": False},
            "unpaired-preference",
            Rated(Conversation((*ASKED, *BAD), 1, turns=False), False),
        ),
        ("grpo", {"prompt": ASKED, "answer": "4"}, "prompt", Prompt(tuple(ASKED), {"answer": "4"})),
        ("rloo", {"prompt": "a", "answer": "4"}, "prompt", Prompt("a", {"answer": "4"})),
        (
            "grpo",
            {"question": "2 + 2?", "answer": "4"},
            "question",
            Prompt(({"role": "user", "content": "2 + 2?"},), {"answer": "4"}),
        ),
        (
            "distill",
            {"problem": "x", "system": "Be short."},
            "question",
            Prompt(
                ({"role": "system", "content": "Be short."}, {"role": "user", "content": "x"}), {"system": "Be short."}
            ),
        ),
    ],
)
def test_a_row_is_read_as_the_method_needs_it(method: str, raw: dict[str, Any], name: str, row: Any) -> None:
    found = shaped(raw, method=method)
    assert (found.format, found.convert(raw)) == (name, row)


def test_the_same_columns_mean_what_the_method_can_train_on() -> None:
    raw = {"prompt": "a", "completion": "b", "label": True}
    assert [shaped(raw, method=method).format for method in ("sft", "kto", "grpo")] == [
        "prompt-completion",
        "unpaired-preference",
        "prompt",
    ]


def test_columns_for_rewards_are_not_called_ignored() -> None:
    for method, raw, ignored in (
        ("grpo", {"prompt": "a", "wanted": 1}, ()),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "c", "score": 1}, ("score",)),
    ):
        found = shaped(raw, method=method)
        found.convert(raw)
        assert found.ignored == ignored


def test_a_column_of_another_name_is_named_by_the_job() -> None:
    raw = {"q": "a", "yes": "b", "no": "c"}
    found = shaped(raw, method="dpo", columns={"prompt": "q", "chosen": "yes", "rejected": "no"})
    assert found.convert(raw) == Pair(Completion("a", "b"), Completion("a", "c"))


@pytest.mark.parametrize(
    ("method", "raw", "format", "words"),
    [
        (
            "dpo",
            {"messages": ASKED + GOOD},
            "auto",
            'x.jsonl has rows of the format messages, which method = "dpo" cannot train on',
        ),
        ("dpo", {"prompt": "a", "completion": "b", "label": True}, "auto", "has rows of the format prompt-completion"),
        ("kto", {"prompt": "a", "chosen": "b", "rejected": "c"}, "auto", "has rows of the format preference"),
        ("sft", {"chosen": "b", "rejected": "c"}, "auto", "has rows of the format preference"),
        ("kto", {"a": 1}, "auto", "unpaired-preference needs prompt and completion and label"),
        (
            "grpo",
            {"a": 1},
            "auto",
            "question needs question/problem/query, or instruction, or input",
        ),
        ("dpo", {"prompt": "a"}, "messages", 'format = "messages" cannot be used under method = "dpo"'),
        ("dpo", {"prompt": "a"}, "messages", "it trains on preference"),
        ("grpo", {"prompt": "a"}, "text", "it trains on prompt or question"),
        ("dpo", {"prompt": "a", "chosen": "b"}, "preference", "x.jsonl is not of the format preference"),
    ],
)
def test_rows_that_do_not_fit_the_method_are_refused_with_what_it_needs(
    method: str,
    raw: dict[str, Any],
    format: str,  # noqa: A002
    words: str,
) -> None:
    with pytest.raises(DataError) as caught:
        shaped(raw, method=method, format=format)
    assert words in str(caught.value)

"""Pairs and ratings, in the shapes in which data sets keep them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from forge_huggingface.rows import BadRow, Completion, Conversation, Pair, Rated
from support.shapes import converted, says, shaped, spoken

ASKED, GOOD, BAD = says(user="Hi"), says(assistant="Hello"), says(assistant="Go away")
PAIR = Pair(Conversation((*ASKED, *GOOD), 1, turns=False), Conversation((*ASKED, *BAD), 1, turns=False))
SHAREGPT = [{"from": "human", "value": "Hi"}]


def pair(raw: dict[str, Any], **keys: Any) -> Pair:
    (row,) = converted(raw, method="dpo", **keys)
    assert isinstance(row, Pair)
    return row


def bad(raw: dict[str, Any], **keys: Any) -> BadRow:
    with pytest.raises(BadRow) as caught:
        converted(raw, **({"method": "dpo"} | keys))
    return caught.value


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "Hi", "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": " Hi\n", "chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {"prompt": "Hi", "chosen": GOOD, "rejected": BAD},
        {"prompt": "Hi", "chosen": GOOD[0], "rejected": BAD[0]},
        {"prompt": ASKED, "chosen": "Hello", "rejected": "Go away"},
        {"prompt": json.dumps(ASKED), "chosen": json.dumps(GOOD), "rejected": json.dumps(BAD)},
        {"prompt": ASKED, "chosen": GOOD[0], "rejected": BAD[0]},
        {"chosen": ASKED + GOOD, "rejected": ASKED + BAD},
        {
            "chosen": [*SHAREGPT, {"from": "gpt", "value": "Hello"}],
            "rejected": [*SHAREGPT, {"from": "gpt", "value": "Go away"}],
        },
        {
            "conversations": SHAREGPT,
            "chosen": {"from": "gpt", "value": "Hello"},
            "rejected": {"from": "gpt", "value": "Go away"},
        },
        {"messages": ASKED + GOOD, "rejected_response": "Go away"},
        {"messages": ASKED + GOOD, "rejected_response": BAD},
        {"messages": ASKED + GOOD, "rejected_messages": ASKED + BAD},
        {"instruction": "Hi", "input": "", "chosen": "Hello", "rejected": "Go away"},
        {"question": "Hi", "chosen": "Hello", "rejected": "Go away"},
        {"query": "Hi", "chosen": GOOD, "rejected": BAD},
        {"input": "Hi", "chosen": "Hello", "rejected": "Go away"},
    ],
)
def test_the_same_pair_is_written_in_many_ways(raw: dict[str, Any]) -> None:
    assert pair(raw) == PAIR


def test_a_question_may_have_a_system_text_an_input_and_a_history() -> None:
    raw = {"system": "s", "instruction": "a", "input": "b", "history": [["q", "r"]], "chosen": "c", "rejected": "d"}
    found = pair(raw)
    said = [("system", "s"), ("user", "q"), ("assistant", "r"), ("user", "a\n\nb")]
    assert spoken(found.chosen) == [*said, ("assistant", "c")]
    assert spoken(found.rejected) == [*said, ("assistant", "d")]
    assert isinstance(found.chosen, Conversation)
    assert found.chosen.start == 4
    found = pair({"system": "s", "chosen": ASKED + GOOD, "rejected": ASKED + BAD})
    assert isinstance(found.rejected, Conversation)
    assert (spoken(found.rejected)[0], found.rejected.start) == (("system", "s"), 2)
    found = pair({"system": "s", "messages": ASKED + GOOD, "rejected_messages": ASKED + BAD})
    assert [role for role, _ in spoken(found.rejected)] == ["system", "user", "assistant"]


def test_a_prompt_of_plain_text_stays_one_and_what_is_not_needed_is_listed() -> None:
    raw = {"prompt": "a", "question": "b", "chosen": "c", "rejected": "d", "prompt_id": "1"}
    shape = shaped(raw, method="dpo")
    assert shape.convert(raw) == Pair(Completion("a", "c"), Completion("a", "d"))
    assert shape.ignored == ("question", "prompt_id")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"prompt": "Ho", "chosen": ASKED + GOOD, "rejected": ASKED + BAD}, "has a text in 'prompt' that is not what"),
        ({"chosen": GOOD, "rejected": BAD}, "has no prompt: chosen and rejected do not begin with the same question"),
        (
            {"chosen": ASKED + GOOD, "rejected": says(user="Ho") + BAD},
            "has no prompt: chosen and rejected do not begin with the same question",
        ),
        ({"prompt": ASKED, "chosen": says(user="Ho") + GOOD, "rejected": BAD}, "begins with another question"),
        ({"chosen": "Hello", "rejected": GOOD}, "mixes a string and messages"),
        ({"instruction": "a", "question": "b", "chosen": "c", "rejected": "d"}, "several columns that could be its q"),
        (
            {"messages": ASKED, "rejected_response": "b"},
            "does not end with an assistant turn: its last turn is by user",
        ),
        ({"chosen": ASKED + GOOD, "rejected": ASKED + GOOD}, "has the same answer as chosen and as rejected"),
        ({"chosen": "a", "rejected": ""}, "has an empty text in 'rejected'"),
    ],
)
def test_a_pair_without_a_prompt_of_its_own_is_refused(raw: dict[str, Any], words: str) -> None:
    assert words in str(bad(raw))


@pytest.mark.parametrize("name", ["frage", "system"])
def test_texts_that_share_no_beginning_are_no_pair_beside_a_column_that_may_be_the_prompt(name: str) -> None:
    raw = {name: "A colour?", "chosen": "Blue.", "rejected": "Five."}
    found = bad(raw)
    assert f"chosen and rejected share no beginning, and '{name}' is not known to be one" in str(found)
    assert found.do
    assert f'columns = {{ prompt = "{name}" }}' in found.do
    assert pair(raw, columns={"prompt": name}).chosen == Completion("A colour?", "Blue.")
    assert spoken(pair(raw, columns={"question": name}).chosen) == [("user", "A colour?"), ("assistant", "Blue.")]


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": ASKED + GOOD, "label": "True"},
        {"messages": ASKED + GOOD, "kto_tag": True},
        {"conversations": [*SHAREGPT, {"from": "gpt", "value": "Hello"}], "label": 1.0},
        {"prompt": ASKED, "completion": GOOD, "label": "1"},
        {"prompt": "Hi", "completion": GOOD, "label": True},
    ],
)
def test_a_rating_is_written_in_many_ways(raw: dict[str, Any]) -> None:
    (row,) = converted(raw, method="kto")
    assert row == Rated(PAIR.chosen, good=True)
    key = "kto_tag" if "kto_tag" in raw else "label"
    for no in (False, 0, "false", "0"):
        (row,) = converted({**raw, key: no}, method="kto")
        assert isinstance(row, Rated)
        assert not row.good


def test_a_rating_of_a_question_is_refused() -> None:
    assert "does not end with an assistant turn" in str(bad({"messages": ASKED, "label": True}, method="kto"))
    assert "has no truth value in 'label': it is 'yes'" in str(bad({"messages": ASKED, "label": "yes"}, method="kto"))


def test_json_that_is_no_message_is_an_answer() -> None:
    row = {"prompt": "Where?", "completion": '{"from": "Berlin", "to": "Rome"}'}
    (made,) = converted(row)
    assert isinstance(made, Completion)
    assert made.completion == row["completion"]
    row = {"prompt": "Who?", "completion": '[{"role": "user", "name": "Ann"}]'}
    (made,) = converted(row)
    assert isinstance(made, Completion)
    assert made.completion == row["completion"]


def test_an_answer_that_is_one_json_object_is_a_message_only_beside_messages() -> None:
    one, two = json.dumps(GOOD[0]), json.dumps(BAD[0])
    assert converted({"prompt": "Hi", "completion": one}) == [Completion("Hi", one)]
    assert converted({"prompt": "Hi", "completion": GOOD[0]}) == [PAIR.chosen]
    for prompt in (ASKED, ASKED[0], json.dumps(ASKED)):
        assert converted({"prompt": prompt, "completion": one}) == [PAIR.chosen]
        assert pair({"prompt": prompt, "chosen": one, "rejected": two}) == PAIR
    texts = Pair(Completion("Hi", one), Completion("Hi", two))
    assert pair({"prompt": "Hi", "chosen": one, "rejected": two}) == texts
    assert pair({"prompt": "Hi", "chosen": one, "rejected": BAD}) == PAIR
    assert pair({"prompt": "Hi", "chosen": GOOD, "rejected": two}) == PAIR
    assert pair({"prompt": "Hi", "chosen": one, "rejected": "no"}).chosen == Completion("Hi", one)
    # A key twice in an answer is the answer's own affair.
    twice = '{"role": "x", "a": 1, "a": 2}'
    assert converted({"prompt": "Hi", "completion": twice}) == [Completion("Hi", twice)]

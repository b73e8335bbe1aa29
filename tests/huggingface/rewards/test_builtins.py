"""The built-in rewards on answers as models write them: what scores, what does not, and what feedback gives away."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from forge_huggingface.rewards.builtin import json_schema, math_equal
from forge_huggingface.rewards.builtin.choice import chosen_letter
from forge_huggingface.rewards.builtin.math_equal import final_answer
from forge_huggingface.rewards.builtin.registry import BUILTINS
from forge_huggingface.rewards.reward import RewardError


def numbers(scores: list[Any]) -> list[float | None]:
    return [score.score for score in scores]


@pytest.mark.parametrize(
    ("text", "answer", "score"),
    [
        ("17 + 25 = 42", "42", 1.0),
        ("17 + 25 = 42", 42, 1.0),
        ("17 + 25 = 43", "42", 0.0),
        ("So 17 and 25 make 42.", "42", 1.0),
        (r"We get \boxed{\frac{1}{2}}.", "0.5", 1.0),
        (r"We get \boxed{0.5}.", r"\frac{1}{2}", 1.0),
        (r"$x = \frac{2}{4}$", "1/2", 1.0),
        (r"\boxed{42}", "She has 2 * 21 = <<2*21=42>>42 left.\n#### 42", 1.0),
        (r"The total is 1,234 apples", "1234", 1.0),
        (r"\boxed{41} no, \boxed{42}", "42", 1.0),
        (r"\boxed{42} or rather \boxed{41}", "42", 0.0),
        (r"It could be \boxed{1}, \boxed{2} or \boxed{3}", "{1, 2, 3}", 0.0),
        ("<think>42? no, 41</think>The answer is 40", "42", 0.0),
        ("<think>perhaps 41</think>The answer is 42", "42", 1.0),
        (r"\boxed{(x+1)^2}", "x^2+2x+1", 1.0),
        ("no number at all", "42", 0.0),
        ("", "42", 0.0),
        (r"\boxed{}", "42", 0.0),
        (r"\boxed{42", "42", 0.0),
        ("42", "", None),
    ],
)
def test_math_equal_compares_the_final_answer(make: Any, text: str, answer: Any, score: float | None) -> None:
    assert numbers(make("math-equal")([text], answer=[answer])) == [score]


def test_math_equal_tells_of_the_form_only(make: Any) -> None:
    right, wrong, none = make("math-equal", column="solution")(["42", "41", "I do not know"], solution=["42"] * 3)
    assert (right.feedback, wrong.feedback) == (None, None)
    assert none.feedback == r"No final answer was found. End with the final answer in \boxed{}."
    assert (wrong.extra, none.extra) == ({"answered": 1, "gave_up": 0}, {"answered": 0, "gave_up": 0})


def test_math_equal_gives_up_on_what_takes_forever(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math_equal, "SECONDS", 1)
    forever = r"10^{10^{10}}"
    wrong, unread, right = make("math-equal")([rf"\boxed{{{forever}}}", "7", "7"], answer=["7", forever, "7"])
    assert (wrong.score, wrong.extra) == (0.0, {"answered": 0, "gave_up": 1})
    assert unread.score in {None, 0.0}  # as far as the row's own answer can be read
    assert right.score == 1.0


def test_the_final_answer_is_the_last_whole_box() -> None:
    assert final_answer(r"\boxed{1} \boxed{\frac{1}{2}}") == r"\frac{1}{2}"
    assert final_answer(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert final_answer(r"\boxed{1} \boxed{2") == "1"
    assert final_answer("1") is None


CITIES = ["London", "Paris", "Rome"]


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B.", "B"),
        ("**B**", "B"),
        ("B. Paris", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B), since Rome is in Italy.", "B"),
        ("**Answer:** B", "B"),
        ("Answer: **C**", "C"),
        ("First I thought the answer is A.\nThe correct answer is: C", "C"),
        (r"so \boxed{B}", "B"),
        (r"so \boxed{\text{Paris}}", "B"),
        ("paris.", "B"),
        ("<think>the answer is A</think>\nParis", "B"),
        ("A long story about Paris and Rome", None),
        ("The answer is D", None),
        ("The answer is unknown", None),
        ("", None),
    ],
)
def test_choice_reads_what_a_completion_chooses(make: Any, text: str, letter: str | None) -> None:
    (score,) = make("choice", choices="cities")([text], answer=["B"], cities=[CITIES])
    assert score.score == float(letter == "B")
    assert (score.feedback is None) == (letter is not None)
    if "think" not in text:
        assert chosen_letter(text, CITIES, "ABC") == letter


@pytest.mark.parametrize("right", ["B", "b", "(B)", "Paris", " paris ", 1])
def test_the_right_choice_is_a_letter_a_text_or_an_index(make: Any, right: Any) -> None:
    assert numbers(make("choice", choices="cities")(["B", "A"], answer=[right] * 2, cities=[CITIES] * 2)) == [1.0, 0.0]


def test_choice_does_not_name_the_right_one(make: Any) -> None:
    (score,) = make("choice")(["well"], answer=["B"])
    assert score.feedback == "No choice was found. End with the letter of one option, such as Answer: A."


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (None, "the options are None, which is no list of up to 26"),
        ("London", "the options are 'London', which is no list of up to 26"),
        (3, "the options are 3, which is no list of up to 26"),
        (list(range(27)), r"the options are \[0, 1, 2, .*\], which is no list of up to 26"),
        (["London"], "the right choice is 'Paris', which is not one of A to A"),
    ],
)
def test_options_that_are_none_are_an_error_with_the_row(make: Any, options: Any, fault: str) -> None:
    with pytest.raises(RewardError, match=rf"{fault}.* \(completion 1 of this batch, row d:2\); mend the row"):
        make("choice", choices="cities")(
            ["A"] * 2, answer=["Paris"] * 2, cities=[CITIES, options], origin=["d:1", "d:2"]
        )


def test_a_right_choice_that_is_none_is_an_error(make: Any) -> None:
    with pytest.raises(RewardError, match="the right choice is 'Madrid', which is not one of A to C, or the text of"):
        make("choice", choices="cities")(["B"], answer=["Madrid"], cities=[CITIES])


CARD = {
    "type": "object",
    "properties": {"capital": {"type": "string"}, "people": {"type": "integer", "minimum": 1}},
    "required": ["capital"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "score", "feedback"),
    [
        ('{"capital": "Lima", "people": 34}', 1.0, None),
        ('```json\n{"capital": "Lima"}\n```', 1.0, None),
        ('```\n{"capital": "Lima"}\n```', 1.0, None),
        ('<think>{"capital": 1}</think>{"capital": "Lima"}', 1.0, None),
        ('Here it is: {"capital": "Lima"}', 0.0, "The answer is not valid JSON: Expecting value: line 1 column 1"),
        ('```json\n{"capital": "Lima"}\n```\n```json\n{}\n```', 0.0, "The answer is not valid JSON: Extra"),
        ('{"capital": "Lima",}', 0.0, "The answer is not valid JSON: "),
        ('{"capital": "Lima", "people": NaN}', 0.0, "The answer is not valid JSON: NaN is not JSON"),
        ('{"capital": "Lima", "people": 0}', 0.0, "The JSON does not fit the schema at people: 0 is less than the"),
        ('{"people": 3}', 0.0, "The JSON does not fit the schema: 'capital' is a required property"),
        ("[" * 100_000, 0.0, "The answer is not valid JSON"),
        ("", 0.0, "The answer is not valid JSON"),
    ],
)
def test_json_schema_checks_and_says_where_it_does_not_fit(
    make: Any, text: str, score: float, feedback: str | None
) -> None:
    (found,) = make("json-schema", schema=CARD)([text])
    assert found.score == score
    assert found.feedback is None if feedback is None else (found.feedback or "").startswith(feedback)


def test_json_schema_takes_any_json_or_each_rows_own_schema(make: Any) -> None:
    assert numbers(make("json-schema")(["3", "x"])) == [1.0, 0.0]
    own = ['{"type": "integer"}', '{"type": "string"}']
    assert numbers(make("json-schema", column="schema")(["3", "3"], schema=own)) == [1.0, 0.0]
    with pytest.raises(RewardError, match=r"the row's schema is no JSON Schema: 'x' is not valid .* \(completion 0"):
        make("json-schema", column="schema")(["3"], schema=['{"type": "x"}'])


DEEP: Any = {}
for _ in range(2000):
    DEEP = {"properties": {"a": DEEP}}


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ("{", "it is not JSON: "),
        ("3", "it is neither a table nor true or false"),
        ("null", "it is neither a table nor true or false"),
        (None, "it is neither a table nor true or false"),
        (3, "it is neither a table nor true or false"),
        ([], "it is neither a table nor true or false"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"not":' * 5000 + "{}" + "}" * 5000, "it is nested too deeply"),
        (DEEP, ""),
        ("9" * 5000, "it is not JSON: "),
        ({"default": date(2020, 1, 1)}, "it is not JSON: "),
        ('{"$ref": "#/$defs/none"}', r"\$ref leads nowhere: #/\$defs/none \(nothing is fetched\)"),
        ('{"$ref": "http://127.0.0.1:9/schema.json"}', r"\$ref leads nowhere: http"),
        ('{"properties": {"a": {"$ref": "file:///etc/hosts"}}}', r"\$ref leads nowhere: file"),
        ('{"$ref": "#"}', "its references lead in a circle"),
        ('{"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}', "its references"),
        ('{"other": {"a": {"$ref": "#/other/a"}}, "items": {"$ref": "#/other/a"}}', "its references lead in a circle"),
        ('{"pattern": "("}', r"'\(' is not a 'regex' \(at pattern\)"),
        ('{"patternProperties": {"[": {}}}', r"'\[' is not a 'regex'"),
    ],
)
def test_a_schema_that_is_none_is_a_bad_row(make: Any, schema: Any, fault: str) -> None:
    with pytest.raises(
        RewardError, match=rf"the row's schema is no JSON Schema: {fault}.* \(completion 1 of this batch, row d:8\)"
    ):
        make("json-schema", column="schema")(["3", "3"], schema=["true", schema], origin=["d:7", "d:8"])


def test_a_schema_may_refer_to_itself_for_parts(make: Any) -> None:
    tree = {"type": "array", "items": {"$ref": "#"}, "$defs": {"x": {"anyOf": [{"$ref": "#/$defs/y"}]}, "y": {}}}
    score = make("json-schema", schema=tree)
    assert numbers(score(["[[], [[]]]", "[3]", "[" * 400 + "]" * 400])) == [1.0, 0.0, 0.0]


def test_json_that_is_hard_to_check_is_a_score(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_schema, "SECONDS", 1)
    steps = {f"s{n}": {"anyOf": [{"allOf": [{"$ref": f"#/$defs/s{n + 1}"}] * 9}] * 9} for n in range(9)}
    endless = {"$defs": {**steps, "s9": {"type": "integer"}}, "$ref": "#/$defs/s0"}
    (slow,) = make("json-schema", schema=endless)(['"x"'])
    assert (slow.score, slow.extra) == (0.0, {"valid_json": 0, "gave_up": 1})
    (backtracks,) = make("json-schema", schema={"pattern": "^(a+)+$"})([f'"{"a" * 40}!"'])
    assert (backtracks.score, backtracks.extra["gave_up"]) == (0.0, 1)
    huge = make("json-schema", schema={"multipleOf": 0.5})(["9" * 4000, "9" * 5000, "1e400", "1"])
    assert numbers(huge)[:2] == [0.0, 0.0]
    assert numbers(huge)[3] == 1.0


def test_regex_searches_or_fits_the_whole(make: Any) -> None:
    assert numbers(make("regex", pattern=r"\d+")(["a 1 b", "a b"])) == [1.0, 0.0]
    assert numbers(make("regex", pattern=r"\d+", mode="full")(["a 1", " 12\n", "1\n2"])) == [0.0, 1.0, 0.0]
    think = make("regex", pattern=r"(?s)<think>.+</think>.+", mode="full")
    assert numbers(think(["<think>\nso\n</think>\n4", "4"])) == [1.0, 0.0]


def test_regex_gives_up_on_what_backtracks_forever(make: Any) -> None:
    slow, fast = make("regex", pattern="^(a+)+$")(["a" * 40 + "!", "a" * 40])
    assert (slow.score, slow.extra) == (0.0, {"gave_up": 1})
    assert slow.feedback == "The answer could not be searched in 1 s for the regular expression ^(a+)+$"
    assert (fast.score, fast.extra) == (1.0, {"gave_up": 0})


def test_regex_compares_a_group_of_the_last_match_with_a_column(make: Any) -> None:
    score = make("regex", pattern=r"answer: (?P<said>\w+)", column="right")
    assert numbers(score(["answer: 3 answer: 4", "answer: 3", "3"], right=["4", 4, "3"])) == [1.0, 0.0, 0.0]
    whole = make("regex", pattern=r"(\d)(\d)", column="right", group=0)
    assert numbers(whole(["x 42"], right=[" 42 "])) == [1.0]
    assert numbers(make("regex", pattern=r"(\d)(\d)", column="right", group=2)(["42"], right=["2"])) == [1.0]


def test_length_is_1_within_and_falls_evenly_outside(make: Any) -> None:
    texts = ["", "x" * 5, "x" * 10, "x" * 20, "x" * 25, "x" * 40, "x" * 99]
    score = make("length", min=10, max=20, unit="characters")
    assert numbers(score(texts)) == [0.0, 0.5, 1.0, 1.0, 0.75, 0.0, 0.0]
    steep = make("length", max=20, falloff=10, unit="characters")
    assert numbers(steep(texts)) == [1.0, 1.0, 1.0, 1.0, 0.5, 0.0, 0.0]
    assert score(texts)[1].feedback == "The answer has 5 characters; write at least 10."
    assert score(texts)[4].feedback == "The answer has 25 characters; write at most 20."


def test_length_counts_the_tokens_that_the_trainer_generated(make: Any) -> None:
    score = make("length", max=2)
    assert numbers(score(["a", "b"], {"completion_ids": [[1, 2], [1, 2, 3]]})) == [1.0, 0.5]
    with pytest.raises(RewardError, match="the tokens are not known here; write unit = "):
        score(["a"])


def test_every_builtin_has_settings_with_descriptions() -> None:
    for name, builtin in BUILTINS.items():
        fields = builtin.load().Args.model_fields
        assert fields, name
        assert all(field.description for field in fields.values()), name

"""What the teacher is shown: whose answer, which feedback, in which words, and how it is made to fit."""

from __future__ import annotations

import pytest
import torch

from forge.api import DataError, ForgeError
from forge_sdpo.context import GAP, Context, Fitter, Rollout, contexts, fill, is_success, reprompt, strip_thinking
from forge_sdpo.guards import Guards
from forge_sdpo.options import Sdpo


def settings(**values) -> Sdpo:
    return Sdpo.model_validate(values).resolved(feedback=True)


def rollouts(*rewards: float, threshold: float = 1.0) -> list[Rollout]:
    return [Rollout(r, f"answer {i}" if r >= threshold else None) for i, r in enumerate(rewards)]


def test_the_first_successful_sibling_is_shown_and_nobody_sees_himself():
    found = contexts(rollouts(0, 1, 1, 0), [None] * 4, 0, 4, settings())
    assert [c.demonstration for c in found] == ["answer 1", "answer 2", "answer 1", "answer 1"]


def test_a_lone_success_teaches_its_siblings_and_not_itself():
    found = contexts(rollouts(0, 1, 0, 0), [None] * 4, 0, 4, settings())
    assert [bool(c) for c in found] == [True, False, True, True]
    found = contexts(rollouts(0, 1, 0, 0), [None] * 4, 0, 4, settings(dont_reprompt_on_self_success=False))
    assert [bool(c) for c in found] == [True, True, True, True]


def test_groups_do_not_mix():
    found = contexts(rollouts(1, 0, 0, 0), [None] * 4, 0, 2, settings())
    assert [c.demonstration for c in found] == [None, "answer 0", None, None]


def test_a_process_looks_at_its_own_part_of_the_batch():
    found = contexts(rollouts(1, 0, 0, 0, 0, 0, 1, 0), [None] * 4, 4, 4, settings())
    assert [c.demonstration for c in found] == ["answer 6", "answer 6", None, "answer 6"]


def test_a_reward_that_could_not_be_given_is_no_success():
    found = contexts([Rollout(float("nan"), None), Rollout(0.0, None)], [None] * 2, 0, 2, settings())
    assert not any(found)


@pytest.mark.parametrize(
    ("policy", "seen"),
    [("never", [None, None]), ("without-solution", ["wrong 0", None]), ("always", ["wrong 0", "wrong 1"])],
)
def test_feedback_is_used_as_the_policy_says(policy, seen):
    found = contexts(rollouts(1, 0), ["wrong 0", "wrong 1"], 0, 2, settings(feedback=policy))
    assert [c.feedback for c in found] == seen


def test_a_threshold_is_reached_in_float32():
    weights = torch.tensor([0.1] * 8 + [0.2])
    summed = sum((weight for weight in weights), torch.tensor(0.0)).item()
    assert is_success(summed, 1.0)
    assert is_success(1 - 6e-8, 1.0)
    assert not is_success(0.999, 1.0)
    assert not is_success(float("nan"), 1.0)
    assert is_success(0.0, 0.0)


def test_blank_feedback_is_none():
    found = contexts(rollouts(0, 0), [" \n", ""], 0, 2, settings(feedback="always"))
    assert not any(found)


def test_without_siblings_only_feedback_teaches():
    found = contexts(rollouts(1, 0), [None, "wrong"], 0, 2, settings(use_successful_as_teacher=False))
    assert [c.demonstration for c in found] == [None, None]
    assert [bool(c) for c in found] == [False, True]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>a\nb</think>\n42 ", "42"),
        ("x <think>a</think> y <think>b</think>", "x  y"),
        ("thoughts that the prompt opened</think> 42", "42"),
        ("42 <think>cut short", "42"),
        ("<think>never closed", ""),
    ],
)
def test_thinking_is_stripped(text, left):
    assert strip_thinking(text) == left


def test_a_demonstration_of_nothing_but_thoughts_is_passed_over():
    three = [Rollout(1.0, "<think>x"), Rollout(1.0, "<think>y</think>42"), Rollout(0.0, None)]
    assert [c.demonstration for c in contexts(three, [None] * 3, 0, 3, settings())] == ["42", None, "42"]
    kept = contexts(three, [None] * 3, 0, 3, settings(remove_thinking_from_demonstration=False))
    assert kept[2].demonstration == "<think>x"


def test_only_the_last_turn_changes_and_braces_survive():
    prompt = [{"role": "system", "content": "Be {brief}."}, {"role": "user", "content": "Write {solution} as JSON."}]
    context = Context('{"a": {"prompt": 1}}', "line {feedback_raw}\n{solution}")
    found = reprompt(prompt, context, settings())
    assert found[0] == prompt[0]
    assert found[1]["content"] == (
        "Write {solution} as JSON."
        '\nCorrect solution:\n\n{"a": {"prompt": 1}}\n\n'
        "\nThe following is feedback from your unsuccessful earlier attempt:\n\nline {feedback_raw}\n{solution}\n\n"
        "\n\nCorrectly solve the original question.\n"
    )
    assert prompt[1]["content"] == "Write {solution} as JSON."
    assert reprompt("2+2=", Context("4"), settings()).startswith("2+2=\nCorrect solution:\n\n4")


def test_fields_are_filled_once():
    assert fill("{a}{b}{c}", {"a": "{b}", "b": "1"}) == "{b}1{c}"


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "I"}],
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}],
    ],
)
def test_prompts_that_a_teacher_cannot_be_shown_are_refused(prompt):
    with pytest.raises(DataError):
        reprompt(prompt, Context("4"), settings())


def words(limit: int) -> Fitter:
    """A fitter whose tokens are words."""
    known: dict[str, int] = {}

    def encode(text: str) -> list[int]:
        return [known.setdefault(word, len(known)) for word in text.split()]

    def decode(ids: list[int]) -> str:
        back = {index: word for word, index in known.items()}
        return " ".join(back[i] for i in ids)

    return Fitter(render=lambda prompt: encode(f"{prompt} ASSISTANT:"), encode=encode, decode=decode, limit=limit)


PLAIN = {
    "reprompt_template": "{prompt} {solution} {feedback} END",
    "solution_template": "S {successful_previous_attempt}",
}


def fitted(limit: int, context: Context) -> tuple[str | None, bool]:
    fitter = words(limit)
    ids, cut = fitter.fit("What is it ?", context, settings(feedback_template="F {feedback_raw}", **PLAIN))
    assert ids is None or len(ids) <= limit
    return (fitter.decode(ids) if ids is not None else None), cut


def test_what_fits_is_left_alone():
    assert fitted(20, Context("one two three")) == ("What is it ? S one two three END ASSISTANT:", False)


def test_a_long_demonstration_loses_its_middle_and_nothing_else():
    text, cut = fitted(12, Context("1 2 3 4 5 6 7 8 9"))
    assert cut
    assert text.startswith("What is it ? S 1 2")
    assert text.endswith("9 END ASSISTANT:")
    assert GAP.strip() in text


def test_feedback_is_cut_only_when_the_demonstration_is_gone():
    text, cut = fitted(12, Context("1 2 3", "a b c d e f g h i"))
    assert cut
    assert "S" not in text.split()
    assert text.startswith("What is it ? F a")
    assert text.endswith("i END ASSISTANT:")


def test_a_question_that_is_too_long_has_no_teacher():
    assert fitted(5, Context("1 2 3", "a b")) == (None, True)


def test_a_collapse_is_told_from_rewards():
    guards = Guards(teacher_patience=0, reward_patience=2)
    said = []
    for reward in (0.1, 0.6, 0.8, 0.7, 0.2, 0.1):
        guards.batch(taught=1, rewards=[reward, reward, float("nan")], threshold=1.0, feedback=0)
        said.append(guards.collapsed())
    assert said[:5] == [None] * 5
    assert "from 0.75 to 0.15" in said[5]


def test_guards_go_on_from_a_checkpoint():
    first, second = Guards(3, 2), Guards(3, 2)
    first.batch(taught=0, rewards=[0.0], threshold=1.0, feedback=0)
    first.batch(taught=0, rewards=[0.5], threshold=1.0, feedback=0)
    second.restore(first.state())
    with pytest.raises(ForgeError, match="3 batches"):
        second.batch(taught=0, rewards=[0.0], threshold=1.0, feedback=0)

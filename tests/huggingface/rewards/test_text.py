"""Reading completions in time that grows with their length, however a model repeats itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.rewards.builtin.choice import chosen_letter
from forge_huggingface.rewards.builtin.code_tests import program_of
from forge_huggingface.rewards.builtin.math_equal import final_answer
from forge_huggingface.rewards.text import answer_of, code_block, only_block

if TYPE_CHECKING:
    from collections.abc import Callable

REPEATED = {
    "boxes": r"\boxed{",
    "closed boxes": r"\boxed{1}",
    "boxes in boxes": r"\boxed{\boxed{1}{",
    "texts in a box": r"\boxed{\text{",
    "braces": "{}}{",
    "fences": "```python\n",
    "blocks": "```python\nx\n```\n",
    "fences with words": "```\n```x\n",
    "spaces": "answer " + " " * 50,
    "stars": "answer" + "*" * 50,
    "answers": "the answer is ",
    "brackets": "([)*",
    "lines": "\n \n",
    "thoughts": "<think></think>",
}
READERS: dict[str, Callable[[str], Any]] = {
    "final_answer": final_answer,
    "chosen_letter": lambda text: chosen_letter(text, ["one", "two"], "AB"),
    "code_block": lambda text: code_block(text, {"python"}),
    "only_block": lambda text: only_block(text, {"python"}),
    "program_of": program_of,
    "answer_of": answer_of,
}


@pytest.mark.parametrize("begin", ["", "answer", r"\boxed{", "```python\n"])
@pytest.mark.parametrize("repeated", REPEATED)
@pytest.mark.parametrize("reader", READERS)
def test_reading_takes_time_in_proportion_to_the_length(reader: str, repeated: str, begin: str) -> None:
    def seconds(size: int) -> float:
        text = begin + REPEATED[repeated] * (size // len(REPEATED[repeated])) + "1"
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            READERS[reader](text)
            taken.append(time.perf_counter() - start)
        return min(taken)

    # Four times the text takes sixteen times as long where the time is quadratic; what is too short counts as 2 ms.
    assert seconds(40_000) < 10 * max(seconds(10_000), 0.002)


def test_what_follows_stars_and_spaces_is_still_read() -> None:
    assert chosen_letter("answer" + " " * 999 + "is" + " " * 999 + "**" + " " * 999 + "(B)", [], "AB") == "B"
    assert code_block("```\nx\n```\r\nso", {"python"}) == "x\n"

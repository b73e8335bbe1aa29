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

REPEATED = {  # how a text begins, and what follows again and again
    "boxes": ("", r"\boxed{"),
    "closed boxes": ("", r"\boxed{1}"),
    "boxes in boxes": ("", r"\boxed{\boxed{1}{"),
    "texts in a box": (r"\boxed{", r"\text{"),
    "texts in a closed box": (r"\boxed{}", r"\boxed{\text{}"),
    "braces": ("", "{}}{"),
    "braces in a box": (r"\boxed{", "{}}{"),
    "fences": ("", "```python\n"),
    "blocks": ("", "```python\nx\n```\n"),
    "blocks in a block": ("```python\n", "```\n```x\n"),
    "spaces": ("answer", " "),
    "stars": ("answer", "*"),
    "stars and spaces": ("answer", "* "),
    "answers": ("", "the answer is "),
    "answers and spaces": ("", "answer " + " " * 50),
    "brackets": ("", "([)*"),
    "lines": ("```\n", "\n \n"),
    "thoughts": ("", "<think></think>"),
}
READERS: dict[str, Callable[[str], Any]] = {
    "final_answer": final_answer,
    "chosen_letter": lambda text: chosen_letter(text, ["one", "two"], "AB"),
    "code_block": lambda text: code_block(text, {"python"}),
    "only_block": lambda text: only_block(text, {"python"}),
    "program_of": program_of,
    "answer_of": answer_of,
}


@pytest.mark.parametrize("repeated", REPEATED)
@pytest.mark.parametrize("reader", READERS)
def test_reading_takes_time_in_proportion_to_the_length(reader: str, repeated: str) -> None:
    begin, again = REPEATED[repeated]

    def seconds(size: int) -> float:
        text = begin + again * (size // len(again)) + "1"
        taken = []
        for _ in range(3):
            start = time.process_time()  # other processes do not count
            READERS[reader](text)
            taken.append(time.process_time() - start)
        return min(taken)

    # Four times the text takes sixteen times as long where the time is quadratic; what is too short counts as 10 ms.
    assert seconds(80_000) < 10 * max(seconds(20_000), 0.01)


def test_what_follows_stars_and_spaces_is_still_read() -> None:
    assert chosen_letter("answer" + " " * 999 + "is" + " " * 999 + "**" + " " * 999 + "(B)", [], "AB") == "B"
    assert code_block("```\nx\n```\r\nso", {"python"}) == "x\n"

"""Functions of the user's are called, and blamed for what they do, alike for rewards and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from forge_huggingface.functions import blame


def fails(*, completions: list[Any]) -> list[float]:
    return [1 / completion for completion in completions]


async def waits(*, completions: list[Any]) -> list[Any]:
    await asyncio.sleep(0)
    return [1 / completion for completion in completions]


class Judge:
    async def __call__(self, *, completions: list[Any]) -> list[Any]:
        return completions


def raised(function: Any, **keywords: Any) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any that it raises
        blame.call(function, keywords, asyncio.run)
    return caught.value


@pytest.mark.parametrize("function", [fails, waits])
def test_what_was_raised_is_said_with_the_line(function: Any) -> None:
    line = function.__code__.co_firstlineno + (1 if function is fails else 2)
    error = raised(function, completions=[0])
    assert blame.said(function, error) == f"ZeroDivisionError: division by zero at test_blame.py:{line}"


def test_a_call_that_does_not_come_about_blames_no_line_of_forge() -> None:
    error = raised(fails, completion=[1])
    assert " at " not in blame.said(fails, error)
    assert "unexpected keyword argument 'completion'" in blame.said(fails, error)


def test_the_first_row_that_fails_alike_is_guilty() -> None:
    rows = [1, 0, "a"]

    def alone(index: int) -> None:
        fails(completions=[rows[index]])

    error = raised(fails, completions=rows)
    assert blame.guilty(alone, len(rows), error) == 1
    assert blame.guilty(alone, 1, error) is None
    assert blame.guilty(lambda index: alone(2 - index), len(rows), error) is None, "another error tells nothing"


def test_what_is_awaited_is_told_from_the_function() -> None:
    assert [blame.is_async(each) for each in (fails, waits, Judge())] == [False, True, True]
    assert blame.call(Judge(), {"completions": [3]}, asyncio.run) == [3]

"""Tools and environments as TRL gets them: the user's own, with somebody who answers for what they do.

TRL makes of whatever a tool raises an answer for the model, ``{"error": …}``, and says nothing else
(``_tool_call_loop`` of its GRPOTrainer, 1.14.2 and 1.16). That is right where the model has called it wrongly; where
the tool is broken, somebody should know. What an environment raises outside its tools it does not catch.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from forge.api import ForgeError, Warned
from forge_huggingface.acting.rules import RESET, REWARD
from forge_huggingface.functions import blame
from forge_huggingface.functions.signature import Signature, of_function
from forge_huggingface.rewards.reward import ORIGIN, RewardError
from forge_huggingface.rewards.score import WrongReturnError, read_scores
from forge_huggingface.rows import put_back

Tell = Callable[[Warned], None]


_INSIDE: ContextVar[bool] = ContextVar("inside", default=False)
"""Whether the user's own code runs: what it calls of itself is called as if there were no guard."""


@contextlib.contextmanager
def _inside() -> Iterator[None]:
    token = _INSIDE.set(True)
    try:
        yield
    finally:
        _INSIDE.reset(token)


class ActingError(ForgeError):
    """An environment failed."""


class Guard:
    """Stands before tools, and tells of each kind of failure once.

    Args:
        tell: Is told what the user should know.
    """

    def __init__(self, tell: Tell) -> None:
        self.tell = tell
        self._told: set[tuple[str, str]] = set()

    def tool(self, function: Callable[..., Any], use: str) -> Callable[..., Any]:
        """Return a function that is called as another, and whose results are text."""
        signature = inspect.signature(function)
        name = use.rpartition(":")[2]

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call(*own: Any, **given: Any) -> Any:
                if _INSIDE.get():
                    return await function(*own, **given)
                signature.bind(*own, **given)  # what the model has called wrongly is its own mistake
                try:
                    with _inside():
                        return text_of(await blame.call_inside(function, given, *own))
                except blame.FAULTS as error:
                    raise self._failure(function, name, error) from error

            return call

        @functools.wraps(function)
        def called(*own: Any, **given: Any) -> Any:
            if _INSIDE.get():
                return function(*own, **given)
            signature.bind(*own, **given)
            try:
                with _inside():
                    return text_of(blame.call(function, given, _no_runner, *own))
            except blame.FAULTS as error:
                raise self._failure(function, name, error) from error

        return called

    def _failure(self, function: Callable[..., Any], name: str, error: BaseException) -> Exception:
        """Return what the model is told of, and tell the user the first time."""
        kind = type(error).__name__
        if (name, kind) not in self._told:
            self._told.add((name, kind))
            what = f"the tool {name} failed: {blame.said(function, error)}; the model is told so in place of a result"
            self.tell(Warned(what, "mend it, unless it is meant so; tools/failure_frequency counts all of them"))
        return error if isinstance(error, Exception) else RuntimeError(f"{kind}: {error}")


def _no_runner(_: Any) -> Any:
    raise TypeError("it returned something to await; write it as async def")


def text_of(result: Any) -> str:
    """Return what a tool returned as the text that the model reads: of a list of parts the text of each.

    TRL takes any list for parts of a message, and a list of numbers would end in the template.
    """
    if isinstance(result, list) and result and all(isinstance(part, Mapping) and "type" in part for part in result):
        if other := next((part["type"] for part in result if part["type"] != "text"), None):
            raise ValueError(f"it returned a part of the type {other}, and the model reads text")
        result = "".join(str(part.get("text", "")) for part in result)
    return str(result).encode(errors="replace").decode()  # half a character can be read by no tokenizer


def environment(kind: type, use: str, guard: Guard) -> type:
    """Return a class that is used as an environment of the user's, whose methods are guarded.

    TRL looks for its methods on the class: ``reset``, ``get_reward``, and what does not begin with an underscore, which
    are tools.
    """
    members: dict[str, Any] = {"__doc__": kind.__doc__, "__module__": kind.__module__}
    for name, function in inspect.getmembers(kind, inspect.isfunction):
        static = isinstance(inspect.getattr_static(kind, name), staticmethod)
        if name == "__init__":
            members[name] = _made(function, use)
        elif name == RESET:
            members[name] = _reset(function, use)
        elif name == REWARD:
            members[name] = _reward(function, use)
        elif not name.startswith("_"):
            guarded = guard.tool(function, f"{use}.{name}")
            members[name] = staticmethod(guarded) if static else guarded
    return type(kind.__name__, (kind,), members)


def resets(function: Callable[..., Any]) -> Signature:
    """Return the parameters of an environment's ``reset``, itself apart."""
    found = of_function(function)
    return Signature(found.required[1:], found.optional, found.any, found.positional)


def _made(function: Callable[..., Any], use: str) -> Callable[..., None]:
    @functools.wraps(function)
    def make(self: Any) -> None:
        try:
            with _inside():
                blame.call(function, {}, _no_runner, self)
        except blame.FAULTS as error:
            what = f"the environment {use} cannot be made"
            raise ActingError(what, blame.said(function, error), "mend it") from error

    return make


def _reset(function: Callable[..., Any], use: str) -> Callable[..., str | None]:
    signature = resets(function)
    what = f"the environment {use} failed in {RESET}"

    def reset(self: Any, **given: Any) -> str | None:
        row = put_back(given)
        at = f" (row {row[ORIGIN]})" if ORIGIN in row else ""
        try:
            with _inside():
                said = blame.call(function, signature.select(row), _no_runner, self)
        except blame.FAULTS as error:
            raise ActingError(what, f"{blame.said(function, error)}{at}", "mend it") from error
        if said is not None and not isinstance(said, str):
            why = f"it returned {blame.kind_of(said)} and must return a string, which follows the prompt, or None{at}"
            raise ActingError(what, why, f"see {blame.defined(function)}")
        return said and text_of(said)

    return reset


def _reward(function: Callable[..., Any], use: str) -> Callable[..., Any]:
    what = f"the reward of the environment {use} failed"

    def number(returned: Any) -> float | None:
        try:
            return read_scores([returned], 1)[0].score
        except WrongReturnError as error:
            raise RewardError(what, error.message, f"see {blame.defined(function)}") from error

    def failed(error: BaseException) -> RewardError:
        return RewardError(what, blame.said(function, error), "mend it")

    if inspect.iscoroutinefunction(function):

        async def judge(self: Any) -> float | None:
            try:
                with _inside():
                    return number(await blame.call_inside(function, {}, self))
            except blame.FAULTS as error:
                raise error if isinstance(error, RewardError) else failed(error) from error

        return judge

    def judged(self: Any) -> float | None:
        try:
            with _inside():
                return number(blame.call(function, {}, _no_runner, self))
        except blame.FAULTS as error:
            raise error if isinstance(error, RewardError) else failed(error) from error

    return judged

"""From ``[train] tools`` and ``environment`` to what a trainer can call: in the worker, before any model is loaded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from forge.api import UsageError
from forge_huggingface.acting.guard import Guard, Tell, environment
from forge_huggingface.acting.rules import RESET, REWARD, acts, environments_of, tools_of
from forge_huggingface.functions.find import find
from forge_huggingface.functions.reference import reference

if TYPE_CHECKING:
    from forge.api import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Acting:
    """What the model may call.

    Attributes:
        tools: The functions.
        environments: The classes by the name that a row says; None where all rows have the same one.
    """

    tools: tuple[Callable[..., Any], ...] = ()
    environments: Mapping[str | None, type] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether each row says which environment is its own."""
        return bool(self.environments) and None not in self.environments

    def schemas(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the JSON schemas of what can be called in an environment, as the chat template gets them."""
        from transformers.utils import get_json_schema

        kind = self.environments.get(name)
        return [get_json_schema(tool) for tool in (*self.tools, *(methods(kind) if kind else ()))]

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of TRL's trainer."""
        found: dict[str, Any] = {"tools": list(self.tools)} if self.tools else {}
        if self.environments:
            found["environment_factory"] = dict(self.environments) if self.several else self.environments[None]
        return found


def methods(kind: type) -> list[Callable[..., Any]]:
    """Return the methods of an environment that are tools, without their ``self``."""
    names = [name for name, _ in inspect.getmembers(kind, inspect.isfunction)]
    made: Any = object.__new__(kind)  # a schema needs the bound method, and nothing of what ``__init__`` does
    return [getattr(made, name) for name in names if not name.startswith("_") and name not in {RESET, REWARD}]


def load(job: Job, tell: Tell = lambda _: None) -> Acting | None:
    """Return what the model may call, or None if it may call nothing.

    Args:
        job: The job.
        tell: Is told what goes wrong in a tool while the model is trained.

    Raises:
        UsageError: Something cannot be found or imported, or a model could not be told of it.
    """
    options = job.train.options
    if not acts(options):
        return None
    guard = Guard(tell)
    tools = tuple(guard.tool(_function(job, use), use) for use in tools_of(options).values())
    classes = {name: environment(_class(job, use), use, guard) for name, use in environments_of(options).items()}
    found = Acting(tools=tools, environments=classes)
    _check(found, options)
    return found


def _function(job: Job, use: str) -> Callable[..., Any]:
    function = find(job, reference(use), "[train] tools")
    if not inspect.isfunction(function):
        why = f"it is {type(function).__name__}, and a model calls a tool by the name of its function"
        raise UsageError(f"{use} cannot be used ([train] tools)", why, "wrap it in a function of yours")
    return function


def _class(job: Job, use: str) -> type:
    kind: Any = find(job, reference(use), "[train] environment", "class")
    what = f"{use} cannot be used ([train] environment)"
    if not inspect.isfunction(getattr(kind, RESET, None)):
        raise UsageError(what, f"{kind.__name__} has no method {RESET}", f"write def {RESET}(self, **row)")
    if inspect.iscoroutinefunction(getattr(kind, RESET)):
        raise UsageError(what, f"{RESET} is async, and the trainer awaits it nowhere", f"write def {RESET}")
    return kind  # type: ignore[no-any-return]


def _check(found: Acting, options: Mapping[str, Any]) -> None:
    """Refuse tools that a model cannot be told of, or could not tell apart."""
    from transformers.utils import get_json_schema
    from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

    for name, use in (environments_of(options) or {None: ""}).items():
        kind = found.environments.get(name)
        what = f"{use} cannot be used ([train] environment)" if kind else "[train] tools cannot be used"
        seen: set[str] = set()
        for tool in (*found.tools, *(methods(kind) if kind else ())):
            called = tool.__name__
            if called in seen:
                raise UsageError(what, f"two tools are called {called}", "rename one of the functions")
            seen.add(called)
            try:
                get_json_schema(tool)
            except (DocstringParsingException, TypeHintParsingException) as error:
                do = "write a docstring with Args: and a type for each parameter, as docs/rewards.md shows"
                raise UsageError(what, f"{called}: {error}", do) from error
        if kind and not seen:
            do = f"give it a method beside {RESET} and {REWARD}"
            raise UsageError(what, f"{kind.__name__} has nothing to call", do)

"""What can be said of ``[train] tools`` and ``environment`` before anything is imported, the user's files included."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from forge.api import Problem
from forge_huggingface.functions.reference import reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from forge.api import Job, Machine, ModelFacts
    from forge_huggingface.functions.find import Kind
    from forge_huggingface.functions.source import Source

Node = ast.FunctionDef | ast.AsyncFunctionDef

RESET, REWARD = "reset", "get_reward"
"""The methods of an environment that are none of its tools."""


def tools_of(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the tools of ``[train]``: the key that names each, and what it says."""
    return {f"train.tools.{index}": use for index, use in enumerate(options.get("tools") or ())}


def environments_of(options: Mapping[str, Any]) -> dict[str | None, str]:
    """Return the environments of ``[train]`` by the name that a row says; None where all rows have the same one."""
    named = options.get("environment")
    return {None: named} if isinstance(named, str) else dict(named or {})


def acts(options: Mapping[str, Any]) -> bool:
    """Whether the model may call something while it is trained."""
    return bool(options.get("tools") or options.get("environment"))


def acting_problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with the tools and environments of a job, as far as their sources tell."""
    options = job.train.options
    named: dict[str, str] = {}
    for where, use in tools_of(options).items():
        yield from _named(job, use, where, "function", named)
    for name, use in environments_of(options).items():
        where = "train.environment" if name is None else f"train.environment.{name}"
        yield from _named(job, use, where, "class", {})
    if options.get("environment") == {}:
        yield Problem("train.environment", "it names none", 'write environment = "./game.py:Game", or remove it')


def scores_itself(job: Job) -> bool:
    """Whether an environment of the job judges its answers itself, as far as its source tells."""
    from forge_huggingface.functions.rules import sought  # only jobs with an environment pay for it

    for use in environments_of(job.train.options).values():
        found = sought(job, reference(use), "train.environment", "class")
        kind = None if found is None or isinstance(found, Problem) else found.classes.get(reference(use).function)
        if kind is None or kind.bases or any(method.name == REWARD for method in _methods(kind)):
            return True  # what cannot be seen is looked at in the worker
    return False


def cannot_act(machine: Machine, job: Job, facts: ModelFacts) -> str | None:  # noqa: ARG001 - the probe's signature
    """Return why the model cannot call anything, or None."""
    if not acts(job.train.options):
        return None
    key = "tools" if job.train.options.get("tools") else "environment"
    if facts.task == "vision":
        return f"{key}: calls are tried with models of text only so far; remove it, or take a text model"
    if facts.chat_template is False and job.data.chat_template is None:
        return f"{key}: calls are written by a chat template, and the model has none; write [data] chat_template"
    return None


def _named(job: Job, use: str, where: str, kind: Kind, named: dict[str, str]) -> Iterator[Problem]:
    from forge_huggingface.functions.rules import sought  # only jobs with tools pay for it

    refers = reference(use)
    if refers.kind == "builtin":
        yield Problem(where, f'"{use}" names no {kind}', f'write "./tools.py:{kind}"')
        return
    if refers.function in named:
        what = f"{refers.function} is also the name of {named[refers.function]}: the model could not tell them apart"
        yield Problem(where, what, "rename one of the functions")
    named.setdefault(refers.function, use)
    found = sought(job, refers, where, kind)
    if isinstance(found, Problem):
        yield found
    elif found is not None:
        yield from (
            _of_function(found, refers.function, where)
            if kind == "function"
            else _of_class(found, refers.function, where)
        )


def _of_function(found: Source, name: str, where: str) -> Iterator[Problem]:
    if (node := found.functions.get(name)) is not None:
        for fault in faults(node):
            yield Problem(where, f"{name} {fault}", "the model is told of a tool by them")


def _of_class(found: Source, name: str, where: str) -> Iterator[Problem]:
    if (kind := found.classes.get(name)) is None:
        return
    methods = {method.name: method for method in _methods(kind)}
    if RESET not in methods and not kind.bases:
        say = "it is called with the row before each answer, and returns what to add to the prompt, or None"
        yield Problem(where, f"{name} has no method reset", f"write def reset(self, **row); {say}")
    made = methods.get("__init__")
    if made is not None and (needed := _needed(made)):
        what = f"{name} cannot be made without {', '.join(needed)}"
        yield Problem(where, what, "give them defaults: one is made for each answer")
    for method in methods.values():
        if not method.name.startswith("_") and method.name not in {RESET, REWARD} and not method.decorator_list:
            for fault in faults(method):
                yield Problem(where, f"{name}.{method.name} {fault}", "the model is told of a tool by them")


def _methods(kind: ast.ClassDef) -> list[Node]:
    return [node for node in kind.body if isinstance(node, Node)]


def _needed(node: Node) -> list[str]:
    """Return the parameters of a method that have no default, itself apart."""
    plain = node.args.posonlyargs + node.args.args
    free = plain[1 : len(plain) - len(node.args.defaults)]
    lone = [each for each, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if value is None]
    return [each.arg for each in free + lone]


def faults(node: Node) -> Iterator[str]:
    """Yield what a definition lacks to be shown to a model, each as a phrase that follows its name.

    transformers makes a tool's JSON schema of it (``transformers/utils/chat_template_utils.py``,
    ``get_json_schema``): the docstring says what it does and, under ``Args:``, what each parameter is.
    """
    text = ast.get_docstring(node)
    if not text:
        yield "has no docstring that says what it does"
        return
    plain = node.args.posonlyargs + node.args.args
    parameters = [each for each in (*plain, *node.args.kwonlyargs) if each.arg != "self"]
    if bare := [each.arg for each in parameters if each.annotation is None]:
        yield f"has no type hint for {', '.join(bare)}"
    told = re.split(r"^\s*Args:\s*$", text, maxsplit=1, flags=re.MULTILINE)[1:]
    described = set(re.findall(r"^\s*(\w+)\s*(?:\([^)]*\))?:", told[0] if told else "", re.MULTILINE))
    if missing := [each.arg for each in parameters if each.arg not in described]:
        yield f"has a docstring that does not describe {', '.join(missing)} under Args:"

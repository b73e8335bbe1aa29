"""The plugin API: offers, hooks, records, events, and the words that forge publishes."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from forge import api
from forge.api.hooks import EventHooks, ReadHooks
from forge.discovery.discover import discover
from forge.job.tables import TABLES
from forge_huggingface.methods import Method
from forge_huggingface.training.recipe import Recipe
from parts.markdown import listed, plain, sentence, table

if TYPE_CHECKING:
    from collections.abc import Iterable


def attributes(kind_: type) -> str:
    """Return the table of a dataclass from the ``Attributes`` of its docstring."""
    text = inspect.getdoc(kind_) or ""
    _, _, described = text.partition("Attributes:\n")
    meanings = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w+: |^\S|\Z)", described, re.MULTILINE | re.DOTALL))
    annotations = {name: re.sub(r"^ClassVar\[(.*)\]$", r"\1", said) for name, said in _annotations(kind_).items()}
    lines = [(f"`{name}`", f"`{annotations[name]}`", plain(meanings.get(name, ""))) for name in annotations]
    return table(("field", "type", "meaning"), lines)


def _annotations(kind_: type) -> dict[str, str]:
    if is_dataclass(kind_):
        return {field.name: str(field.type) for field in fields(kind_)}
    return {name: str(said) for name, said in kind_.__annotations__.items()}


def offer() -> str:
    """The fields of an offer."""
    return attributes(api.Offer)


def extension() -> str:
    """The fields of an extension."""
    return attributes(api.Extension)


def names() -> str:
    """The words of ``Offer.serves``."""
    return table(("stage", "words"), ((f"`{stage}`", listed(sorted(words))) for stage, words in api.NAMES.items()))


def abilities() -> str:
    """The words of ``Offer.supports``."""
    return table(("stage", "words"), ((f"`{stage}`", listed(sorted(words))) for stage, words in api.ABILITIES.items()))


def hooks(of: type) -> str:
    """The hooks of a class of them, as a plugin writes them."""
    lines = []
    for name, hook in vars(of).items():
        if name.startswith("forge_"):
            signature = inspect.signature(hook)
            arguments = ", ".join(key for key in signature.parameters if key != "self")
            said = sentence(inspect.getdoc(hook) or "")
            lines.append((f"`{name}({arguments})`", f"`{signature.return_annotation}`", said))
    return table(("hook", "returns", "what it does"), lines)


def plan_hooks() -> str:
    """The hooks that are called while forge plans."""
    return hooks(api.PlanHooks)


def run_hooks() -> str:
    """The hooks of a run."""
    return hooks(api.RunHooks)


def event_hooks() -> str:
    """The hook of observers."""
    return hooks(EventHooks)


def read_hooks() -> str:
    """The hook of readers."""
    return hooks(ReadHooks)


def function() -> str:
    """The fields of a function."""
    return attributes(api.Function)


def method() -> str:
    """The fields of a method on huggingface's trainer."""
    return attributes(Method)


def recipe() -> str:
    """The fields of what a method adds to the common way of training."""
    return attributes(Recipe)


def traits() -> str:
    """The traits of forge's own offers, with who gives and who needs them."""
    offers = [(plugin.name, offer) for plugin in discover({"FORGE_PLUGINS": ""}).usable for offer in plugin.offers]
    known = sorted({trait for _, each in offers for trait in each.provides | each.depends | each.conflicts})
    lines = []
    for trait in known:
        by = [
            listed(sorted({f"{name}: {each.stage}" for name, each in offers if trait in getattr(each, field)}))
            for field in ("provides", "depends", "conflicts")
        ]
        lines.append((f"`{trait}`", *by))
    return table(("trait", "provided by", "needed by", "not together with"), lines)


def command() -> str:
    """The fields of a command."""
    return attributes(api.Command)


def check() -> str:
    """The fields of a check of `forge doctor`."""
    return described([api.Check])


def targets() -> str:
    """What a place to send jobs to is, how it is served, and the records of it."""
    kinds = (api.Target, api.Submitter, api.Bundle, api.Ticket, api.Status)
    able = {api.Submitter, api.Bundle, api.Status}
    return "\n\n".join(described([each]) + (f"\n\n{members(each)}" if each in able else "") for each in kinds)


def records() -> str:
    """The records that pass between stages."""
    passed = (api.Data, api.Loaded, api.Trained, api.Exported, api.Decision, api.Finding, api.Event)
    more = (api.Sampling, api.Prompt, api.Answer, api.Evaluated, api.Estimate, api.Part, api.Lever, api.Pace)
    return described((*passed, *more))


def given() -> str:
    """The records that hooks and functions of offers are given, and those that they are made of."""
    kinds = (api.Job, api.ExportTable, api.Source, api.Run, api.Plan, api.Step, api.Machine, api.Accelerator)
    more = (api.TorchBuild, api.ModelFacts, api.Shape, api.Problem, api.Package)
    able = {api.Job, api.Run, api.Plan}
    return "\n\n".join(described([each]) + ("\n\n" + members(each) if each in able else "") for each in (*kinds, *more))


def described(kinds: Iterable[type]) -> str:
    """Return what records are, each under a heading with its fields."""
    texts = []
    for each in kinds:
        fields = keys(each) if issubclass(each, BaseModel) else attributes(each)
        texts.append(f"### {each.__name__}\n\n{sentence(inspect.getdoc(each) or '')}\n\n{fields}")
    return "\n\n".join(texts)


def keys(model: type[BaseModel]) -> str:
    """Return the table of the keys of a job's table."""
    known = [vars(base).get("__annotations__", {}) for base in reversed(model.__mro__)]
    types = {name: str(said) for each in known for name, said in each.items()}
    told = dict(re.findall(r"^    (\w+): (.*)$", inspect.getdoc(model) or "", re.MULTILINE))
    lines = []
    for name, field in model.model_fields.items():
        of_it = TABLES.get(name) if model is api.Job else None
        said = inspect.getdoc(of_it) if of_it else field.description or told.get(name)
        lines.append((f"`{name}`", f"`{types[name]}`", sentence(said or "")))
    return table(("field", "type", "meaning"), lines)


def members(kind_: type) -> str:
    """Return the table of the methods and properties of a record."""
    lines = []
    for name, member in vars(kind_).items():
        function = member.fget if isinstance(member, property) else member
        if name.startswith("_") or not inspect.isfunction(function) or not function.__doc__:
            continue
        signature = inspect.signature(function)
        shown = [str(each).replace("'", "") for key, each in signature.parameters.items() if key != "self"]
        call = name if isinstance(member, property) else f"{name}({', '.join(shown)})"
        lines.append((f"`{call}`", f"`{signature.return_annotation}`", plain(_whole(function))))
    return table(("has", "gives", "what it is"), lines)


def _whole(function: Any) -> str:
    """Return a docstring without its sections."""
    return re.split(r"\n\n(?:Args|Raises|Returns|Example):\n", inspect.getdoc(function) or "")[0]


def events() -> str:
    """Every kind of event."""
    lines = []
    for kind, each in api.EVENTS.items():
        fields = each.__dataclass_fields__.items()
        mine = [(name.rstrip("_"), field.type) for name, field in fields if name not in api.Event.__dataclass_fields__]
        own = (f"{name}: {type_}" for name, type_ in mine)
        lines.append((f"`{kind}`", f"`{each.__name__}`", listed(own), sentence(inspect.getdoc(each) or "")))
    return table(("kind", "class", "its values", "what happened"), lines)

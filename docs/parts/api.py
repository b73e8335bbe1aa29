"""The plugin API: offers, hooks, records, events, and the words that forge publishes."""

from __future__ import annotations

import inspect
import re

from forge import api
from forge.api.hooks import EventHooks
from parts.markdown import listed, plain, sentence, table


def attributes(kind_: type) -> str:
    """Return the table of a dataclass from the ``Attributes`` of its docstring."""
    text = inspect.getdoc(kind_) or ""
    _, _, described = text.partition("Attributes:\n")
    meanings = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w+: |^\S|\Z)", described, re.MULTILINE | re.DOTALL))
    annotations = {name: str(field.type) for name, field in kind_.__dataclass_fields__.items()}  # type: ignore[attr-defined]
    lines = [(f"`{name}`", f"`{annotations[name]}`", plain(meanings.get(name, ""))) for name in annotations]
    return table(("field", "type", "meaning"), lines)


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


def command() -> str:
    """The fields of a command."""
    return attributes(api.Command)


def records() -> str:
    """The records that pass between stages."""
    passed = (api.Data, api.Loaded, api.Trained, api.Exported, api.Decision, api.Finding, api.Event)
    described = (
        *passed,
        api.Sampling,
        api.Prompt,
        api.Answer,
        api.Evaluated,
        api.Estimate,
        api.Part,
        api.Lever,
        api.Pace,
    )
    texts = ((each.__name__, sentence(inspect.getdoc(each) or ""), attributes(each)) for each in described)
    return "\n\n".join(f"### {name}\n\n{meaning}\n\n{fields}" for name, meaning, fields in texts)


def events() -> str:
    """Every kind of event."""
    lines = []
    for kind, each in api.EVENTS.items():
        own = (name.rstrip("_") for name in each.__dataclass_fields__ if name not in api.Event.__dataclass_fields__)
        lines.append((f"`{kind}`", f"`{each.__name__}`", listed(own), sentence(inspect.getdoc(each) or "")))
    return table(("kind", "class", "fields", "what happened"), lines)

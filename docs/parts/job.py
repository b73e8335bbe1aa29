"""The keys of a job: a table for each of its tables, and the words that they take."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.job.data import DataTable, Source
from forge.job.job import Job
from forge.job.tables import (
    TABLES,
    AdapterTable,
    EvalTable,
    ExportTable,
    GenerationTable,
    LaunchTable,
    ModelTable,
    SamplingTable,
    TrainTable,
    UseTable,
)
from forge_huggingface import rendering
from forge_huggingface.data.conversion.formats import FORMATS
from forge_huggingface.data.conversion.roles import ROLES
from forge_huggingface.evaluation.metrics import METRICS
from forge_huggingface.generation.sampling import families as recommended
from forge_huggingface.rendering.templates import shipped
from forge_huggingface.rewards.builtin.registry import BUILTINS
from forge_huggingface.rewards.table import RewardTable
from forge_huggingface.rules.training import TRACKERS
from forge_huggingface.sources.files import SUPPORTED
from forge_lm_eval.options import Options as LmEval
from forge_sdpo.options import Sdpo
from parts.markdown import code, listed, number, table

if TYPE_CHECKING:
    from pydantic import BaseModel


def kind(schema: Mapping[str, Any]) -> str:
    """Describe the values that a JSON Schema allows, in a few words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(kind(one) for one in schema["anyOf"] if one.get("type") != "null"))
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema and len(schema["enum"]) > 12:
        return f"{', '.join(map(code, schema['enum'][:3]))} and {len(schema['enum']) - 3} others: see `forge schema`"
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}s"
    name = {"boolean": "true or false", "integer": "integer", "number": "number", "string": "string"}
    said = name.get(schema.get("type", "object"), "table")
    signs = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
    bounds = [f"{sign} {number(schema[key])}" for key, sign in signs if key in schema]
    return f"{said} {', '.join(bounds)}".strip()


def keys(
    model: type[BaseModel],
    *,
    without: Iterable[str] = (),
    marks: Mapping[str, str] | None = None,
    meanings: Mapping[str, str] | None = None,
) -> str:
    """Return the table of a model's keys.

    Args:
        model: The model.
        without: Fields to leave out.
        marks: What to show instead of a default, by key.
        meanings: What to show instead of the fields' own descriptions; then every key must be in it.
    """
    schema = model.model_json_schema(by_alias=True)
    required = set(schema.get("required", ()))
    lines = []
    for name, field in model.model_fields.items():
        if name in {"options", "folder", *without}:
            continue
        key = field.alias or name
        default = field.get_default(call_default_factory=True)
        shown = "required" if key in required else (marks or {}).get(key) or code(default) or "not set"
        meaning = meanings[key] if meanings else field.description or ""
        lines.append((f"`{key}`", kind(schema["properties"][key]), shown, meaning))
    return table(("key", "value", "default", "meaning"), lines)


def top() -> str:
    """Keys above the first table."""
    return keys(Job, without=(*TABLES, "plugins"))


def model() -> str:
    """``[model]``."""
    return keys(ModelTable)


def adapter() -> str:
    """``[adapter]``."""
    return keys(AdapterTable)


def data() -> str:
    """``[data]`` without what each source may have."""
    return keys(DataTable, without=Source.model_fields)


def sources() -> str:
    """The keys of a source."""
    return keys(Source)


def train() -> str:
    """``[train]``: the core's keys."""
    return keys(TrainTable)


def evaluation() -> str:
    """``[eval]`` without the keys of how to generate."""
    return keys(EvalTable, without=SamplingTable.model_fields)


def generation() -> str:
    """``[generation]``."""
    return keys(GenerationTable)


def launch() -> str:
    """``[launch]``."""
    return keys(LaunchTable)


def export() -> str:
    """``[[export]]``."""
    return keys(ExportTable)


def use() -> str:
    """``[use]``."""
    return keys(UseTable)


def trackers() -> str:
    """What ``report_to`` takes."""
    return table(
        ("`report_to`", "needs one of"),
        ((f"`{name}`", listed(needed) or "nothing") for name, needed in TRACKERS.items()),
    )


def sdpo() -> str:
    """``[plugins.sdpo]``."""
    return keys(Sdpo)


def lm_eval() -> str:
    """``[plugins.lm-eval]``."""
    return keys(LmEval)


def families() -> str:
    """What the authors of model families recommend."""
    lines = (
        (f"[{each.name}]({each.source})", ", ".join(f"{key} {value:g}" for key, value in each.sampling.items()))
        for each in recommended()
    )
    return table(("family", "recommended"), lines)


def metrics() -> str:
    """The built-in metrics and the values that each gives."""
    lines = [
        (f"`{name}`", f"`{value}`", metric.about)
        for name, values in METRICS.items()
        for value, metric in values.items()
    ]
    return table(("metric", "value", "what it is"), lines)


def reward() -> str:
    """``[[train.reward]]``."""
    return keys(RewardTable)


def reward_builtins() -> str:
    """The built-in rewards."""
    lines = (
        (f"`{name}`", each.summary, f"`{each.requires_dist}`" if each.requires_dist else "nothing")
        for name, each in BUILTINS.items()
    )
    return table(("name", "score", "needs"), lines)


def reward_args() -> str:
    """The settings of each built-in reward."""
    return "\n\n".join(f"`args` of `{name}`:\n\n{keys(each.load().Args)}" for name, each in BUILTINS.items())


def formats() -> str:
    """What each format needs and takes."""

    def names(columns: Mapping[str, tuple[str, ...]]) -> str:
        said = []
        for key, aliases in columns.items():
            others = [alias for alias in aliases if alias != key]
            said.append(f"`{key}`" + (f" (also {listed(others)})" if others else ""))
        return "; ".join(said)

    lines = [
        (f"`{name}`", ", **or** ".join(map(names, (each.needs, *each.instead))), names(each.takes) or "nothing")
        for name, each in FORMATS.items()
    ]
    return table(("format", "needs", "also takes"), lines)


def roles() -> str:
    """Names of speakers."""
    by_role: dict[str, list[str]] = {}
    for name, role in ROLES.items():
        by_role.setdefault(role, []).append(name)
    lines = ((f"`{role}`", listed(names)) for role, names in by_role.items())
    return table(("role", "written as"), lines)


def files() -> str:
    """The kinds of files."""
    return f"Readable files: {SUPPORTED}."


def templates() -> str:
    """The chat templates that forge ships, with the comment at their beginning."""
    folder = Path(rendering.__file__).parent / "chat_templates"
    lines = []
    for name in shipped():
        said = re.match(r"\{#-?\s*(.*?)\s*-?#\}", (folder / f"{name}.jinja").read_text(encoding="utf-8"), re.DOTALL)
        lines.append((f"`{name}`", said[1] if said else ""))
    return table(("name", "what it is"), lines)

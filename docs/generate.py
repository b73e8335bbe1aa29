"""Write the parts of the documentation that the code knows best: tables of keys, commands, formats, the plugin API.

    python docs/generate.py            write them
    python docs/generate.py --check    exit 1 and name the files that are not current

A generated part stands between ``<!-- generated:NAME -->`` and ``<!-- /generated -->``; the rest of a page is written
by hand. Trainer arguments are taken from the committed table of the newest tested versions, so that the pages do not
depend on which trl is installed.
"""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import re
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
import tomli

from forge import api, errors
from forge.cli import COMMANDS, cli
from forge.discovery.discover import discover
from forge.job.job import Job
from forge.job.tables import (
    AdapterTable,
    DataTable,
    EvalTable,
    ExportTable,
    GenerationTable,
    ModelTable,
    SamplingTable,
    Source,
    TrainTable,
    UseTable,
)
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge_huggingface.arguments import fields, options, owned
from forge_huggingface.arguments.foreign import METHODS as METHOD_NAMES
from forge_huggingface.arguments.tables import DEFAULTS
from forge_huggingface.data import files as readers
from forge_huggingface.data import formats
from forge_huggingface.data.layouts import LAYOUTS
from forge_huggingface.evaluation import metrics
from forge_huggingface.facts import shape as shapes
from forge_huggingface.generation import sampling
from forge_huggingface.memory import estimate
from forge_huggingface.methods import METHODS
from forge_huggingface.rendering import templates
from forge_huggingface.rewards.builtin.table import BUILTINS
from forge_huggingface.rewards.table import RewardTable
from forge_huggingface.rules import training as rules
from forge_sdpo.options import Sdpo
from forge_unsloth import estimate as unsloth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

DOCS = Path(__file__).resolve().parent
_PART = re.compile(r"(<!-- generated:([\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)

PARTS: dict[str, Callable[[], str]] = {}
"""What can be generated, by name."""


def part(function: Callable[[], str]) -> Callable[[], str]:
    """Register a generated part under the function's name."""
    PARTS[function.__name__.replace("_", "-")] = function
    return function


def row(*cells: str) -> str:
    """Return one row of a table."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    return "\n".join([row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows)])


def listed(words: Iterable[str]) -> str:
    """Return words as code, with commas."""
    return ", ".join(f"`{word}`" for word in words)


def code(value: Any) -> str:
    """Return a value as a job file writes it."""
    if value is None or str(value) == "PydanticUndefined":
        return ""
    if isinstance(value, float):
        return f"`{number(value)}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def number(value: float) -> str:
    """Return a number as people write it: no trailing .0, and an exponent only for small ones."""
    return str(int(value)) if value == int(value) else f"{value:g}"


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


def newest(config: str = "SFTConfig") -> dict[str, fields.Field]:
    """Return a config's fields from the newest committed table."""
    return next(iter(fields.committed(config).values()))


@contextmanager
def newest_fields() -> Iterator[None]:
    """Take trainer fields from the newest committed table instead of the installed trl."""
    with mock.patch.object(options, "table", newest):
        yield


@part
def job_top() -> str:
    """Keys above the first table."""
    return keys(Job, without=("model", "adapter", "data", "train", "eval", "generation", "export", "use", "plugins"))


@part
def job_model() -> str:
    """``[model]``."""
    return keys(ModelTable)


@part
def job_adapter() -> str:
    """``[adapter]``."""
    return keys(AdapterTable)


@part
def job_data() -> str:
    """``[data]`` without what each source may have."""
    return keys(DataTable, without=Source.model_fields)


@part
def job_sources() -> str:
    """The keys of a source."""
    return keys(Source)


@part
def job_train() -> str:
    """``[train]``: the core's keys."""
    return keys(TrainTable)


@part
def job_eval() -> str:
    """``[eval]`` without the keys of how to generate."""
    return keys(EvalTable, without=SamplingTable.model_fields)


@part
def job_generation() -> str:
    """``[generation]``."""
    return keys(GenerationTable)


@part
def sdpo_keys() -> str:
    """``[plugins.sdpo]``."""
    return keys(Sdpo)


@part
def generation_families() -> str:
    """What the authors of model families recommend."""
    lines = (
        (f"[{each.name}]({each.source})", ", ".join(f"{key} {value:g}" for key, value in each.sampling.items()))
        for each in sampling.families()
    )
    return table(("family", "recommended"), lines)


@part
def eval_metrics() -> str:
    """The built-in metrics and the values that each gives."""
    lines = [
        (f"`{name}`", f"`{value}`", metric.about)
        for name, values in metrics.METRICS.items()
        for value, metric in values.items()
    ]
    return table(("metric", "value", "what it is"), lines)


@part
def job_export() -> str:
    """``[[export]]``."""
    return keys(ExportTable)


@part
def job_use() -> str:
    """``[use]``."""
    return keys(UseTable)


def arguments(method: str) -> type[BaseModel]:
    """Return the model of a method's arguments in the newest tested versions."""
    with newest_fields():
        return options.train_options.__wrapped__(method)


def meanings(method: str) -> dict[str, str]:
    """Return what arguments mean under a method, from arguments.toml."""
    known = tomli.loads((DOCS / "arguments.toml").read_text(encoding="utf-8"))
    own = known.get(method, {})
    if wrong := own.keys() - arguments(method).model_fields.keys():
        raise SystemExit(f"docs/arguments.toml: {method} has no {', '.join(sorted(wrong))}")
    everywhere = {name: said for name, said in known.items() if isinstance(said, str)}
    if method == "sft":
        usable = set().union(*(arguments(each).model_fields for each in METHODS))
        if wrong := everywhere.keys() - usable:
            raise SystemExit(f"docs/arguments.toml: no method has {', '.join(sorted(wrong))}")
    said: dict[str, str] = everywhere | own
    if wrong := arguments(method).model_fields.keys() - said.keys():
        raise SystemExit(f"docs/arguments.toml lacks, for {method}: {', '.join(sorted(wrong))}")
    return said


@part
def train_arguments() -> str:
    """The trainer's arguments that methods share, as they are under ``method = "sft"``."""
    marks = {name: f"{default(name)} †" for name in DEFAULTS}
    return keys(arguments("sft"), marks=marks, meanings=meanings("sft"))


def method_arguments(method: str) -> str:
    """Return what a method adds to those, what has another default, and what it has not."""
    mine, common = arguments(method).model_fields, arguments("sft").model_fields
    same = [
        name
        for name, field in mine.items()
        if name in common and (field.default, field.annotation) == (common[name].default, common[name].annotation)
    ]
    marks = {"num_completions_to_print": f"{default('num_completions_to_print')} †"}
    text = keys(arguments(method), without=same, marks=marks, meanings=meanings(method))
    lacking = sorted(common.keys() - mine.keys())
    return f"{text}\n\nIt has no {listed(lacking)}." if lacking else text


for _name in METHODS:
    if _name != "sft":
        PARTS[f"method-{_name}"] = functools.partial(method_arguments, _name)


@part
def methods() -> str:
    """The methods."""
    with newest_fields():
        lines = [
            (
                f"[`{each.name}`](#{each.name})",
                each.about,
                listed(LAYOUTS[each.layout].formats),
                code(options.learning_rate("lora", each.config)),
                code(options.learning_rate("none", each.config)),
            )
            for each in METHODS.values()
        ]
    return table(("method", "what it is", "rows", "rate with LoRA", "rate of every weight"), lines)


@part
def method_names() -> str:
    """Methods of other tools."""
    return table(("`method` elsewhere", "here"), ((f"`{name}`", said) for name, said in METHOD_NAMES.items()))


@part
def sft_deviations() -> str:
    """Where forge's default is not TRL's."""
    trl = newest("GRPOConfig") | newest()
    lines = [
        (f"`{name}`", default(name), code(trl[name].default) or "not set", reason)
        for name, (_, reason) in DEFAULTS.items()
    ]
    return table(("key", "forge", "TRL", "reason"), lines)


def default(name: str) -> str:
    """Return forge's default where it is not TRL's: a value, or that it is decided when the machine is known."""
    value, reason = DEFAULTS[name]
    return code(value) or ("decided" if reason.startswith("by ") else "not set")


@part
def sft_versions() -> str:
    """The versions that the committed table was read from."""
    newest, *older = fields.committed()
    return f"Read from {newest}. Also tested: {'; '.join(older)}."


@part
def sft_older() -> str:
    """What differs between the newest tested versions and the older ones."""
    lines: dict[tuple[str, str], list[str]] = {}
    for method in METHODS.values():
        first, *others = fields.committed(method.config).items()
        for versions, older in others:
            for name in sorted({*first[1], *older}):
                one, other = first[1].get(name), older.get(name)
                if owned.is_owned(name, method.config):
                    continue
                if one is None or other is None:
                    said = f"only in {first[0] if other is None else versions}"
                elif one.default != other.default:
                    was, now = code(other.default) or "not set", code(one.default) or "not set"
                    said = f"default {was} instead of {now} in {versions}"
                else:
                    continue
                lines.setdefault((name, said), []).append(method.name)
    every = len(METHODS)
    rows = [(f"`{name}`", "all" if len(who) == every else listed(who), said) for (name, said), who in lines.items()]
    return table(("argument", "methods", "difference"), rows)


@part
def sft_owned() -> str:
    """Fields of the configs that a job may not set."""
    lines = [(f"`{name}`", said.do) for name, said in owned.OWNED.items()]
    names = {method.config: method.name for method in METHODS.values()}
    for config, several in owned.OWNED_IN.items():
        lines += [(f"`{name}` under `{names[config]}`", said.do) for name, said in several.items()]
    return table(("argument", "instead"), lines)


@part
def sft_foreign() -> str:
    """Names that other tools use."""
    return table(("name elsewhere", "here"), ((f"`{name}`", said.do) for name, said in owned.FOREIGN.items()))


@part
def reward_table() -> str:
    """``[[train.reward]]``."""
    return keys(RewardTable)


@part
def reward_builtins() -> str:
    """The built-in rewards."""
    lines = (
        (f"`{name}`", each.summary, f"`{each.requires_dist}`" if each.requires_dist else "nothing")
        for name, each in BUILTINS.items()
    )
    return table(("name", "score", "needs"), lines)


@part
def reward_args() -> str:
    """The settings of each built-in reward."""
    return "\n\n".join(f"`args` of `{name}`:\n\n{keys(each.load().Args)}" for name, each in BUILTINS.items())


@part
def trackers() -> str:
    """What ``report_to`` takes."""
    return table(
        ("`report_to`", "needs one of"),
        ((f"`{name}`", listed(needed) or "nothing") for name, needed in rules.TRACKERS.items()),
    )


@part
def commands() -> str:
    """The help text of every command, those of forge's own plugins after the core's."""
    root = click.Context(cli, terminal_width=100, info_name="forge", **cli.context_settings)
    texts = [f"```text\n{cli.get_help(root).rstrip()}\n```"]
    brought = [command.name for plugin in discover({"FORGE_PLUGINS": ""}).usable for command in plugin.commands]
    for name in (*COMMANDS, *sorted(brought)):
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root, terminal_width=100)
        texts.append(f"## forge {name}\n\n```text\n{command.get_help(context).rstrip()}\n```")
    return "\n\n".join(texts)


@part
def exit_codes() -> str:
    """The errors that forge raises on purpose, with their exit codes."""
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ForgeError)]
    found.sort(key=lambda each: each.exit_code)
    lines = [(f"`{each.__name__}`", str(each.exit_code), _first(inspect.getdoc(each) or "")) for each in found]
    return table(("error", "exit code", "meaning"), lines)


@part
def machines() -> str:
    """The presets of ``FORGE_MACHINE``."""
    lines = []
    for name, machine in PRESETS.items():
        cards = ", ".join(card.name for card in machine.accelerators) or "none"
        torch = machine.torch.version if machine.torch else "none"
        lines.append((f"`{name}`", f"{machine.platform} {machine.arch}", cards, torch))
    return table(("name", "platform", "accelerator", "torch"), lines)


@part
def data_formats() -> str:
    """What each format needs and takes."""

    def names(columns: Mapping[str, tuple[str, ...]]) -> str:
        said = []
        for key, aliases in columns.items():
            others = [alias for alias in aliases if alias != key]
            said.append(f"`{key}`" + (f" (also {listed(others)})" if others else ""))
        return "; ".join(said)

    lines = [(f"`{name}`", names(each.needs), names(each.takes) or "nothing") for name, each in formats.FORMATS.items()]
    return table(("format", "needs", "also takes"), lines)


@part
def data_roles() -> str:
    """Names of speakers."""
    by_role: dict[str, list[str]] = {}
    for name, role in formats.ROLES.items():
        by_role.setdefault(role, []).append(name)
    lines = ((f"`{role}`", listed(names)) for role, names in by_role.items())
    return table(("role", "written as"), lines)


@part
def data_files() -> str:
    """The kinds of files."""
    return f"Readable files: {readers.SUPPORTED}."


@part
def data_templates() -> str:
    """The chat templates that forge ships, with the comment at their beginning."""
    folder = Path(templates.__file__).parent / "chat_templates"
    lines = []
    for name in templates.shipped():
        said = re.match(r"\{#-?\s*(.*?)\s*-?#\}", (folder / f"{name}.jinja").read_text(encoding="utf-8"), re.DOTALL)
        lines.append((f"`{name}`", said[1] if said else ""))
    return table(("name", "what it is"), lines)


@part
def api_offer() -> str:
    """The fields of an offer."""
    return attributes(api.Offer)


@part
def api_extension() -> str:
    """The fields of an extension."""
    return attributes(api.Extension)


@part
def api_vocabulary() -> str:
    """The words of ``Offer.supports``."""
    lines = ((f"`{stage}`", listed(sorted(words))) for stage, words in api.ABILITIES.items())
    return table(("stage", "words"), lines)


@part
def api_hooks() -> str:
    """The hooks of a run."""
    lines = []
    for name, hook in vars(api.RunHooks).items():
        if name.startswith("forge_"):
            signature = inspect.signature(hook)
            arguments = ", ".join(key for key in signature.parameters if key != "self")
            returned = str(signature.return_annotation)
            lines.append((f"`{name}({arguments})`", f"`{returned}`", _first(inspect.getdoc(hook) or "")))
    return table(("hook", "returns", "what it does"), lines)


@part
def api_records() -> str:
    """The records that pass between stages."""
    passed = (api.Data, api.Loaded, api.Trained, api.Exported, api.Decision, api.Finding, api.Event)
    records = (*passed, api.Sampling, api.Prompt, api.Answer, api.Evaluated, api.Estimate, api.Part, api.Lever)
    described = ((each.__name__, _first(inspect.getdoc(each) or ""), attributes(each)) for each in records)
    return "\n\n".join(f"### {name}\n\n{meaning}\n\n{fields_}" for name, meaning, fields_ in described)


SIZES: Mapping[str, tuple[int, int, int, int, int, int, int, bool]] = {
    # Hidden, intermediate, layers, heads, kv heads, head_dim, vocab, tied: from the models' config.json.
    "1B (Llama 3.2)": (2048, 8192, 16, 32, 8, 64, 128256, True),
    "3B (Llama 3.2)": (3072, 8192, 28, 24, 8, 128, 128256, True),
    "4B (Qwen3)": (2560, 9728, 36, 32, 8, 128, 151936, True),
    "8B (Llama 3.1)": (4096, 14336, 32, 32, 8, 128, 128256, False),
    "14B (Qwen3)": (5120, 17408, 40, 40, 8, 128, 151936, False),
    "32B (Qwen3)": (5120, 25600, 64, 64, 8, 128, 151936, False),
    "70B (Llama 3.1)": (8192, 28672, 80, 64, 8, 128, 128256, False),
}
CARDS = {8: 7.9, 12: 11.9, 16: 15.0, 24: 22.5, 32: 31.8, 40: 39.4, 48: 45.0, 80: 79.2, 141: 140.4, 180: 178.0}
"""What cards are sold as, in GB, and the least GiB that the driver says of one: T4, L4 and A10, L40S, H100, H200, …"""


@part
def memory_minimum() -> str:
    """The smallest GPU for a model of a size, as the estimator says."""
    modes: Mapping[str, Mapping[str, Any]] = {
        "QLoRA": {"model": {"load_in_4bit": True, "dtype": "bfloat16"}},
        "LoRA, 16 bit": {"model": {"dtype": "bfloat16"}},
        "every weight": {"model": {"dtype": "float32"}, "adapter": {"type": "none"}},
    }
    head = [f"{mode}, {backend}" for mode in modes for backend in ("transformers", "Unsloth")]
    rows = []
    for name, numbers in SIZES.items():
        cells = []
        for tables in modes.values():
            cells += [smallest(numbers, tables, function) for function in (estimate.estimate, unsloth.estimate)]
        rows.append([name, *cells])
    return table(["model", *head], rows)


MEASURED: Sequence[tuple[str, int, str, Mapping[str, Any], Mapping[str, Any], Mapping[str, float]]] = (
    # Model, rows, what, tables, arguments, GiB by backend. TRL's and Unsloth's plain scripts, and forge's runs.
    ("1B (Llama 3.2)", 4, "LoRA", {}, {}, {"transformers": 4.42, "Unsloth": 3.69}),
    ("1B (Llama 3.2)", 4, "QLoRA", {"load_in_4bit": True}, {}, {"transformers": 2.63, "Unsloth": 2.38}),
    ("1B (Llama 3.2)", 4, "LoRA, no checkpointing", {}, {"gradient_checkpointing": False},
     {"transformers": 17.36, "Unsloth": 11.33}),
    ("1B (Llama 3.2)", 4, "LoRA, all logits at once", {}, {"loss_type": "nll"}, {"transformers": 14.80}),
    ("8B (Llama 3.1)", 2, "LoRA", {}, {}, {"transformers": 17.81, "Unsloth": 16.30}),
    ("8B (Llama 3.1)", 2, "QLoRA", {"load_in_4bit": True}, {}, {"transformers": 7.57, "Unsloth": 6.88}),
)  # fmt: skip


@part
def memory_measured() -> str:
    """What an H200 measured, beside the estimate."""
    rows = []
    for name, count, what, model, train, peaks in MEASURED:
        for backend, gib in peaks.items():
            tables = {"model": {"dtype": "bfloat16", **model}}
            arguments = {"per_device_train_batch_size": count, "loss_type": "chunked_nll", **train}
            function = unsloth.estimate if backend == "Unsloth" else estimate.estimate
            found = estimated(SIZES[name], tables, arguments, function, 140.4, "1.14.2").peak / 2**30
            rows.append([f"{name}, {count} rows", what, backend, f"{gib:.2f}", f"{found:.2f}", f"{found / gib:.3f}"])
    return table(["model", "training", "backend", "measured GiB", "estimated GiB", "ratio"], rows)


def smallest(numbers: tuple[Any, ...], tables: Mapping[str, Any], function: Callable[..., Any]) -> str:
    """Return the smallest card on which a model can be trained, one row of 2048 tokens at a time, and what it takes."""
    for sold, memory in CARDS.items():
        found = estimated(numbers, tables, {"per_device_train_batch_size": 1, "loss_type": "nll"}, function, memory)
        if found.fits:
            return f"{sold} GB ({found.process / 2**30:.1f} GiB)"
    return f"no single one ({found.process / 2**30:,.0f} GiB)"


def estimated(
    numbers: tuple[Any, ...],
    tables: Mapping[str, Any],
    train: Mapping[str, Any],
    function: Callable[..., Any],
    memory: float,
    trl: str = "1.16.0",
) -> Any:
    """Return a backend's estimate for a model of some shape, on a GPU with so many GiB."""
    names = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"]
    names += ["head_dim", "vocab_size", "tie_word_embeddings"]
    shape = shapes.from_config(dict(zip(names, numbers, strict=True)))
    assert shape is not None
    facts = ModelFacts(id="m", source="folder", task="text", shape=shape, parameters=shape.parameters)
    values = {"model": {"id": "m"} | dict(tables["model"]), "adapter": tables.get("adapter", {}), "data": {"path": "d"}}
    job = Job.model_validate(values)
    options_ = {"gradient_checkpointing": True, "bf16": True, **train}
    job = job.model_copy(update={"train": job.train.model_copy(update={"options": options_})})
    machine = PRESETS["linux-cuda"]
    card = replace(machine.accelerators[0], memory=round(memory * 2**30))
    versions = {**machine.versions, "trl": trl}
    return function(replace(machine, accelerators=(card,), versions=versions), job, facts)


def attributes(kind_: type) -> str:
    """Return the table of a dataclass from the ``Attributes`` of its docstring."""
    text = inspect.getdoc(kind_) or ""
    _, _, described = text.partition("Attributes:\n")
    meanings = dict(re.findall(r"^    (\w+): (.*?)(?=^    \w+: |^\S|\Z)", described, re.MULTILINE | re.DOTALL))
    annotations = {name: str(field.type) for name, field in kind_.__dataclass_fields__.items()}  # type: ignore[attr-defined]
    lines = [(f"`{name}`", f"`{annotations[name]}`", _markdown(meanings.get(name, ""))) for name in annotations]
    return table(("field", "type", "meaning"), lines)


def _first(text: str) -> str:
    return _markdown(text.split("\n\n", maxsplit=1)[0])


def _markdown(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())


def render(text: str, where: str) -> str:
    """Return a page with its generated parts made anew. Raises :class:`SystemExit` for an unknown part."""

    def fill(found: re.Match[str]) -> str:
        if found[2] not in PARTS:
            raise SystemExit(f"{where}: there is no generated part {found[2]}; known: {', '.join(PARTS)}")
        return f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}"

    return _PART.sub(fill, text)


def pages() -> dict[Path, tuple[str, str]]:
    """Return every page with its text as it is, and as it should be."""
    found = {}
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        found[path] = (text, render(text, path.name))
    return found


def unused() -> list[str]:
    """Return the parts that no page has."""
    shown = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    return [name for name in PARTS if f"<!-- generated:{name} -->" not in shown]


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description="Write the generated parts of docs/*.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not current")
    check = parser.parse_args(arguments).check
    stale = {path: new for path, (old, new) in pages().items() if old != new}
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding="utf-8", newline="\n")
        print(f"{path.name} {'is not current' if check else 'written'}")
    for name in unused():
        print(f"no page shows the generated part {name}")
    if check and stale:
        print("run: python docs/generate.py")
    return int(check and bool(stale or unused()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

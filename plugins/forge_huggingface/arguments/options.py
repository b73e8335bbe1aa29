"""Says which of a trainer's arguments a user may write in ``[train]``, and what each is if nobody writes it.

A job uses the trainer's own names. This module divides them: those that forge owns, each with a sentence that says
where the wish belongs, and all others, as a pydantic model with bounds, so that a mistake is seen before a model is
loaded. The defaults are one table, TRL's but for the entries of :data:`DEFAULTS`, and the trainer is told every one of
them: Unsloth changes fifteen of TRL's defaults, so a value that is left out is not the same on both backends.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Union, cast

from pydantic import BaseModel, create_model
from pydantic import Field as Described

from forge.api import Hint, Mistake, NonEmpty, Table, folded
from forge_huggingface.arguments.contradictions import CHECKS, STEPS, batches
from forge_huggingface.arguments.effects import without_effect
from forge_huggingface.arguments.fields import table
from forge_huggingface.arguments.foreign import METHODS as METHODS_ELSEWHERE
from forge_huggingface.arguments.owned import NEUTRAL, hint, is_owned
from forge_huggingface.arguments.source import Field
from forge_huggingface.arguments.tables import (
    BOUNDS,
    CHOICES,
    DEFAULTS,
    DEFAULTS_IN,
    HELP,
    LORA_FACTOR,
    LORA_FACTORS,
    MUON,
    OPEN,
    Kernel,
    of,
)
from forge_huggingface.methods import METHODS
from forge_huggingface.rewards.table import RewardTable

_TYPES: Mapping[str, Any] = {
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "list[str]": list[str],
    "list[float]": list[float],
}


class Arguments(Table):
    """What a method's keys in ``[train]`` must agree on: all that the trainer would only say once the model is loaded.

    :func:`build` adds the keys themselves.
    """

    config: ClassVar[str] = "SFTConfig"
    """The class whose fields they are."""

    batch_size: int | None = Described(
        None,
        ge=1,
        le=2**24,
        description="Rows of an optimizer step. forge parts them into batches by the free memory, unless "
        "`per_device_train_batch_size` or `gradient_accumulation_steps` says how.",
    )
    kernels: Literal["auto", "none"] | list[Kernel] = Described(
        "auto",
        description="forge's own kernels in transformers' models: `auto`, `none`, or some of `loss`, `lora`, `swiglu`, "
        "`norm`, `rope`, `mask`. Not with Unsloth, which brings its own.",
    )

    loraplus_lr_ratio: float | None = Described(
        None,
        ge=1,
        le=1e6,
        description="How many times as fast as `learning_rate` LoRA's matrices B are trained (LoRA+); its authors take "
        "16.",
    )
    learning_rates: dict[str, Annotated[float, Described(ge=0)]] = Described(
        {},
        description="Other rates for some parameters: regular expressions, searched for in their names, and the rate "
        'of what fits, as `{ "embed_tokens|lm_head" = 1e-5 }`. The first that fits holds.',
    )

    @classmethod
    def forge_hint(cls, key: str) -> Hint | None:
        """Say where a key belongs that is none of this method's."""
        return hint(key, cls.config)

    @classmethod
    def forge_word(cls, word: str) -> str | None:
        """Say what to write for a method of another tool."""
        return METHODS_ELSEWHERE.get(folded(word))

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the arguments contradict each other in."""
        values = dict(self)
        yield from batches(values, frozenset(self.model_fields_set))
        for check in CHECKS:
            yield from check(values)
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        yield from without_effect(values, frozenset(self.model_fields_set), defaults)


class RewardArguments(Arguments):
    """What methods take that learn from reward functions: keys of forge, beside the trainer's arguments."""

    reward: list[RewardTable] = Described([], description="Reward functions: one or more `[[train.reward]]`.")
    collapse_patience: int | None = Described(
        None, ge=1, description="Stop after this many logs in a row in which no group of answers differs in reward."
    )


class ClassificationArguments(Arguments):
    """What a classifier takes: keys of forge, beside the trainer's arguments."""

    labels: list[Annotated[str, Described(min_length=1)]] | None = Described(
        None,
        min_length=1,
        description="The names of the classes, in the order of the model's numbers. Without it, those that the rows "
        "have: numbers by size, then names by the alphabet.",
    )
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = Described(
        None,
        description="Whether a row has one label, a list of them, or a number. Without it, as the first row has it.",
    )

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the arguments contradict each other in."""
        yield from super().contradictions()
        names, kind = self.labels or [], self.problem_type
        if len(set(names)) < len(names):
            yield Mistake("labels names one of them twice", ("labels",))
        if names and kind == "regression":
            yield Mistake("a regression gives a number and has no labels; remove one", ("labels", "problem_type"))
        if len(names) == 1 and kind != "multi_label_classification":
            yield Mistake("labels has one name: there is nothing to tell it from; name the others", ("labels",))
        if kind in {"regression", "multi_label_classification"} and dict(self).get("label_smoothing_factor"):
            what = f'label_smoothing_factor is for one label of several, and problem_type is "{kind}"; remove it'
            yield Mistake(what, ("label_smoothing_factor", "problem_type"))


class DistillationArguments(Arguments):
    """What distillation takes beside the trainer's arguments: which answers it learns on, as TRL's GKD says it."""

    lmbda: float = Described(
        1.0,
        ge=0,
        le=1,
        description="Share of steps on the model's own answers; the others are on the rows' or the teacher's.",
    )
    seq_kd: bool = Described(
        False, description="Whether the steps that are not on the model's own answers are on the teacher's (`lmbda`)."
    )


class ActingArguments(RewardArguments):
    """What methods take whose model may call something while it is trained."""

    tools: list[NonEmpty] = Described(
        [],
        description="Functions that the model may call while it answers, each as `./tools.py:function` or "
        "`package.module:function`.",
    )
    environment: NonEmpty | dict[str, NonEmpty] | None = Described(
        None,
        description="A class whose methods the model may call, one instance for each answer, as `./game.py:Game`; or "
        "several by name, of which each row names its own in the column `environment`.",
    )


@functools.cache
def train_options(method: str) -> type[BaseModel]:
    """Return the model of the keys that a user may write in ``[train]`` under a method of this plugin."""
    known = METHODS[method]
    if known.rewards:
        base: type[Arguments] = ActingArguments if known.acts else RewardArguments
    elif known.teacher:
        base = DistillationArguments
    else:
        base = ClassificationArguments if known.head == "classification" else Arguments
    return build(known.config, base)


def build(config: str, base: type[Arguments] = Arguments, *, without: frozenset[str] = frozenset()) -> type[BaseModel]:
    """Return a model of the fields of a trainer's config that a job may set.

    Args:
        config: Name of the config class.
        base: A model with further keys and checks; its fields replace the config's of the same name.
        without: Fields of the config that are not to be in it.
    """
    described: dict[str, Any] = {}
    for name, field in usable(config).items():
        if name in base.model_fields or name in without:
            continue
        default, _ = default_of(config, name)
        text = of(HELP, config, name, field.help)
        bounds = cast(Mapping[str, Any], of(BOUNDS, config, name, {}))
        kind = _annotation(config, field, optional=default is None)
        if name in OPEN:  # the bounds are the number's alone
            kind, bounds = _or_auto(kind, tuple(bounds.items())), {}
        described[name] = (Annotated[kind, Described(description=text, **bounds)], default)
    whose = "transformers" if config == "TrainingArguments" else "TRL"
    name, about = config.replace("Config", "Options"), f"Arguments of {whose}'s {config}."
    model = create_model(name, __base__=base, __doc__=about, **described)
    model.config = config
    return model


def usable(config: str = "SFTConfig") -> dict[str, Field]:
    """Return the fields of a config that a job may set."""
    return {name: field for name, field in table(config).items() if not is_owned(name, config)}


def default_of(config: str, name: str) -> tuple[Any, str | None]:
    """Return what an argument is if the job does not set it, and why, where that is not TRL's own default.

    ``None`` where it is filled in when the machine or the version is known.
    """
    field = table(config)[name]
    if name == "loss_type" and config != "SFTConfig":
        return field.default, None
    known = DEFAULTS_IN.get(config, {}).get(name) or DEFAULTS.get(name)
    return known or (field.default, None)


def defaults(adapter_type: str, config: str = "SFTConfig") -> dict[str, Any]:
    """Return what every usable field of a config is if the job does not set it.

    Args:
        adapter_type: ``[adapter] type``.
        config: Name of the config class.

    Returns:
        Values by name. ``bf16`` and ``fp16`` are ``None``: only the machine decides them.
    """
    values = {name: default_of(config, name)[0] for name in usable(config)}
    values["learning_rate"] = learning_rate(adapter_type, config)
    if config == "SFTConfig":
        values["loss_type"] = "nll" if lean_nll() else "chunked_nll"
    return values


def learning_rate(adapter_type: str, config: str) -> float:
    """Return the peak learning rate of a job that names none."""
    full = float(table(config)["learning_rate"].default)
    factor = 1 if adapter_type in {"none", "layers"} else LORA_FACTORS.get(config, LORA_FACTOR)
    return float(f"{full * factor:.12g}")


def filled_in(
    options: Mapping[str, Any],
    adapter_type: str,
    half: Literal["bf16", "fp16"] | None,
    config: str = "SFTConfig",
) -> dict[str, Any]:
    """Return every argument for an installed config, but ``output_dir``.

    Args:
        options: What the job sets: the values of :func:`train_options`; ``None`` is not set.
        adapter_type: ``[adapter] type``.
        half: The machine's 16-bit type for mixed precision, if it has one.
        config: Name of the config class.

    Returns:
        Values by the names of the installed version.
    """
    fields = table(config)
    given = {name: value for name, value in options.items() if not is_owned(name, config) and value is not None}
    if unknown := given.keys() - fields.keys():
        raise ValueError(f"the installed {config} has no {', '.join(sorted(unknown))}")
    chosen = defaults(adapter_type, config) | given
    chosen["eval_strategy"] = chosen["eval_strategy"] or "no"  # the plan has decided it where there are rows for it
    if chosen["bf16"] is None:
        chosen["bf16"] = half == "bf16" and not chosen["fp16"]
    if chosen["fp16"] is None:
        chosen["fp16"] = half == "fp16" and not chosen["bf16"]
    if config == "SFTConfig":
        if lean_nll():
            # A lock that was written under TRL 1.14 runs on: the alias computes the same and would only warn.
            chosen["loss_type"] = "nll" if chosen["loss_type"] == "chunked_nll" else chosen["loss_type"]
        elif chosen["use_liger_kernel"] and "loss_type" not in given:
            chosen["loss_type"] = "nll"  # Liger fuses the loss itself, and 1.14 refuses both at once
    if chosen["optim"] == MUON:
        chosen["optim"] = "adamw_torch"  # a name that transformers knows; forge's trainer makes Muon
    # The trainer deletes old checkpoints before the new one is whole, so forge does it, by this number.
    chosen["save_total_limit"] = None
    neutral = {name: value for name, value in NEUTRAL.items() if name in fields}
    values = {**{name: field.default for name, field in fields.items()}, **neutral, **chosen}
    for old, new in (
        ("gradient_checkpointing", "activation_checkpointing"),
        ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"),
    ):
        if new in fields:  # transformers 5.23 warns of the old name; a job keeps it, as it runs on both
            values[new] = values.pop(old)
    del values["output_dir"]
    return values


def lean_nll() -> bool:
    """Whether ``nll`` is the loss that never holds all logits: TRL 1.15 made it so, and it the default."""
    return bool(table()["loss_type"].default == "nll")


@functools.cache  # one object for all methods, so that their fields are equal
def _or_auto(kind: Any, bounds: tuple[tuple[str, Any], ...]) -> Any:
    number = Annotated[kind, Described(**dict(bounds))] if bounds else kind
    return Union[number, Literal["auto"]]  # noqa: UP007 - as below


def _annotation(config: str, field: Field, *, optional: bool) -> Any:
    names = field.type.split("|")
    choices = of(CHOICES, config, field.name, field.choices)
    if field.name == "optim" and choices:
        choices = (*choices, MUON)
    types: list[Any]
    if choices:
        one = cast(Any, Literal)[choices]
        types = [cast(Any, list)[one], one] if names == ["list[str]"] else [one]
    elif field.name in STEPS:
        types = [int, float]
    elif "dict" in names:
        types = [dict[str, Any]]  # their string form is for command lines
    elif field.name == "pad_to_multiple_of":
        types = [int]  # its "auto" is what no value means
    else:
        types = [_TYPES[name] for name in names if name != "null"]
    # TOML has no null: a field is optional only where it starts so.
    return Union[tuple(types + [None] * optional)]  # noqa: UP007 - the members are known at run time only

"""Names inside values: the arguments of schedules, optimizers, checkpointing, kernels, compiling and generation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from forge.api import Mistake, did_you_mean, literal
from forge_huggingface.arguments.source import generation_names
from forge_huggingface.arguments.tables import CHECKPOINTED, CHECKPOINTING, COMPILE, LIGER, SCHEDULERS, optimizer

NAMED_VALUES: Mapping[str, type | tuple[str, ...]] = {
    "bf16_stochastic_round": bool,
    "block_size": int,
    "centered": bool,
    "compensation_buffer_dtype": ("float32", "bfloat16", "float16"),
    "cooldown": int,
    "debug": bool,
    "decay_type": ("linear", "cosine", "1-sqrt"),
    "determinism_check": ("default", "none"),
    "early_stop": bool,
    "every_n_layers": int,
    "mode": ("min", "max"),
    "momentum_dtype": ("float32", "bfloat16", "float16"),
    "nesterov": bool,
    "num_decay_steps": int,
    "num_stable_steps": int,
    "offload": bool,
    "patience": int,
    "preserve_rng_state": bool,
    "proj": ("random", "svd"),
    "proj_type": ("std", "reverse_std", "right", "left", "full"),
    "rank": int,
    "reset_start": int,
    "scale_type": ("channel", "tensor"),
    "smooth": bool,
    "t_alpha": int,
    "t_beta3": int,
    "threshold_mode": ("rel", "abs"),
    "timescale": int,
    "update_proj_gap": int,
    "use_kahan_summation": bool,
    "use_reentrant": bool,
    "variance_dtype": ("float32", "bfloat16", "float16"),
    "verbose": bool,
    "warmup_type": ("linear", "cosine", "1-sqrt"),
    "window_size": int,
}
"""What a name in ``optim_args``, ``lr_scheduler_kwargs`` and ``gradient_checkpointing_kwargs`` takes; else a number."""

AT_LEAST_ONE = frozenset({"block_size", "every_n_layers", "rank", "update_proj_gap", "window_size"})
"""Names that count what there must be one of: none would divide by zero, or do nothing."""

TRUE_ANYWAY = frozenset({"decouple_lr", "kahan_sum"})
"""Names in ``optim_args`` that transformers takes for true whatever stands there."""


def named(values: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield names inside values that nobody takes, what a schedule lacks, and values that are no such thing."""
    scheduler, given = values["lr_scheduler_type"], values["lr_scheduler_kwargs"] or {}
    if schedule := SCHEDULERS.get(scheduler):
        asked = f'lr_scheduler_type = "{scheduler}"'
        for name in given if schedule.takes else ():  # where it takes none, the key has no effect
            if name not in schedule.takes:
                others = [other for other, each in SCHEDULERS.items() if name in each.takes]
                whose = f"; {name} is for {', '.join(others)}" if others else ""
                yield Mistake(f"{asked} takes no {name}; {_say(name, schedule.takes)}{whose}", ("lr_scheduler_kwargs",))
        for name, value in given.items():
            if name in schedule.takes and (wrong := _wrong_value(name, value)):
                yield Mistake(f"lr_scheduler_kwargs: {wrong}", ("lr_scheduler_kwargs",))
        if schedule.needs and sum(name in given for name in schedule.needs) != 1:
            yield Mistake(
                f"{asked} needs {' or '.join(schedule.needs)}; "
                f"write lr_scheduler_kwargs = {{ {schedule.needs[-1]} = … }}",
                ("lr_scheduler_type", "lr_scheduler_kwargs"),
            )
    known = (*CHECKPOINTING, *CHECKPOINTED)
    for name, value in (values["gradient_checkpointing_kwargs"] or {}).items():
        if name not in known:
            what = f"gradient checkpointing takes no {name}; {_say(name, known)}"
            yield Mistake(what, ("gradient_checkpointing_kwargs",))
        elif wrong := _wrong_value(name, value):
            yield Mistake(f"gradient_checkpointing_kwargs: {wrong}", ("gradient_checkpointing_kwargs",))
    takes, text = optimizer(values["optim"]).takes, (values["optim_args"] or "").replace(" ", "")
    for part in text.split(",") if text and takes != () else ():
        name, equals, value = part.partition("=")
        if not equals or "=" in value:
            yield Mistake(
                f'"{part}" is no name with a value; write optim_args = "name=value,name=value"', ("optim_args",)
            )
        elif takes is not None and name not in takes:
            yield Mistake(f'optim = "{values["optim"]}" takes no {name}; {_say(name, takes)}', ("optim_args",))
        elif takes is not None and (wrong := _wrong_value(name, _read(name, value))):
            yield Mistake(f"optim_args: {wrong}", ("optim_args",))
    if (
        "nesterov" in (takes or ())
        and "nesterov=true" in text.lower()
        and not re.search(r"\bmomentum=0*\.?0*[1-9]", text)
    ):
        yield Mistake("optim_args: nesterov needs a momentum; write momentum=0.9,nesterov=true", ("optim_args",))
    for name in values["liger_kernel_config"] or {}:
        if name not in LIGER:
            yield Mistake(f"Liger has no kernel {name}; {_say(name, LIGER)}", ("liger_kernel_config",))
    if (values["liger_kernel_config"] or {}).get("fused_linear_cross_entropy"):
        what = "liger_kernel_config: fused_linear_cross_entropy would replace the trainer's own loss; remove it"
        yield Mistake(what, ("liger_kernel_config",))
    for name, choices in COMPILE.items():
        if (value := values[name]) is not None and value not in choices:
            yield Mistake(f'{name} = "{value}" is not known to torch; {_say(value, choices)}', (name,))
    generated = values.get("generation_kwargs") or {}
    if generated and not values["use_vllm"] and (known_names := generation_names()):
        for name in generated:
            if name not in known_names:
                near = did_you_mean(name, sorted(known_names), "see transformers' GenerationConfig for the names")
                yield Mistake(f"generation_kwargs: generation takes no {name}; {near}", ("generation_kwargs",))


def _read(name: str, text: str) -> Any:
    """Return a value of ``optim_args`` as what it is read as: a number or a word is a text there."""
    kind = NAMED_VALUES.get(name, float)
    if name in TRUE_ANYWAY or kind is bool:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    try:
        return text if isinstance(kind, tuple) else int(text) if kind is int else float(text)
    except ValueError:
        return text


def _wrong_value(name: str, value: Any) -> str | None:
    """Return what is wrong with a value that stands beside a name, or None."""
    kind = NAMED_VALUES.get(name, float)
    said = value if isinstance(value, str) else literal(value)
    if name in TRUE_ANYWAY:
        return None if value is True else f"{name} = {said} would be taken for true; write {name}=true, or leave it out"
    if isinstance(kind, tuple):
        return None if value in kind else f"{name} must be one of {', '.join(kind)}, not {said}"
    if kind is bool:
        return None if isinstance(value, bool) else f"{name} must be true or false, not {said}"
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if right and name in AT_LEAST_ONE and value < 1:
        return f"{name} must be at least 1, not {said}"
    return None if right else f"{name} must be a {'whole ' if kind is int else ''}number, not {said}"


def _say(name: str, known: Sequence[str]) -> str:
    return did_you_mean(name, known, f"it takes {', '.join(known)}")

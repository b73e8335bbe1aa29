"""Which charts a run gets: the values that people ask for together, and then every other number that was logged.

The names are those that transformers' and TRL's trainers log. A trainer of a plugin may log others; they get charts
too, further down, so nothing that a run measured is left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forge_report.chart import Chart, Line
from forge_report.record import Record, Series

if TYPE_CHECKING:
    from collections.abc import Iterable


GIB = 2**30


@dataclass(frozen=True, slots=True)
class Topic:
    """A chart and the logged values that belong on it.

    Attributes:
        title: Its title.
        names: Patterns of names, in order; each must fit the whole name.
        unit: What the values are counted in.
        zero: Whether the axis of values begins at 0.
        scale: What the values are divided by.
        note: A sentence on how to read it.
        wide: Whether it gets the whole width.
        noisy: Whether its values change at random from step to step.
    """

    title: str
    names: tuple[str, ...]
    unit: str = ""
    zero: bool = False
    scale: float = 1.0
    note: str = ""
    wide: bool = False
    noisy: bool = True


REWARD = Topic("Reward", ("reward", "mean_reward"), wide=True)
LOSS = Topic("Loss", ("loss", r".+_loss"), wide=True)
TOPICS = (
    Topic("Reward by function", (r"rewards/(?!chosen|rejected|margins|accuracies).+/mean",)),
    Topic(
        "Spread of rewards in a group",
        ("reward_std", "frac_reward_zero_std"),
        note="reward_std is the standard deviation in a group, frac_reward_zero_std the share of groups whose "
        "answers all earned the same: those teach nothing.",
    ),
    Topic(
        "Reward of preferred and rejected answers",
        ("rewards/chosen", "rewards/rejected", "rewards/margins", "margin", "min_reward", "max_reward"),
    ),
    Topic("Accuracy", ("rewards/accuracies", "accuracy", "mean_token_accuracy"), "share"),
    Topic("Length of completions", (r"completions/(mean|min|max)_length",), "tokens", zero=True),
    Topic("Completions cut at the limit", ("completions/clipped_ratio",), "share"),
    Topic("KL to the reference", ("kl",)),
    Topic("Entropy", ("entropy",), "nats"),
    Topic("Learning rate", (r"learning_rate(/.+)?",), zero=True, noisy=False),
    Topic("Gradient norm", ("grad_norm",)),
    Topic("Throughput", ("tokens_per_second",), "tokens/s", zero=True),
    Topic("Time of a step", ("step_time", "seconds_per_step"), "s", zero=True),
    Topic("Memory at the peak", ("memory",), "GiB", zero=True, scale=GIB, noisy=False),
)


def charts(record: Record, *, online: bool) -> tuple[list[Chart], list[Chart]]:
    """Return the charts that everybody wants, and those of all other logged values.

    Args:
        record: The run.
        online: Whether rewards of the model's own answers are what it learns from; then reward comes before loss.
    """
    left = {name: (record.steps.get(name), record.evals.get(name)) for name in {**record.steps, **record.evals}}
    clip = gradient_clip(record)
    found = []
    for topic in (REWARD, LOSS, *TOPICS) if online else (LOSS, REWARD, *TOPICS):
        names = [name for pattern in topic.names for name in left if re.fullmatch(pattern, name)]
        lines = _lines({name: left.pop(name) for name in dict.fromkeys(names)}, topic)
        note = topic.note
        if topic is LOSS and online:
            note = "In reinforcement learning the loss does not say whether the model learns; see the reward."
        elif topic.title == "Gradient norm" and clip:
            note = clip
        if lines:
            marks = [(step, f"went on from step {step}") for step in record.resumes]
            found.append(
                Chart(topic.title, lines, unit=topic.unit, zero=topic.zero, marks=marks, note=note, wide=topic.wide)
            )
    others = [Chart(name, _lines({name: left[name]}, Topic(name, ()))) for name in sorted(left)]
    return found, others


def gradient_clip(record: Record) -> str | None:
    """Say how often the gradient was cut to ``max_grad_norm``; None where it never was."""
    options = record.plan.get("job", {}).get("train", {})
    limit, series = options.get("max_grad_norm"), record.steps.get("grad_norm")
    if not isinstance(limit, int | float) or limit <= 0 or series is None:
        return None
    cut = sum(value > limit for value in series.finite())
    return f"Cut to max_grad_norm = {limit:g} at {cut} of {len(series.x)} logged steps." if cut else None


def _lines(values: dict[str, tuple[Series | None, Series | None]], topic: Topic) -> list[Line]:
    found = []
    for name, (trained, held_out) in values.items():
        label = _label(name, alone=len(values) == 1, topic=topic)
        if trained is not None:
            said = label if held_out is None else f"training{_of(label)}"
            found.append(Line(said, _scaled(trained, topic.scale), noisy=topic.noisy))
        if held_out is not None:
            found.append(Line(f"held out{_of(label)}", _scaled(held_out, topic.scale), noisy=False))
    return found


def _label(name: str, *, alone: bool, topic: Topic) -> str:
    if topic in {LOSS, REWARD} and (alone or name == "loss"):
        return topic.title.lower() if alone else ""
    return re.sub(r"^(rewards|completions)/|/mean$", "", name)


def _of(label: str) -> str:
    return f" {label}" if label not in {"", "loss", "reward"} else ""


def _scaled(series: Series, scale: float) -> Series:
    return series if scale == 1 else Series(series.x, [value / scale for value in series.y])


def losses(record: Record) -> Iterable[tuple[str, Series]]:
    """Yield the held-out losses: one, or one of each held-out set, with the set's name."""
    for name, series in record.evals.items():
        if name == "loss" or name.endswith("_loss"):
            yield name.removesuffix("loss").removesuffix("_"), series

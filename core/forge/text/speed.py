"""How fast a run was, as text: seconds by what they went into, tokens, and the share of the device's limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forge.text.units import amount, clock, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Times:
    """What the events of a run's last training tell of its speed.

    Attributes:
        seconds: By what they went into, in running order.
        facts: Figures for people, by name.
    """

    def __init__(self, events: Iterable[Mapping[str, Any]] = ()) -> None:
        self.seconds: dict[str, float] = {}
        self.facts: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self._preloaded = 0.0
        for event in events:
            self.take(event)

    def take(self, event: Mapping[str, Any]) -> None:
        """Take the next event."""
        kind, stage = event.get("kind"), str(event.get("stage"))
        if kind == "preloaded":
            self._preloaded = _number(event, "seconds")
        elif kind == "stage" and event.get("state") == "started":
            if stage == "collate":  # a worker that trains: whatever came before, another one did
                self.seconds, self.facts = {"import": self._preloaded}, {}
                self._begun = {}
            self._begun[stage] = _number(event, "time")
        elif kind == "stage" and event.get("state") == "finished":
            if stage == "train" and "first step" in self.seconds:
                known = sum(self.seconds.get(name, 0.0) for name in _OF_TRAINING)
                self.seconds["save weights"] = max(0.0, _number(event, "seconds") - known)
            else:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + _number(event, "seconds")
        elif kind == "training" and "train" in self._begun:
            self.seconds["prepare"] = max(0.0, _number(event, "time") - self._begun["train"])
        elif kind == "speed":
            self._speed(event)

    def _speed(self, event: Mapping[str, Any]) -> None:
        later, steps = _number(event, "seconds"), int(_number(event, "steps"))
        own = {"first step": _number(event, "first"), "later steps": later}
        own |= {"evaluations": _number(event, "evaluating"), "checkpoints": _number(event, "saving")}
        self.seconds |= {name: each for name, each in own.items() if each}
        if steps:
            self.facts["step"] = f"{later / steps:.3g} s, the first {_number(event, 'first'):.3g} s"
        tokens, padding, share = (_known(event, name) for name in ("tokens_per_second", "padding", "share"))
        flops, peak = _known(event, "flops"), _known(event, "peak")
        if tokens is not None:
            said = f"{tokens:,.0f} a second"
            if padding is not None and later:
                said += f"; {_number(event, 'padded') / later:,.0f} with padding, which is {percent(padding)}"
            self.facts["tokens"] = said
        if share is not None and peak is not None:
            limit = f"of {amount(peak / 1e12)} TFLOP/s in 16 bit went into tokens of rows (MFU)"
            self.facts["limit"] = f"{percent(share)} {limit}"
        elif flops is not None:
            self.facts["work"] = f"{flops / 1e12:.3g} TFLOP/s, padding included"

    @property
    def lines(self) -> list[str]:
        """The lines that tell it; none for a run that has not come so far."""
        if "first step" not in self.seconds:
            return []
        each = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items() if seconds >= 0.05)
        whole = clock(sum(self.seconds.values()))
        return [f"{'time':<12}{whole}: {each}", *(f"{name:<12}{said}" for name, said in self.facts.items())]


_OF_TRAINING = ("prepare", "first step", "later steps", "evaluations", "checkpoints")


def _number(event: Mapping[str, Any], name: str) -> float:
    return _known(event, name) or 0.0


def _known(event: Mapping[str, Any], name: str) -> float | None:
    value = event.get(name)
    return float(value) if isinstance(value, int | float) else None

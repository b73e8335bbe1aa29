"""The self-teacher's weights: what the student was, an average of what it has been, or what it is.

The teacher is the student's own model under other values of its trained parameters, and these values are all that is
held: with LoRA a few megabytes, and no second model. They are put in place for the teacher's forward pass and taken out
after it. So the teacher begins equal to the student in every case, a model that exists only in memory and an adapter
that goes on training included; TRL's SDPO rebuilds it from the model's name and starts its adapter from zeros.

The average is kept in float32. In bfloat16, θ' ← (1-a)θ' + aθ with a = 0.01 rounds back to θ' and never moves.
"""

from __future__ import annotations

import json
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

import torch
from trl.models.utils import disable_gradient_checkpointing

from forge.api import PluginError, RunError
from forge_sdpo import head
from forge_sdpo.objective import widened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

Kind = Literal["ema", "trust-region", "frozen", "live"]

FILE = "teacher.safetensors"
"""Its name in a checkpoint."""


class Teacher:
    """The teacher's weights (the paper's appendix A.2).

    Args:
        model: The student, with its adapter, before it is trained.
        kind: ``ema``: θ' ← (1-a)θ' + aθ after each batch of rollouts. ``trust-region``: q ∝ exp((1-a) log q₀ + a log
            q_θ), the initial and the current student mixed in their logits. ``frozen``: the initial student. ``live``:
            the current one.
        rate: a.

    Attributes:
        views: The models that a teacher's logits are made of: pairs of their weight and whether the held values are to
            be in place.
    """

    def __init__(self, model: Any, kind: Kind, rate: float) -> None:
        self.kind, self.rate = kind, rate
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.views: tuple[tuple[float, bool], ...] = {
            "ema": ((1.0, True),),
            "frozen": ((1.0, True),),
            "live": ((1.0, False),),
            "trust-region": ((1.0 - rate, True), (rate, False)),
        }[kind]
        self.held: dict[str, Any] = {}
        self.average: dict[str, Any] = {}
        if kind == "live":
            return
        self.held = {name: p.detach().clone() for name, p in self.trained.items()}
        if kind == "ema":
            # A whole model's average would not fit beside it; an adapter's costs nothing where it is.
            adapter = hasattr(model, "peft_config")
            self.average = {
                name: value if value.dtype == torch.float32 else value.float().to(value.device if adapter else "cpu")
                for name, value in self.held.items()
            }

    def place(self, *, held: bool) -> AbstractContextManager[None]:
        """Have the model be one of :attr:`views` for a while: its held values, or the student as it is."""
        return self._swapped() if held else nullcontext()

    @contextmanager
    def speaks(self, model: Any, checkpointing: dict[str, Any] | None, *, held: bool) -> Iterator[None]:
        """Have the model be the teacher for a while: one of :attr:`views`, without dropout and gradients.

        Args:
            model: The student.
            checkpointing: The arguments of gradient checkpointing, which is off meanwhile.
            held: Which view.
        """
        training = [module for module in model.modules() if module.training]
        try:
            with torch.no_grad(), disable_gradient_checkpointing(model, checkpointing), self.place(held=held):
                model.eval()
                yield
        finally:
            for module in training:
                module.training = True

    def logits(
        self, model: Any, ids: Any, mask: Any, chosen: Any, checkpointing: dict[str, Any] | None
    ) -> Callable[[int, int], Any]:
        """Run the teacher over some rows; return a function that makes the logits of chosen tokens.

        Args:
            model: The student.
            ids: The teacher's prompts with the answers, (rows, tokens).
            mask: Which of them are there, (rows, tokens).
            chosen: Which tokens of the answers are asked for, (rows, answer's tokens).
            checkpointing: As for :meth:`speaks`.

        Returns:
            Takes the first of the chosen tokens and the one behind the last; returns (tokens, vocabulary).
        """
        views = []
        for weight, held in self.views:
            with self.speaks(model, checkpointing, held=held):
                states = head.hidden_states(model, ids, mask, chosen.size(1))
            views.append((weight, held, states[chosen]))
        head_of = head.logits_of(model)

        def logits(first: int, last: int) -> Any:
            found = []
            for _, held, states in views:
                with torch.no_grad(), self.place(held=held):
                    found.append(head_of(states[first:last]))
            if len(found) == 1:
                return found[0]
            return sum(view[0] * widened(each) for view, each in zip(views, found, strict=True))

        return logits

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        students = {name: p.data for name, p in self.trained.items()}
        kind = next(iter(students.values())).device.type
        # Within autocast a weight is cast once and the cast is kept: the student would go on with the teacher's.
        kept = torch.is_autocast_enabled(kind) and torch.is_autocast_cache_enabled()
        try:
            for name, parameter in self.trained.items():
                parameter.data = self.held[name]
            with torch.autocast(kind, torch.get_autocast_dtype(kind), cache_enabled=False) if kept else nullcontext():
                yield
        finally:
            for name, parameter in self.trained.items():
                parameter.data = students[name]

    def follow(self) -> None:
        """Take the student's step into the average. To be called once for each batch of rollouts."""
        for name, average in self.average.items():
            average.lerp_(self.trained[name].detach().to(average.device, average.dtype), self.rate)
            if average is not self.held[name]:
                self.held[name].copy_(average)

    def distance(self) -> float:
        """Return the norm of what the student differs by from the held values, relative to theirs."""
        moved = [(p.detach().float() - self.held[n].float()).norm() for n, p in self.trained.items() if n in self.held]
        whole = [value.float().norm() for value in self.held.values()]
        return float(torch.stack(moved).norm() / torch.stack(whole).norm()) if moved else 0.0

    def save(self, folder: Path) -> None:
        """Write the held values into a checkpoint; the average as it is, in float32."""
        from safetensors.torch import save_file

        values = {name: value.detach().cpu().contiguous() for name, value in (self.average or self.held).items()}
        save_file(values, folder / FILE, metadata={"teacher": json.dumps({"kind": self.kind, "rate": self.rate})})

    def load(self, folder: Path) -> None:
        """Read back what :meth:`save` wrote.

        Raises:
            RunError: The checkpoint has no teacher.
            PluginError: It is another model's, or of another kind.
        """
        if self.kind == "live":
            return
        from safetensors import safe_open

        path = folder / FILE
        if not path.exists():
            raise RunError(f"{folder.name} has no teacher", f"{FILE} is missing", "restore it, or start a new run")
        with safe_open(str(path), framework="pt") as file:
            said = json.loads(file.metadata()["teacher"])
            if said["kind"] != self.kind or set(file.keys()) != set(self.held):
                why = f"{said['kind']}, {len(file.keys())} values"
                raise PluginError(f"the teacher in {folder.name} is another", why)
            for name, target in (self.average or self.held).items():
                target.copy_(file.get_tensor(name))
        for name, value in self.average.items():
            if value is not self.held[name]:
                self.held[name].copy_(value)

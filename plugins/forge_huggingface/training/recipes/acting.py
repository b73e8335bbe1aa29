"""Calls while the model answers: TRL's loop of tools and environments, with what it leaves unsaid.

TRL calls the tools, appends what they return, and lets the model go on; of the loss it masks all that the model has not
written (``_tool_call_loop`` of GRPOTrainer, trl 1.14.2 and 1.16). A result for which there is no room any more it takes
back, and a call beyond the last turn it leaves: here these answers are counted.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from forge.api import DataError, ModelError
from forge_huggingface.acting.preflight import WHICH
from forge_huggingface.rows import set_apart

if TYPE_CHECKING:
    from forge_huggingface.acting.load import Acting


class Calling:
    """Put before a trainer of an online method whose model may call something.

    Args:
        acting: What it may call; None for nothing.
        room: The most tokens of a prompt.
        arguments: The trainer's.
    """

    def __init__(self, *, acting: Acting | None = None, room: int = 0, **arguments: Any) -> None:
        self.acting, self.room = acting, room
        with warnings.catch_warnings():
            # TRL says that environments may change; docs/rewards.md says it.
            warnings.filterwarnings("ignore", "You are using 'environment_factory'")
            super().__init__(**arguments, **(acting.arguments() if acting else {}))

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        if self.acting is not None and self.acting.several:
            (name,) = set_apart({WHICH: None})
            inputs = [{**row, WHICH: row[name]} for row in inputs]
        return super()._generate_and_score_completions(inputs)  # type: ignore[misc]  # the trainer behind it

    def _tokenize_prompts(self, prompts: Any) -> Any:
        found = super()._tokenize_prompts(prompts)  # type: ignore[misc]
        if self.acting is not None and self.acting.environments:
            longest = max(map(len, found[0]))
            if longest > self.room:
                what = f"an environment's reset has made a prompt of {longest} tokens"
                why = f"max_seq_length leaves {self.room} beside max_completion_length"
                raise DataError(what, why, "raise it, or let reset return less")
        return found

    def _tool_call_loop(self, *arguments: Any) -> Any:
        found = super()._tool_call_loop(*arguments)  # type: ignore[misc]
        trainer: Any = self
        left = torch.tensor([_calls(answer) for answer in found[1]], device=trainer.accelerator.device)
        share = trainer.accelerator.gather(left.float()).mean().item()
        trainer._metrics["train" if trainer.model.training else "eval"]["tools/unanswered"].append(share)  # noqa: SLF001
        return found


def _calls(answer: Any) -> bool:
    """Whether an answer ends with a call that nobody has answered."""
    return bool(answer) and bool(answer[-1].get("tool_calls"))


def check_positions(model: Any) -> None:
    """Refuse a model that does not say how many positions it has, which TRL asks before it appends a result.

    Raises:
        ModelError: It does not.
    """
    if not isinstance(getattr(model.config, "max_position_embeddings", None), int):
        why = "its config has no max_position_embeddings, by which TRL tells whether a tool's result has room"
        raise ModelError(f"{type(model).__name__} cannot be trained with tools", why, "take another model")

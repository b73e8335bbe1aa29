"""Going on from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from forge.api import RunError


def take_weights(trainer: Any, checkpoint: Path) -> None:
    """Restore a training that had ended and lacked only its last files.

    The trainer would train one step more, since it looks whether to stop only after a step. Its loaders are private;
    they are the same in transformers 5.17 and 5.23, and a test holds that.
    """
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    restore_best(trainer.args, trainer.state)
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or str(checkpoint))  # noqa: SLF001


def restore_best(args: Any, state: Any) -> None:
    """Point a restored state at its best checkpoint, which it knows by a path of the folder it once ran in.

    Raises:
        RunError: The job wants the best weights, and they are gone.
    """
    if not state.best_global_step:
        return
    best = Path(args.output_dir) / f"checkpoint-{state.best_global_step}"
    if best.is_dir():
        state.best_model_checkpoint = str(best)
    elif args.load_best_model_at_end:
        raise RunError(f"{best.name}, the best one, is gone", "load_best_model_at_end needs it", "restore it")

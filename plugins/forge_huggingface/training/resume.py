"""Going on from a checkpoint as if nothing had happened.

transformers restores weights, optimizer, schedule and random numbers. What it and TRL only keep in memory is written
beside them: sums that the next log is a mean of, the sum that ``train_loss`` is a mean of, counters, and a reference
model that follows the trained one. All are private there; transformers 5.17 and 5.23 and TRL 1.14 and 1.16 have them
under the same names, and the tests hold that.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import RunError
from forge.disk.checkpoints import rotate
from forge.disk.files import write_text
from forge_huggingface.training.together import joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from forge.api import Run

NUMBERS = "numbers.json"
"""The numbers in a checkpoint that the trainer's own files lack."""

REFERENCE = "reference.safetensors"
"""A reference model that follows the trained one, in a checkpoint."""

_TOKENS = "_total_train_tokens"
_COUNTERS = ("_step", "entropy_coef", "_last_world_entropy")
_MEASURED = ("_metrics", "_stored_metrics")


def own(trainer: Any) -> dict[str, Any]:
    """Return what a process has in memory of its own rows: their tokens, and what was measured since the last log."""
    kept = {name: found["train"] for name in _MEASURED if (found := getattr(trainer, name, None)) is not None}
    return {
        "loss": float(trainer._tr_loss),  # noqa: SLF001
        "tokens": getattr(trainer, _TOKENS, 0),
        "measured": {
            name: {key: [*map(float, values)] for key, values in lists.items()} for name, lists in kept.items()
        },
    }


def remember(trainer: Any, checkpoint: Path, owned: Sequence[dict[str, Any]], more: dict[str, Any]) -> None:
    """Write into a checkpoint what the trainer only keeps in memory.

    Args:
        trainer: The trainer of rank 0.
        checkpoint: The checkpoint.
        owned: What :func:`own` gives in each process, by rank.
        more: What is to be beside it.
    """
    from transformers import EarlyStoppingCallback

    numbers = {
        "processes": owned,
        "total_loss": trainer._total_loss_scalar,  # noqa: SLF001
        "logged": trainer._globalstep_last_logged,  # noqa: SLF001
        "seconds": trainer.seconds(),
        "training": trainer.model.training,
        "learning": trainer.learning.state(),
        "counters": {name: getattr(trainer, name) for name in _COUNTERS if hasattr(trainer, name)},
        "without_gain": [
            each.early_stopping_patience_counter
            for each in trainer.callback_handler.callbacks
            if isinstance(each, EarlyStoppingCallback)
        ],
        **more,
    }
    write_text(checkpoint / NUMBERS, json.dumps(numbers))  # a measure may be no number, which JSON proper lacks
    if follows(trainer):
        from safetensors.torch import save_model

        save_model(trainer.accelerator.unwrap_model(trainer.ref_model), str(checkpoint / REFERENCE))


def recall(trainer: Any, checkpoint: Path) -> dict[str, Any]:
    """Take up what :func:`remember` wrote, and return it; of a checkpoint of forge 0.1, which lacks it, {}."""
    import torch
    from transformers import EarlyStoppingCallback

    if follows(trainer) and (checkpoint / REFERENCE).exists():
        from safetensors.torch import load_model

        load_model(trainer.accelerator.unwrap_model(trainer.ref_model), str(checkpoint / REFERENCE))
    if not (checkpoint / NUMBERS).exists():
        trainer.learning.restore(None)
        return {}
    numbers: dict[str, Any] = json.loads((checkpoint / NUMBERS).read_text(encoding="utf-8"))
    trainer.learning.restore(numbers.get("learning"))
    mine = share(
        owned(numbers), trainer.args.process_index, trainer.args.world_size, apart=getattr(trainer, "apart", False)
    )
    trainer._tr_loss = torch.tensor(mine["loss"], device=trainer.args.device)  # noqa: SLF001
    if hasattr(trainer, _TOKENS):
        setattr(trainer, _TOKENS, mine["tokens"])
    trainer._total_loss_scalar = numbers["total_loss"]  # noqa: SLF001
    trainer._globalstep_last_logged = numbers["logged"]  # noqa: SLF001
    trainer.seconds_before = numbers["seconds"]
    for name, value in numbers["counters"].items():
        setattr(trainer, name, value)
    for name, kept in mine["measured"].items():
        getattr(trainer, name)["train"].update(kept)
    stopping = [each for each in trainer.callback_handler.callbacks if isinstance(each, EarlyStoppingCallback)]
    for callback, count in zip(stopping, numbers["without_gain"], strict=True):
        callback.early_stopping_patience_counter = count
    return numbers


def owned(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what each process had; a checkpoint of forge 0.1 has it of one, in another form."""
    if "processes" in numbers:
        found: list[dict[str, Any]] = numbers["processes"]
        return found
    tokens = numbers["counters"].get(_TOKENS, 0)
    return [{"loss": numbers["loss"], "tokens": tokens, "measured": numbers["measured"]}]


def share(every: Sequence[dict[str, Any]], rank: int, size: int, *, apart: bool) -> dict[str, Any]:
    """Return what one of so many processes goes on with, where so many as ``every`` has left off.

    Args:
        every: What :func:`own` gave in each process.
        rank: The process.
        size: How many go on.
        apart: Whether each had measured its own rows; else all have measured the same.
    """
    if len(every) == size:
        return every[rank]
    loss = sum(each["loss"] for each in every) / len(every)
    if not apart:
        return {**every[0], "loss": loss}
    if rank:
        return {"loss": loss, "tokens": 0, "measured": {}}
    names = every[0]["measured"]
    return {
        "loss": loss,
        "tokens": sum(each["tokens"] for each in every),
        "measured": {name: joined([each["measured"][name] for each in every]) for name in names},
    }


def check_number(trainer: Any, run: Run) -> Iterator[str]:
    """Yield what will differ from a training in as many processes as wrote the checkpoint that is gone on from.

    Raises:
        RunError: Each process draws random numbers of its own as it trains.
    """
    if run.resume is None or not (run.resume / NUMBERS).exists():
        return
    was, now = len(owned(json.loads((run.resume / NUMBERS).read_text(encoding="utf-8")))), run.world_size
    if was == now:
        return
    if (found := next(_drawn(trainer), None)) is not None:
        raise RunError(
            f"the run cannot go on in {now} process{'es' * (now != 1)}",
            f"it began in {was}, and {found} draws random numbers, of which each process has its own",
            f"go on with {was} (`forge resume {run.folder} --processes`), or start a new run",
        )
    rows, batch = trainer.train_dataset, trainer.args.per_device_train_batch_size
    if hasattr(rows, "__len__") and (len(rows) % (batch * was) or len(rows) % (batch * now)):
        what = f"{len(rows)} rows are no multiple of what {was} and {now} take at once"
        yield f"the run began in {was} and goes on in {now}: {what}, so epochs end with other rows than they would have"


def _drawn(trainer: Any) -> Iterator[str]:
    """Yield by what a forward pass in training draws random numbers."""
    from torch.nn.modules.dropout import _DropoutNd

    if trainer.args.neftune_noise_alpha:
        yield "neftune_noise_alpha"
    for name, module in trainer.model.named_modules():
        shares = {"p": module.p} if isinstance(module, _DropoutNd) else vars(module)
        for key, share in shares.items():  # attention and whole layers are dropped by numbers of their modules
            if isinstance(share, float) and share > 0 and (key == "p" or "drop" in key):
                yield f"{name}.{key} = {share:g}"


def follows(trainer: Any) -> bool:
    """Whether the reference model follows the trained one, so that no checkpoint of the trainer's has it."""
    return bool(getattr(trainer.args, "sync_ref_model", False)) and getattr(trainer, "ref_model", None) is not None


def take_weights(trainer: Any, checkpoint: Path) -> None:
    """Restore a training that had ended and lacked only its last files, with what its end would have logged.

    The trainer would train one step more, since it looks whether to stop only after a step. Its loaders are private;
    they are the same in transformers 5.17 and 5.23, and a test holds that.
    """
    from transformers import TrainerState

    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    restore_best(trainer.args, trainer.state)
    if numbers := recall(trainer, checkpoint):
        whole = share(owned(numbers), 0, 1, apart=getattr(trainer, "apart", False))
        total = numbers["total_loss"] + whole["loss"]
        left = whole["measured"].get("_metrics", {}) if numbers["training"] else {}
        means = {name: sum(values) / len(values) for name, values in left.items() if values}
        end = {"train_loss": total / trainer.state.global_step, "train_runtime": round(numbers["seconds"], 4)}
        trainer.state.log_history.append({**end, **means})
    best = trainer.state.best_model_checkpoint if trainer.args.load_best_model_at_end else None
    trainer._load_from_checkpoint(best or str(checkpoint))  # noqa: SLF001
    if trainer.optimizer_name.startswith("schedule_free") and not best:
        import torch

        trainer.create_optimizer()  # its state tells the averaged weights
        state = torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True)
        trainer.optimizer.load_state_dict(state)


def drop_old(args: Any, state: Any, limit: int | None) -> None:
    """Delete the oldest checkpoints, but for the best one; what a kill has kept an earlier worker from, too."""
    best = [Path(state.best_model_checkpoint)] if state.best_model_checkpoint else []
    rotate(Path(args.output_dir), limit or sys.maxsize, best)


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

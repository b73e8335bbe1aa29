"""Several processes that train together: what the trainer is told of it, and whether it really does it.

Much goes wrong without a word there: on a CPU accelerate lets each process train alone unless it is told to use it, and
takes sharding for none (accelerate 1.15, ``AcceleratorState``). So what was made is held to what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from forge.api import Data, DataError, Noted, PluginError
from forge.text.units import counted
from forge_huggingface.kernels import seams

if TYPE_CHECKING:
    from forge.api import Job, Run


def together(job: Job, run: Run, model: Any) -> dict[str, Any]:
    """Return the trainer's arguments for the processes of a run.

    What a step trains on is the job's: they share its batches (:mod:`forge_huggingface.memory.fit` sees to it that they
    can).
    """
    if run.world_size == 1:
        return {}
    steps = int(job.train.options["gradient_accumulation_steps"])
    values = {"gradient_accumulation_steps": steps // run.world_size, "ddp_timeout": job.launch.timeout}
    if (sets := job.train.options.get("steps_per_generation")) is not None:
        values["steps_per_generation"] = int(sets) // run.world_size
    if job.launch.shard == "full":
        return {**values, "fsdp": "full_shard auto_wrap", "fsdp_config": {"version": 2}}
    # Each forward would send all buffers, tables that are the same everywhere; but running statistics are not.
    return {**values, "ddp_find_unused_parameters": False, "ddp_broadcast_buffers": _keeps_statistics(model)}


def _keeps_statistics(model: Any) -> bool:
    """Tell whether a model has layers that count as they train, such as those of batch normalisation."""
    return any(getattr(module, "running_mean", None) is not None for module in model.modules())


def keep_exact(config: Any) -> None:
    """Have a sharded model compute as a whole one does: accelerate (1.15) would round its outputs and gradients too.

    Under ``bf16`` a whole model multiplies in 16 bit; its log-probabilities and the gradients of weights in 32 bit
    are in 32 bit.
    """
    if not config.fsdp or not config.bf16:
        return
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    config.fsdp_plugin_args["mixed_precision_policy"] = policy


def part_reference(job: Job, run: Run) -> None:
    """Have DPO's reference parted layer by layer, as the model is that is trained.

    TRL parts it as one (1.14 and 1.16, ``prepare_fsdp``): all of it would be on each GPU to be parted, and again in
    each forward pass.
    """
    if run.plan.launch.shard != "full" or job.train.method != "dpo" or not job.adapter.leaves_model:
        return
    from accelerate.utils.fsdp_utils import fsdp2_prepare_model
    from trl.trainer import dpo_trainer

    def prepare(model: Any, accelerator: Any) -> Any:
        return fsdp2_prepare_model(accelerator, model).eval()

    seams.replace(dpo_trainer, "prepare_fsdp", prepare)


def share_gradients(trainer: Any) -> None:
    """Have gradients lie where they are summed up, so that each is there once, and copied once."""
    if (handler := getattr(trainer.accelerator, "ddp_handler", None)) is not None:
        handler.gradient_as_bucket_view = True


def check_together(trainer: Any, run: Run) -> None:
    """Refuse a trainer that would train in another number of processes. Raises :class:`PluginError`."""
    if (there := trainer.accelerator.num_processes) != run.world_size:
        what = f"the trainer counts {there} process{'es' * (there != 1)}, and {run.world_size} train"
        raise PluginError(
            what, f"accelerate took them for {trainer.accelerator.distributed_type}", "please report this"
        )


def check_wrapped(trainer: Any, run: Run) -> None:
    """Refuse a model that is not held as the plan says. Raises :class:`PluginError`."""
    if run.world_size == 1:
        return
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel

    wanted = FSDPModule if run.plan.launch.shard == "full" else DistributedDataParallel
    if not isinstance(trainer.model_wrapped, wanted):
        what = f"the model is a {type(trainer.model_wrapped).__name__} where {wanted.__name__} is due"
        raise PluginError(what, "the processes would not train together as planned", "please report this")


def gathered(trainer: Any, run: Run) -> dict[str, Any] | None:
    """Return all weights of a model that each process holds a part of, in main memory of rank 0; None if it has all.

    The trainer's own saving of sharded weights depends on a setting and may write nothing, without a word
    (transformers 5.17 and 5.23).
    """
    if run.plan.launch.shard != "full":
        return None
    found: dict[str, Any] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    tied = getattr(trainer.accelerator.unwrap_model(trainer.model), "all_tied_weights_keys", None) or {}
    # Gathered they are two; as one they are written once, as those of a whole model.
    return found | {name: found[other] for name, other in tied.items() if name in found and other in found}


def slowest(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the longest time and the most memory of what all processes found."""
    return {
        name: max(values)
        for name in ("seconds", "memory")
        if (values := [each[name] for each in found if each.get(name) is not None])
    }


def joined(found: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    """Return what processes have measured as if one had; the tokens so far, which each counts of its own, are a sum."""
    every: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for each in found for name in each):
        values = [value for each in found for value in each.get(name, ())]
        every[name] = [sum(values)] if name == "num_tokens" else values
    return every


def check_batches(trainer: Any) -> None:
    """Refuse rows that fill no batch, where smaller ones are left out. Raises :class:`DataError`."""
    args, rows = trainer.args, trainer.train_dataset
    if not args.dataloader_drop_last or not hasattr(rows, "__len__"):
        return
    batch = args.per_device_train_batch_size * args.world_size
    if len(rows) < batch:
        several = f" of {args.world_size} processes" if args.world_size > 1 else ""
        raise DataError(
            f"there is no whole batch: {counted(len(rows), 'row')}, and one{several} takes {batch}",
            "dataloader_drop_last leaves smaller ones out, so nothing would be trained",
            "remove [train] dataloader_drop_last, or lower per_device_train_batch_size",
        )


def filled_up(trainer: Any, data: Data) -> Noted | None:
    """Say of rows that the processes cannot share evenly that some count twice, or not at all; None if they can."""
    args = trainer.args
    if args.world_size == 1 or not hasattr(data.train, "__len__"):
        return None
    batch = args.per_device_train_batch_size * args.world_size
    if not (rest := len(trainer.train_dataset) % batch):
        return None
    count = len(trainer.train_dataset)
    what = f"{counted(count, 'row')} {'is' if count == 1 else 'are'} no multiple of {args.world_size} batches"
    if args.dataloader_drop_last:
        return Noted(f"{what} of {args.per_device_train_batch_size}: {counted(rest, 'row')} less in each epoch")
    return Noted(
        f"{what} of {args.per_device_train_batch_size}: at the end of an epoch {batch - rest} of its first rows are "
        "trained on once more, where one process would take a smaller batch",
        "[train] dataloader_drop_last = true leaves the last ones out",
    )

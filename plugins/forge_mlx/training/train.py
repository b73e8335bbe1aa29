"""TRAIN: the loop, and what it leaves in the run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Data, Loaded, Trained, Warned
from forge_mlx import TRAINED
from forge_mlx.saving import folder_of, save
from forge_mlx.training.loop import Loop

if TYPE_CHECKING:
    from forge.api import Job, Run


def train(job: Job, run: Run, loaded: Loaded, data: Data) -> Trained:
    """Train, from the checkpoint that the run goes on from if there is one, and leave the weights in the run folder.

    Raises:
        OutOfMemory: The longest batch does not fit.
        ModelError: The loss is no number any more.
        Interrupted: The user asked to stop; a checkpoint has been saved.
    """
    loop = Loop(job, run, loaded.model.module, data)
    warnings: tuple[str, ...] = ()
    if run.dry_run:
        loop.try_longest()
    else:
        loop.run_all()
        if loop.state.logs and loop.state.idle == loop.state.logs:
            what = "nothing was learned: in all logged steps the gradient was exactly 0"
            run.emit(Warned(what, "see `forge data` for what is in the loss"))
            warnings = (what,)
    facts, state, best = run.plan.facts, loop.state, loop.options["load_best_model_at_end"]
    trained = Trained(
        weights=folder_of(job),
        kind="full" if job.adapter.type == "none" else "adapter",
        task=facts.task,
        base={"id": job.model.id, "revision": facts.revision, "digest": facts.digest, "path": facts.path},
        processor=folder_of(job),
        traits=TRAINED,
        best_step=state.best_step if best else None,
        metrics={"train_loss": state.total / max(1, state.step), **state.evaluated},
        warnings=warnings,
    )
    if not run.dry_run:
        save(job, run, loaded.model, data.processor, trained)
    return trained

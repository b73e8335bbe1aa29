"""The plugin ``submit``: jobs for Slurm, Hugging Face Jobs and SkyPilot.

Each target is a :class:`forge.api.Submitter` in a module of its own, imported when a job is sent there. None schedules
or moves anything itself: they write what the target's own tool takes, and call that tool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Check, Target, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def forge_targets() -> Iterable[Target]:
    """Bring the targets."""
    yield Target("hf-jobs", "Hugging Face Jobs: one machine of theirs, by the minute.", "forge_submit.hf_jobs:HfJobs")
    yield Target("skypilot", "A cloud, by SkyPilot's managed jobs.", "forge_submit.skypilot:SkyPilot")
    yield Target("slurm", "A Slurm cluster that shares its disk with this machine.", "forge_submit.slurm:Slurm")


@hookimpl
def forge_checks() -> Iterable[Check]:
    """Bring what `forge doctor` says of them."""
    yield Check("tools", "What a job is sent with: sbatch, sky, huggingface_hub.", "forge_submit.checks:tools")

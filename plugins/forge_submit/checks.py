"""What ``forge doctor`` says of the targets: which of their tools are here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from forge.api import Finding
from forge_submit.tools import is_there

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Machine

NO_SBATCH = "sbatch is not installed here, so this machine is of no Slurm cluster"
SEND_THERE = "send it from a login node of the cluster, where sbatch is"
NO_SKY = "sky is not installed here"
INSTALL_SKY = 'pip install "skypilot[aws]", then `sky check`'
NO_HUB = "huggingface_hub is not installed here"
INSTALL_HUB = 'pip install -U "huggingface-hub>=1.33"'


def tools(machine: Machine) -> Iterable[Finding]:
    """Yield a note for each target that nothing can be sent to from here."""
    del machine  # what is installed beside Python, no preset tells
    if not is_there("sbatch"):
        yield Finding("note", f"--to slurm: {NO_SBATCH}", SEND_THERE)
    if not is_there("sky"):
        yield Finding("note", f"--to skypilot: {NO_SKY}", INSTALL_SKY)
    if find_spec("huggingface_hub") is None:
        yield Finding("note", f"--to hf-jobs: {NO_HUB}", INSTALL_HUB)

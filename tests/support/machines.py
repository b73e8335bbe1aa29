"""Machines on which Unsloth could run, and those on which it could not: no test here needs a GPU."""

from __future__ import annotations

from dataclasses import replace

from forge.machine.machine import Accelerator, Machine, TorchBuild
from forge.machine.presets import PRESETS

VERSIONS = {
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
    "datasets": "4.8.5",
    "peft": "0.21.2",
    "torch": "2.13.0+cu130",
    "torchvision": "0.28.0+cu130",
    "transformers": "5.17.0",
    "triton": "3.7.0",
    "trl": "1.14.2",
    "unsloth": "2026.10.7",
    "unsloth-zoo": "2026.10.7",
}

FIT: Machine = replace(PRESETS["linux-cuda"], versions=VERSIONS)
"""Everything that Unsloth asks for."""


def with_card(capability: str) -> Machine:
    """Return the fit machine with a GPU of another generation."""
    card = Accelerator("cuda", "NVIDIA something", 16 * 1024**3, capability, "580.95.05")
    return replace(FIT, accelerators=(card,))


def with_versions(**versions: str | None) -> Machine:
    """Return the fit machine with other versions installed; None is not installed."""
    changed = {**VERSIONS, **{name.replace("_", "-"): version for name, version in versions.items()}}
    return replace(FIT, versions={name: version for name, version in changed.items() if version is not None})


CPU_TORCH = replace(with_versions(torch="2.13.0+cpu"), torch=TorchBuild("2.13.0+cpu"))
NO_GPU = replace(CPU_TORCH, accelerators=())
WINDOWS = replace(FIT, platform="win32", arch="AMD64")
MACOS = replace(PRESETS["macos"], versions=VERSIONS)
WSL = replace(FIT, wsl=True)

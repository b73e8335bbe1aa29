"""Machines to plan for, by name or from a file: ``FORGE_MACHINE`` puts one in the place of this computer.

So a plan for a Windows computer or a cluster node can be made, and tested, anywhere.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forge.errors import UsageError
from forge.machine.machine import Accelerator, Machine, TorchBuild
from forge.machine.probe import probe, versions

if TYPE_CHECKING:
    from collections.abc import Mapping


def current(environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> Machine:
    """Return the machine that ``FORGE_MACHINE`` describes, or else this one.

    Of packages that no preset tells, those that are installed here are taken to be there.

    Args:
        environ: The environment.
        folder: As in :func:`probe`.

    Raises:
        UsageError: If ``FORGE_MACHINE`` is neither a preset's name nor a file with a machine.
    """
    value = environ.get("FORGE_MACHINE", "")
    if not value:
        return probe(folder)
    if value in PRESETS:
        preset = PRESETS[value]
        told = {name for each in PRESETS.values() for name in each.versions}
        here = {name: version for name, version in versions(sys.path).items() if name not in told}
        return replace(preset, versions={**here, **preset.versions})
    presets = ", ".join(PRESETS)
    do = f"give a preset ({presets}) or a JSON file like the `machine` part of a plan.json"
    path = Path(os.path.expanduser(value))  # noqa: PTH111 - a home that is not there is a file that is not
    try:
        return Machine.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        why = "there is neither such a preset nor such a file"
        if not isinstance(error, FileNotFoundError):
            why = f"the file cannot be read ({error.strerror})"
        raise UsageError(f"FORGE_MACHINE = {value!r} describes no machine", why, do) from error
    except ValueError as error:  # bad JSON, bad UTF-8, or not a machine
        raise UsageError(f"FORGE_MACHINE = {value!r} describes no machine", str(error), do) from error


_GIB = 1024**3


def _preset(
    platform: str,
    arch: str,
    torch: TorchBuild,
    *accelerators: Accelerator,
    memory: int = 64 * _GIB,
    bitsandbytes: bool = True,
    mlx: bool = False,
) -> Machine:
    versions = {
        "accelerate": "1.15.0",
        "bitsandbytes": "0.50.2",
        "datasets": "5.2.0",
        "peft": "0.21.2",
        "pillow": "13.0.0",
        "torch": torch.version,
        "transformers": "5.23.0",
        "trl": "1.16.0",
    }
    if torch.cuda and platform == "linux":
        versions["triton"] = "3.7.0"  # it comes with such a torch
    if not bitsandbytes:
        del versions["bitsandbytes"]
    if mlx:
        versions |= {"mlx": "0.32.4", "mlx-lm": "0.32.2"}
    return Machine(
        platform=platform,
        arch=arch,
        wsl=False,
        python="3.12.10",
        cores=16,
        memory=memory,
        accelerators=accelerators,
        disk=500 * _GIB,
        versions=versions,
        torch=torch,
    )


_RTX_4090 = Accelerator("cuda", "NVIDIA GeForce RTX 4090", 24 * _GIB, "8.9", "580.95.05")
_T4 = Accelerator("cuda", "Tesla T4", 16 * _GIB, "7.5", "580.95.05")
_A100 = Accelerator("cuda", "NVIDIA A100-SXM4-80GB", 80 * _GIB, "8.0", "580.95.05")
_H100 = Accelerator("cuda", "NVIDIA H100 80GB HBM3", 80 * _GIB, "9.0", "580.95.05")
_MI300X = Accelerator("rocm", "AMD Instinct MI300X", 192 * _GIB, "gfx942")
_CPU_TORCH = TorchBuild("2.13.0+cpu")
_CUDA_TORCH = TorchBuild("2.13.0+cu130", "13.0")


def _macos(*, mlx: bool) -> Machine:
    gpu, memory = Accelerator("mps", "Apple M2", 16 * _GIB), 16 * _GIB
    return _preset("darwin", "arm64", TorchBuild("2.13.0"), gpu, memory=memory, bitsandbytes=False, mlx=mlx)


PRESETS: Mapping[str, Machine] = {
    "linux-cuda": _preset("linux", "x86_64", _CUDA_TORCH, _RTX_4090),
    "linux-t4": _preset("linux", "x86_64", _CUDA_TORCH, _T4),
    "linux-a100": _preset("linux", "x86_64", _CUDA_TORCH, _A100),
    "linux-h100": _preset("linux", "x86_64", _CUDA_TORCH, _H100),
    "linux-rocm": _preset("linux", "x86_64", TorchBuild("2.13.0+rocm7.1", hip="7.1"), _MI300X),
    "linux-cpu": _preset("linux", "x86_64", _CPU_TORCH),
    "windows-cpu": _preset("win32", "AMD64", _CPU_TORCH, bitsandbytes=False),
    "windows-cuda-cpu-torch": _preset("win32", "AMD64", _CPU_TORCH, _RTX_4090),
    "macos": _macos(mlx=False),
    "macos-mlx": _macos(mlx=True),
}
"""Machines to plan for, by name."""

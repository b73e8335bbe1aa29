"""What forge knows about a computer, without torch.

Choosing a backend must not import one, so the machine is described by plain data: :func:`probe` reads it from drivers
and file names (see :mod:`forge.hardware`), plans carry it as JSON, and ``FORGE_MACHINE`` puts another machine in its
place, so that a plan for a Windows computer or a cluster node can be made, and tested, anywhere.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from forge.errors import UsageError

_GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator that programs started here may use.

    Attributes:
        kind: ``"cuda"``, ``"rocm"`` or ``"mps"``.
        name: The maker's name of it.
        memory: Bytes of memory; None if unknown. For ``"mps"`` this is the system's memory, which it shares.
        capability: CUDA compute capability as in ``"9.0"``, or the gfx name of a ROCm device.
        driver: Version of its driver.
    """

    kind: str
    name: str
    memory: int | None = None
    capability: str | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """What the installed torch was built for, read from its ``version.py`` as text.

    Attributes:
        version: As in ``"2.13.0+cpu"``.
        cuda: The CUDA version that it was built with; None for a build without CUDA.
        hip: The same for ROCm.
    """

    version: str
    cuda: str | None = None
    hip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A computer, as far as plans depend on it.

    Attributes:
        platform: ``sys.platform``: ``"linux"``, ``"darwin"``, ``"win32"``.
        arch: Processor architecture: ``"x86_64"``, ``"AMD64"``, ``"arm64"``.
        wsl: Whether this is Linux inside Windows.
        python: Version of Python, as in ``"3.11.7"``.
        cores: Processor cores that this process may use.
        memory: Bytes of main memory that this process may use.
        accelerators: The visible accelerators, in their own order.
        disk: Free bytes where the run will be written; None if unknown.
        versions: Installed distributions: normalised name to version.
        torch: The installed torch; None if there is none.
    """

    platform: str
    arch: str
    wsl: bool
    python: str
    cores: int
    memory: int
    accelerators: tuple[Accelerator, ...]
    disk: int | None
    versions: Mapping[str, str] = field(hash=False)
    torch: TorchBuild | None

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of accelerator that are there, whether the installed torch can use them or not."""
        return frozenset(accelerator.kind for accelerator in self.accelerators)

    @property
    def usable_kinds(self) -> frozenset[str]:
        """The kinds of accelerator that the installed torch can use."""
        if self.torch is None:
            return frozenset()
        built = {"cuda": self.torch.cuda is not None, "rocm": self.torch.hip is not None}
        # Every macOS build of torch for Apple silicon has MPS; version.py says nothing about it.
        built["mps"] = self.platform == "darwin" and self.arch == "arm64"
        return frozenset(kind for kind in self.kinds if built.get(kind, False))

    def mismatch(self) -> str | None:
        """Return a sentence about a card that the installed torch cannot use, or None if all is well.

        A CPU build of torch beside an NVIDIA card is what plain ``pip install torch`` gives on Windows: everything
        works, many times slower than expected.
        """
        if self.torch is None:
            return None
        usable = self.usable_kinds
        card = next((card for card in self.accelerators if card.kind not in usable), None)
        if card is None or usable:
            return None
        build = "a CUDA" if self.torch.cuda else "a ROCm" if self.torch.hip else "a CPU"
        needed = {"cuda": "CUDA", "rocm": "ROCm", "mps": "arm64"}.get(card.kind, card.kind)
        article = "an" if card.name[:1] in "AEIMNOaeio" else "a"
        return (
            f"torch {self.torch.version} is {build} build beside {article} {card.name}; "
            f"install the {needed} build: {_install_line(card)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the machine as plain data."""
        data = asdict(self)
        data["accelerators"] = list(data["accelerators"])
        data["versions"] = dict(self.versions)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Machine:
        """Rebuild a machine from :meth:`to_json`'s data.

        Raises:
            ValueError: If a key is missing, unknown, or of another type.
        """
        _check(data, _MACHINE_TYPES, "the machine")
        for card in data["accelerators"]:
            _check(card, _ACCELERATOR_TYPES, "an accelerator")
        if data["torch"] is not None:
            _check(data["torch"], _TORCH_TYPES, "torch")
        known = dict(data)
        known["accelerators"] = tuple(Accelerator(**card) for card in data["accelerators"])
        known["versions"] = {str(name): str(version) for name, version in data["versions"].items()}
        known["torch"] = None if data["torch"] is None else TorchBuild(**data["torch"])
        return cls(**known)


_OPTIONAL_TEXT = (str, type(None))
_OPTIONAL_COUNT = (int, type(None))
_MACHINE_TYPES: Mapping[str, tuple[type, ...]] = {
    "platform": (str,), "arch": (str,), "wsl": (bool,), "python": (str,), "cores": (int,), "memory": (int,),
    "accelerators": (list,), "disk": _OPTIONAL_COUNT, "versions": (dict,), "torch": (dict, type(None)),
}  # fmt: skip
_ACCELERATOR_TYPES: Mapping[str, tuple[type, ...]] = {
    "kind": (str,), "name": (str,), "memory": _OPTIONAL_COUNT, "capability": _OPTIONAL_TEXT, "driver": _OPTIONAL_TEXT,
}  # fmt: skip
_TORCH_TYPES: Mapping[str, tuple[type, ...]] = {"version": (str,), "cuda": _OPTIONAL_TEXT, "hip": _OPTIONAL_TEXT}


def _check(data: Any, types: Mapping[str, tuple[type, ...]], what: str) -> None:
    if not isinstance(data, Mapping):
        raise ValueError(f"{what} must be a JSON object, not {data!r}")
    for key in types:
        if key not in data:
            raise ValueError(f"{what} lacks {key!r}")
    for key, value in data.items():
        if key not in types:
            raise ValueError(f"{what} has an unknown key {key!r}")
        if not isinstance(value, types[key]):
            raise ValueError(
                f"{what} has {key} = {value!r}, which is not {' or '.join(t.__name__ for t in types[key])}"
            )


def _install_line(card: Accelerator) -> str:
    if card.kind == "cuda":
        # CUDA 13 needs driver 580 or newer; 12.6 runs on what is older.
        digits = (card.driver or "").partition(".")[0]
        index = "cu126" if digits.isdigit() and int(digits) < 580 else "cu130"
        return f"pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/{index}"
    return "see https://pytorch.org/get-started/locally/"


def probe(folder: Path | None = None) -> Machine:
    """Look at this computer, without importing torch.

    Args:
        folder: Where the run will be written, for the free space there; the working folder if None.
    """
    from forge import hardware

    memory = hardware.memory()
    return Machine(
        platform=sys.platform,
        arch=hardware.arch(),
        wsl=hardware.is_wsl(),
        python=".".join(map(str, sys.version_info[:3])),
        cores=hardware.cores(),
        memory=memory,
        accelerators=hardware.accelerators(os.environ, memory),
        disk=hardware.free_disk(folder or Path()),
        versions=hardware.versions(sys.path),
        torch=hardware.torch_build(),
    )


def current(environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> Machine:
    """Return the machine that ``FORGE_MACHINE`` describes, or else this one.

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
        return PRESETS[value]
    presets = ", ".join(PRESETS)
    do = f"give a preset ({presets}) or a JSON file like the `machine` part of a plan.json"
    path = Path(value).expanduser()
    try:
        return Machine.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        why = "there is neither such a preset nor such a file"
        if not isinstance(error, FileNotFoundError):
            why = f"the file cannot be read ({error.strerror})"
        raise UsageError(f"FORGE_MACHINE = {value!r} describes no machine", why, do) from error
    except ValueError as error:  # bad JSON, bad UTF-8, or not a machine
        raise UsageError(f"FORGE_MACHINE = {value!r} describes no machine", str(error), do) from error


def _preset(
    platform: str,
    arch: str,
    torch: TorchBuild,
    *accelerators: Accelerator,
    memory: int = 64 * _GIB,
    bitsandbytes: bool = True,
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
    if not bitsandbytes:
        del versions["bitsandbytes"]
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
_CPU_TORCH = TorchBuild("2.13.0+cpu")

PRESETS: Mapping[str, Machine] = {
    "linux-cuda": _preset("linux", "x86_64", TorchBuild("2.13.0+cu130", "13.0"), _RTX_4090),
    "linux-cpu": _preset("linux", "x86_64", _CPU_TORCH),
    "windows-cpu": _preset("win32", "AMD64", _CPU_TORCH, bitsandbytes=False),
    "windows-cuda-cpu-torch": _preset("win32", "AMD64", _CPU_TORCH, _RTX_4090),
    "macos": _preset(
        "darwin",
        "arm64",
        TorchBuild("2.13.0"),
        Accelerator("mps", "Apple M2", 16 * _GIB),
        memory=16 * _GIB,
        bitsandbytes=False,
    ),
}
"""Machines to plan for, by name."""

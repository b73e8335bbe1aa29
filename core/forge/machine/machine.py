"""What forge knows about a computer, as plain data.

Choosing a backend must not import one, so the machine is described by a record: :mod:`forge.machine.probe` fills it in
from drivers and file names, plans carry it as JSON, and :mod:`forge.machine.presets` puts another one in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from forge import records

_STRICT = {"extra": "forbid"}  # people write machines by hand, and a typo must not be ignored


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator that programs started here may use.

    Attributes:
        kind: ``"cuda"``, ``"rocm"`` or ``"mps"``.
        name: The maker's name of it.
        memory: Bytes of memory; None if unknown. For ``"mps"`` this is the system's memory, which it shares.
        capability: CUDA compute capability as in ``"9.0"``, or the gfx name of a ROCm device.
        driver: Version of its driver.
        free: Bytes of its memory that no program held when it was looked at; None if unknown.
    """

    __pydantic_config__: ClassVar = _STRICT

    kind: str
    name: str
    memory: int | None = None
    capability: str | None = None
    driver: str | None = None
    free: int | None = None


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """What the installed torch was built for, read from its ``version.py`` as text.

    Attributes:
        version: As in ``"2.13.0+cpu"``.
        cuda: The CUDA version that it was built with; None for a build without CUDA.
        hip: The same for ROCm.
    """

    __pydantic_config__: ClassVar = _STRICT

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
        available: Bytes of main memory that a program could get when it was looked at; None if unknown.
    """

    __pydantic_config__: ClassVar = _STRICT

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
    available: int | None = None

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
        """Return the machine as JSON data."""
        data: dict[str, Any] = records.to_json(self)
        return data

    @classmethod
    def from_json(cls, data: Any) -> Machine:
        """Rebuild a machine from :meth:`to_json`'s data.

        Raises:
            ValueError: A key is missing, unknown, or of another type.
        """
        return records.from_json(cls, data)


def _install_line(card: Accelerator) -> str:
    if card.kind == "cuda":
        # CUDA 13 needs driver 580 or newer; 12.6 runs on what is older.
        digits = (card.driver or "").partition(".")[0]
        index = "cu126" if digits.isdigit() and int(digits) < 580 else "cu130"
        return f"pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/{index}"
    return "see https://pytorch.org/get-started/locally/"

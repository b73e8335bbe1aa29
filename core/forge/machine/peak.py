"""How fast an accelerator can multiply at best, from its makers' data sheets: what shares of the limit are taken of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.machine.machine import Accelerator

TERA = 1e12

PEAKS: tuple[tuple[str, float], ...] = (
    # Words of NVML's name, all of which must be in it, and dense bfloat16 (float16 before Ampere) in TFLOP/s.
    ("GB300", 2500),
    ("GB200", 2500),
    ("B300", 2250),
    ("B200", 2250),
    ("GH200", 989),
    ("H200 NVL", 836),
    ("H200", 989),
    ("H100 NVL", 836),
    ("H100 PCIe", 756),
    ("H100", 989),
    ("H800 PCIe", 756),
    ("H800", 989),
    ("H20", 148),
    ("A100", 312),
    ("A800", 312),
    ("A40", 150),
    ("A30", 165),
    ("A10G", 70),
    ("A10", 125),
    ("L40S", 362),
    ("L40", 181),
    ("L4", 121),
    ("RTX PRO 6000", 504),
    ("RTX 6000 Ada", 364),
    ("RTX A6000", 155),
    ("RTX 5090", 209),
    ("RTX 5080", 113),
    ("RTX 5070 Ti", 88),
    ("RTX 5070", 62),
    ("RTX 4090", 165),
    ("RTX 4080 SUPER", 104),
    ("RTX 4080", 97),
    ("RTX 4070 Ti SUPER", 88),
    ("RTX 4070 Ti", 80),
    ("RTX 4070 SUPER", 71),
    ("RTX 4070", 58),
    ("RTX 3090 Ti", 80),
    ("RTX 3090", 71),
    ("RTX 3080 Ti", 68),
    ("RTX 3080", 60),
    ("V100", 125),
    ("T4", 65),
    ("MI355X", 2500),
    ("MI350X", 2300),
    ("MI325X", 1307),
    ("MI300X", 1307),
    ("MI250X", 383),
)
"""Dense, without sparsity, with sums in 32 bit, which halves it on GeForce cards. The longer name stands first."""


def peak_flops(card: Accelerator | None) -> float | None:
    """Return the floating-point operations a second of an accelerator at best, in 16 bit; None if that is unknown.

    Instances of a cut card (MIG) and the slower cards of one name in laptops are unknown too.

    Example:
        >>> from forge.machine.machine import Accelerator
        >>> peak_flops(Accelerator("cuda", "NVIDIA H200"))
        989000000000000.0
        >>> peak_flops(Accelerator("mps", "Apple M2")) is None
        True
    """
    if card is None or card.kind not in {"cuda", "rocm"} or "MIG" in card.name:
        return None
    words = _words(card.name)
    for name, tera in PEAKS:
        if _holds(words, _words(name)) and not {"laptop", "mobile", "max"} & set(words):
            return tera * TERA
    return None


def _words(name: str) -> list[str]:
    return name.lower().replace("-", " ").split()


def _holds(words: list[str], wanted: list[str]) -> bool:
    """Whether words stand in a name one after the other."""
    count = len(wanted)
    return any(words[start : start + count] == wanted for start in range(len(words) - count + 1))

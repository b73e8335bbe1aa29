"""The variables under which Unsloth runs: no counting of uses, no installing, no falling back, and forge's cache."""

from __future__ import annotations

import functools
import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from forge.api import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

REWRITTEN = ("unsloth", "trl", "transformers", "torch")
"""What the files that Unsloth generates depend on."""


def environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for a worker; parents give workers no other ``UNSLOTH_*`` than these."""
    return {
        "UNSLOTH_DISABLE_STATISTICS": "1",  # it would fetch small files from the hub to count uses
        "UNSLOTH_AUTO_INSTALL": "0",  # it would run apt-get and cmake, with sudo, for exports that forge makes itself
        "UNSLOTH_DISABLE_CPU_FALLBACK": "1",  # no GPU is an error, not a run that takes a week
        "UNSLOTH_DISABLE_AUTO_PADDING_FREE": "1",  # the batches are forge's, the same on every backend
        "UNSLOTH_COMPILE_LOCATION": str(compiled(environ)),  # else ./unsloth_compiled_cache, wherever one stands
    }


def compiled(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the modules that Unsloth generates: one for each combination of versions."""
    return cache_folder(environ) / "unsloth" / "-".join(_version(name) for name in REWRITTEN)


@functools.cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"

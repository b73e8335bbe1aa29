"""What the plugins ``unsloth-text`` and ``unsloth-vision`` share: when Unsloth can serve a job, and how to call it.

Unsloth replaces parts of transformers, trl, peft and torch for the whole process, so it is imported by the worker
alone, before everything else, and never while planning. Here it is only called: nothing of its code is copied.
"""

from __future__ import annotations

REQUIRES = (
    # Exact: it is released several times a month, rewrites trl as text, and a resolver falls back without a word.
    "unsloth==2026.10.7",
    "unsloth_zoo==2026.10.7",
    "torch>=2.4,<2.15",
    "transformers>=5.17,<=5.17.0",
    "trl>=1.14.2,<1.15",
    "peft>=0.18",
    "datasets>=4.7,<5",
    "accelerate>=1.10",
    "bitsandbytes>=0.45.5,!=0.46.0,!=0.48.0",
    "triton>=3.0",
)
"""The versions that forge was tested with, inside those that Unsloth itself accepts."""

PLATFORMS = frozenset({"linux"})
"""Linux, and Windows through WSL. Unsloth runs on Windows too; nobody has run forge with it there yet."""

ACCELERATORS = frozenset({"cuda"})

PATCHED = "unsloth-patched"
"""The trait of a model that Unsloth loaded: only Unsloth's own adapters fit it."""

PRELOAD = ("unsloth",)

BEFORE = ("trl", "transformers", "peft")
"""What Unsloth must be imported before, since it replaces parts of them as they are loaded."""

PATCHES = frozenset({"unsloth"})
"""Whose import changes other libraries for the whole process: no worker without it in its plan may have it."""

SHEDS = ("UNSLOTH_",)
"""Prefixes of Unsloth's variables: what a user's shell holds of them must not change a run."""

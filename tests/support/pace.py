"""How slow this machine is just now, for tests of what must be fast."""

from __future__ import annotations

import functools
import subprocess
import sys

QUIET = 0.05
"""Processor seconds that Python takes on a quiet machine to start and to import what every command needs."""


@functools.cache
def slowness() -> float:
    """Return how many times longer than a quiet machine this one takes; at least 1, and 1 where nobody can tell."""
    if sys.platform == "win32":
        return 1.0
    import resource

    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", "import click, importlib.metadata"], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return max(1.0, min(found) / QUIET)

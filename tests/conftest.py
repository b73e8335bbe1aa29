"""What holds for every test; the fixtures that several folders ask for are in ``support/fixtures.py``."""

from __future__ import annotations

import os

# The models are tiny and the tests run side by side: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What the person at this machine wants, and what was asked of the plugins that are installed here, is not for tests.
os.environ["FORGE_CONFIG"] = ""

pytest_plugins = ["support.fixtures"]

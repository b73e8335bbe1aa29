"""For authors of plugins: a check of the contract as forge's own plugins pass it, and whole runs in a second or two.

``check_plugin("zip")`` checks an installed plugin. ``run_job(toml, tmp_path)`` runs a job with it: on a tiny model that
is made there, with light stages in place of those that the plugin does not bring, in processes as ``forge run`` has
them. ``pytest_plugins = ["forge.testing.fixtures"]`` gives the same as the fixture ``forge_run``.
"""

from __future__ import annotations

from forge.testing.checks import check_implementation, check_offer, check_plugin
from forge.testing.running import Ran, run_job
from forge.testing.tiny import make_model, make_rows

__all__ = ["Ran", "check_implementation", "check_offer", "check_plugin", "make_model", "make_rows", "run_job"]

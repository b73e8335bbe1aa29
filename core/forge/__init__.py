"""forge: fine-tune language models from one job file.

Plugins import :mod:`forge.api`, :mod:`forge.disk` and :mod:`forge.text`; the command is :mod:`forge.cli`.
"""

__version__ = "0.1.0"

DISTRIBUTION = "forge-train"
"""The distribution whose plugins are forge's own."""

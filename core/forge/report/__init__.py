"""``forge runs RUN --html``: one page about a run that needs nothing but itself.

No script, no network, no fonts: it can be mailed, kept beside the weights, printed, and opened in ten years. What it
shows of models and files is escaped in one place (:mod:`forge.report.markup`), and the page forbids itself to load
anything.
"""

from __future__ import annotations

from forge.report.page import render, write_report

__all__ = ["render", "write_report"]

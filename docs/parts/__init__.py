"""The generated parts of the pages: tables that the code knows best, made by functions that cog calls.

A page holds the call between marks, and cog writes what :func:`show` prints below it:

    <!-- [[[cog from parts import job, show; show(job.model()) ]]] -->
    <!-- [[[end]]] -->

``nox -s generate`` writes the parts and ``nox -s docs`` holds the pages to them. Trainer arguments are taken from the
committed table of the newest tested versions, so that no page depends on which trl is installed.
"""

from __future__ import annotations


def show(text: str) -> None:
    """Write a part into the page, with the blank lines that Markdown wants around a table."""
    import cog  # cog's own module, there while it runs

    cog.outl(f"\n{text}\n")

"""What is looked at before the model is loaded, so that a bundle does not fail after the training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import Finding

from forge_bundle.licence import licence_of

if TYPE_CHECKING:
    from forge.api import Data, Job, Run


def preflight(job: Job, run: Run, data: Data) -> Iterator[Finding]:
    """Yield what speaks against the bundles of a job."""
    facts = run.plan.facts
    for export in job.export:
        if export.format != "bundle/tar":
            continue
        if not export.options["licence"] and licence_of(Path(facts.path) if facts.path else None) is None:
            what = f"{facts.id} does not say under which licence it is, and the bundle will not either"
            yield Finding("warning", what, 'write licence = "…" in [[export]]')
        if export.push_to_hub and not _token():
            yield Finding(
                "error", f"there is no token to upload to {export.push_to_hub}", "log in with `hf auth login`"
            )


def _token() -> str | None:
    try:
        from huggingface_hub import get_token
    except ImportError:
        return None
    token: str | None = get_token()
    return token

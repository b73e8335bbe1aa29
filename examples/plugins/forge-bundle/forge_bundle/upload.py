"""Uploads a bundle to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import ExportError, first_line

if TYPE_CHECKING:
    from forge.api import ExportTable


def upload(folder: Path, export: ExportTable) -> str:
    """Upload a finished export to the repository that the job names, and return its address.

    Raises:
        ExportError: The hub does not take it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi()
    try:
        hub.create_repo(export.push_to_hub, private=export.private, exist_ok=True)
        hub.upload_folder(
            repo_id=export.push_to_hub,
            folder_path=folder,
            allow_patterns=["*.tar*"],
            commit_message="Upload a bundle",
        )
    except (HfHubHTTPError, OSError) as error:
        raise ExportError(f"{export.push_to_hub} could not be written", first_line(error)) from error
    return f"{hub.endpoint}/{export.push_to_hub}"

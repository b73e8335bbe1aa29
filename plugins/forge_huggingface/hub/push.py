"""Uploading a folder to the model hub. The token comes from the environment or the login, and is written nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import ExportError, first_line
from forge_huggingface.facts.lookup import NOT_LOGGED_IN
from forge_huggingface.hub.snapshot import transport_errors

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import ExportTable


def upload(folder: Path, export: ExportTable) -> str:
    """Upload a finished export as its table says, and return its address. Raises as :func:`push` does."""
    assert export.push_to_hub
    return push(folder, export.push_to_hub, private=export.private)


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload a folder's files to ``user/name``, made if it is not there, and return its address.

    Raises:
        ExportError: There is no token, it may not write there, or the hub cannot be reached. The files stay in place.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    what = f"cannot upload to {name}"
    if get_token() is None:
        raise ExportError(what, *NOT_LOGGED_IN)
    api = HfApi()
    try:
        url = api.create_repo(name, private=private, exist_ok=True)
        if private and not api.model_info(name).private:
            raise ExportError(what, "it exists and is public", "write private = false, or take another name")
        api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Upload by forge", ignore_patterns=["export.json"]
        )
    except HFValidationError as error:
        raise ExportError(what, "it is no hub id", 'write push_to_hub = "user/name"') from error
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        why = {401: "the token is not valid", 403: "the token may not write there"}.get(code or 0)
        raise ExportError(what, why or first_line(error)) from error
    except Exception as error:
        if not isinstance(error, (OSError, *transport_errors())):  # requests' connection errors are the system's
            raise
        raise ExportError(what, f"the hub cannot be reached ({type(error).__name__})", "try again later") from error
    return str(url)

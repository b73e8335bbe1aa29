"""The model hub as the parent process sees it: what the download cache holds, and one small request.

``huggingface_hub`` is slow to import and belongs to the plugins. To choose between them forge needs only a model's
config.json, so this module knows the cache's layout and the hub's answers to one request, and no more.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


NOT_LOGGED_IN = ("nobody is logged in to the hub", "`hf auth login`, or set HF_TOKEN")
"""Why nothing can be uploaded where there is no token, and what to do about it."""

_TIMEOUT = 5.0  # seconds; a plan can do without the answer
_LIMIT = 4 * 1024 * 1024  # bytes; configs with long label lists reach some hundred kilobytes
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})  # huggingface_hub's own reading


class Unreachable(Exception):  # noqa: N818 - a state of the network
    """The hub gave no usable answer; the text says why."""


def is_offline(environ: Mapping[str, str] = os.environ, *, data: bool = False) -> bool:
    """Return whether the environment forbids to ask the hub; ``data`` has a variable of its own, too."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *(("HF_DATASETS_OFFLINE",) if data else ()))
    return any(environ.get(name, "").upper() in _TRUE for name in names)


def endpoint(environ: Mapping[str, str] = os.environ) -> str:
    """Return the hub's address."""
    return environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def home(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder in which Hugging Face's libraries keep their files."""
    if environ.get("HF_HOME"):
        return Path(environ["HF_HOME"]).expanduser()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "huggingface"


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder into which models are downloaded."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(environ[name]).expanduser()
    return home(environ) / "hub"


def token(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the user's token for the hub. It must never be printed or written."""
    if environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN", "").upper() in _TRUE:
        return None
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if environ.get(name, "").strip():
            return environ[name].strip()
    path = Path(environ["HF_TOKEN_PATH"]).expanduser() if environ.get("HF_TOKEN_PATH") else home(environ) / "token"
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except (OSError, ValueError):
        return None


def cached(
    model: str, revision: str | None, environ: Mapping[str, str] = os.environ, *, file: str = "config.json"
) -> Path | None:
    """Return the cache's snapshot folder of a model, if it holds its config; its name is the commit."""
    revision = revision or "main"
    folder = cache_folder(environ) / f"models--{model.replace('/', '--')}"
    commit = revision
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        try:
            commit = (folder / "refs" / revision).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            return None
    snapshot = folder / "snapshots" / commit
    return snapshot if commit and (snapshot / file).is_file() else None


def fetch_config(
    model: str, revision: str | None, environ: Mapping[str, str] = os.environ, *, file: str = "config.json"
) -> tuple[dict[str, Any], str | None]:
    """Ask the hub for a model's config.json, or for the config of an adapter.

    Returns:
        The config, and the commit that the revision stands for.

    Raises:
        ModelError: If the hub says that the model is not there, or not for this user.
        Unreachable: If it gives no usable answer.
    """
    # Only here: urllib.request costs 30 ms, and most plans find the model on disk.
    import http.client
    import urllib.error
    import urllib.parse
    import urllib.request

    commit: str | None = None

    class Redirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(
            self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
        ) -> urllib.request.Request | None:
            nonlocal commit
            commit = headers.get("X-Repo-Commit") or commit
            new = super().redirect_request(req, fp, code, msg, headers, newurl)
            # A renamed model is redirected within the hub; no other host may see the token.
            if new is not None and urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
                new.remove_header("Authorization")
            return new

    base = endpoint(environ)
    if not base.startswith(("https://", "http://")):
        raise Unreachable(f"HF_ENDPOINT = {base!r} is no address of a hub")
    rev = urllib.parse.quote(revision or "main", safe="")
    headers = {"User-Agent": "forge", "Accept-Encoding": "identity"}
    secret = token(environ)
    if secret:
        headers["Authorization"] = f"Bearer {secret}"
    try:
        request = urllib.request.Request(f"{base}/{model}/resolve/{rev}/{file}", headers=headers)  # noqa: S310 - seen to be http
        with urllib.request.build_opener(Redirect).open(request, timeout=_TIMEOUT) as response:
            commit = response.headers.get("X-Repo-Commit") or commit
            config = json.loads(response.read(_LIMIT))
    except urllib.error.HTTPError as error:
        with error:
            refusal = _refusal(model, revision, base, error.code, error.headers, file, logged_in=secret is not None)
        raise refusal from None
    except urllib.error.URLError as error:
        raise Unreachable(f"could not reach the hub at {base}: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"could not reach the hub at {base}: {error or type(error).__name__}") from None
    except ValueError:  # a page of some proxy; an endpoint that is no address; a token with a line break
        raise Unreachable(f"the hub at {base} gave no {file} that can be read") from None
    if not isinstance(config, dict):
        raise Unreachable(f"the hub at {base} gave a {file} that is no JSON object")
    return config, commit


def _refusal(
    model: str, revision: str | None, base: str, status: int, headers: Any, file: str, *, logged_in: bool
) -> ModelError | Unreachable:
    code = headers.get("X-Error-Code")
    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    if code == "GatedRepo":
        why = "your account has no access to it yet" if logged_in else "its owner lets in only users who are logged in"
        return ModelError(f"{model} is gated", why, f"accept the licence at {base}/{model} and {log_in}")
    if code == "RepoNotFound":
        why = f"the hub at {base} knows no such model, or it is private and you may not see it"
        do = "check the spelling (a local folder is written ./name)" + ("" if logged_in else f", or {log_in}")
        return ModelError(f"{model} was not found", why, do)
    if code == "RevisionNotFound":
        why = f"the model has no branch, tag or commit {revision or 'main'}"
        return ModelError(f"{model} was not found", why, f"see {base}/{model}/tree/main for its revisions")
    if code == "EntryNotFound" and file != "config.json":
        return ModelError(f"{model} is no adapter of peft", f"it has no {file}", "name a repository that has one")
    if code == "EntryNotFound":
        why = "it has no config.json; a repository of GGUF files or of an adapter has none"
        return ModelError(f"{model} is no transformers model", why, "name the model that it was made from")
    if status == 401:
        return ModelError(f"the hub at {base} refused the login", headers.get("X-Error-Message"), log_in)
    return Unreachable(f"could not ask the hub at {base}: it answered HTTP {status}")

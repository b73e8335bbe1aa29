"""Bring a model's files onto this machine.

Everything after this works on a local folder: the tokenizer, the weights and what trainers rebuild from a model's name
then come from the same commit.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import DiskFull, ModelError, first_line
from forge_huggingface.facts.describe import describe, refuse_adapter
from forge_huggingface.hub.config import reconfigured

if TYPE_CHECKING:
    from forge.api import Job, Run


_SMALL = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken", "tokenizer*", "LICENSE*")
_WEIGHTS = ("*.safetensors",)
MODEL_FILES = (*_SMALL, *_WEIGHTS)
"""The patterns of what a model without code of its own has."""

_NEVER = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.gguf", "*.onnx", "original/*", "onnx/*", "*/*")
"""Pickles, other formats, and the second copies of weights that some repositories keep in folders."""


def snapshot(job: Job, run: Run, weights: bool) -> Path:
    """Return the local folder of the base model, downloaded if it is not here yet.

    Args:
        job: The job.
        run: The run, for what the plan knows about the model.
        weights: Whether the weights are needed, or only tokenizer and configuration.

    Raises:
        ModelError: The model cannot be had.
    """
    facts = run.plan.facts
    if facts.source == "folder" and facts.path:
        return reconfigured(Path(facts.path), job, run, weights=weights)
    patterns = [*_SMALL, *(_WEIGHTS if weights else ())]
    if job.model.trust_remote_code:
        patterns.append("*.py")
    folder = download(
        job.model.id, facts.revision or job.model.revision, patterns, f"the model {job.model.id}", "model"
    )
    refuse_adapter(folder)
    if facts.revision is None:
        pin(job, run, folder)
    return reconfigured(folder, job, run, weights=weights)


def adapter_snapshot(job: Job, revision: str | None) -> Path:
    """Return the local folder of the hub's adapter that a job goes on from. Raises :class:`ModelError`."""
    name = str(job.adapter.from_)
    return download(name, revision, ["adapter_config.json", *_WEIGHTS, *_SMALL], f"the adapter {name}", "adapter")


def download(name: str, revision: str | None, patterns: list[str], about: str, table: str) -> Path:
    """Bring files of a repository of the hub here, and return their folder.

    Args:
        name: The repository.
        revision: Branch, tag or commit.
        patterns: Which files.
        about: What it is, for people.
        table: The table of the job that names it.

    Raises:
        ModelError: It cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    key = f"[{table}] {'id' if table == 'model' else 'from'}"
    what = f"{about} cannot be had"
    login = "`hf auth login` or set HF_TOKEN"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=list(_NEVER)))
    except GatedRepoError as error:
        raise ModelError(
            what,
            "its owner wants a licence to be accepted",
            f"accept it at https://huggingface.co/{name}, then {login}",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(what, f"it has no revision {revision!r}", f"mend [{table}] revision") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            what,
            f"there is no such folder here, and no such {table} on the hub that you may see",
            f"mend {key}; for a private {table}, {login}",
        ) from error
    except HFValidationError as error:
        raise ModelError(what, "there is no such folder here, and it is no hub id", f"mend {key}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError, *transport_errors()) as error:
        raise ModelError(
            what,
            "there is no such folder here, the hub cannot be reached, and the cache does not have it",
            f"mend {key} if you meant a folder; else go online once, or unset HF_HUB_OFFLINE",
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(what, first_line(error), "try again later") from error
    except OSError as error:
        if error.errno == 28:
            raise DiskFull(f"{what}", "the disk of the cache is full", "free some, or set HF_HOME") from error
        raise


def pin(job: Job, run: Run, folder: Path) -> None:
    """Put into the plan what it could not know, the hub having been out of reach: the commit above all.

    Raises:
        ModelError: The model is not of the kind that the plan took it for.
    """
    known = describe(job.model.id, folder.name, job.folder, offline=True)
    if known.task not in {"text", "unknown"}:
        raise ModelError(
            f"{job.model.id} was planned as a text model and is of the kind {known.task}",
            "the hub could not be reached while planning",
            "run it again: its config is here now",
        )
    run.learn(replace(known, revision=folder.name))


def transport_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's HTTP library raises when the network fails: httpx under hub 1, httpx2 under hub 2."""
    return tuple(sys.modules[name].TransportError for name in ("httpx", "httpx2") if name in sys.modules)

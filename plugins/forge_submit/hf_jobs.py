"""Hugging Face Jobs: the job as one script, on one machine of theirs, its run folder on a bucket."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from forge.api import Bundle, Finding, ForgeError, MachineError, Status, Submitter, Table, Ticket, first_line, masked
from forge.disk.files import files_below, write_json, write_text
from forge.disk.script import LIMIT, script_text
from forge_submit.checks import INSTALL_HUB, NO_HUB

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]

RUNS = "/runs"
"""Where the bucket is mounted."""

_STATES: dict[str, Any] = {
    "SCHEDULING": "waiting",
    "RUNNING": "running",
    "COMPLETED": "done",
    "ERROR": "failed",
    "CANCELED": "cancelled",
    "DELETED": "cancelled",
}
_MACHINES = {"cpu": "linux-cpu", "t4": "linux-t4", "a100": "linux-a100", "h200": "linux-h100"}
"""The presets that are nearest to flavors, by how those begin; of others, a GPU of 24 GB."""


class HfJobsOptions(Table):
    """``[submit.hf-jobs]``: on which machine, for how long, and whose."""

    flavor: str | None = Field(None, description="The machine, as `a10g-large`; `hf jobs hardware` lists them.")
    timeout: str | None = Field(
        None, pattern=r"^\d+(\.\d+)?[smhd]$", description="The longest time, as `6h`; installing packages counts."
    )
    namespace: str | None = Field(None, description="Who pays: you, or an organisation.")
    bucket: str | None = Field(
        None, pattern=r"^[^/\s]+/[^/\s]+$", description="Bucket of the run folders; `<namespace>/forge-runs` if unset."
    )
    secrets: list[Name] = Field(
        default_factory=lambda: ["HF_TOKEN"], description="Names of variables of yours that it gets as secrets."
    )
    attempts: int = Field(1, ge=1, description="How often it is started at most; each start goes on with the run.")
    seconds_before_timeout: int = Field(
        900, ge=60, description="How long before the timeout a checkpoint is saved, with the time to install packages."
    )
    image: str | None = Field(None, description="Image with uv in it; uv's own if unset.")

    @property
    def seconds(self) -> int:
        """The longest time in seconds."""
        assert self.timeout is not None
        return int(float(self.timeout[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[self.timeout[-1]])


class HfJobs(Submitter[HfJobsOptions]):
    """Sends a script by huggingface_hub, and asks it what became of it."""

    keys = HfJobsOptions
    limit = LIMIT

    def machine(self) -> str | None:
        """Return the preset that is nearest to the flavor."""
        flavor = self.options.flavor
        if flavor is None:
            return None
        return next((preset for start, preset in _MACHINES.items() if flavor.startswith(start)), "linux-cuda")

    def check(self, bundle: Bundle) -> Iterator[Finding]:
        """Look for the library, the login, the flavor and the secrets."""
        options = self.options
        if options.flavor is None:
            yield Finding("error", "no flavor is asked for, so it would be a CPU", "--option flavor=a10g-large")
        if options.timeout is None:
            yield Finding("error", "no timeout is asked for, so it would end after 30 minutes", "--option timeout=6h")
        elif options.seconds < 2 * options.seconds_before_timeout:
            left = options.seconds - options.seconds_before_timeout
            what = f"timeout = {options.timeout} is {options.seconds} s, of which seconds_before_timeout leaves {left}"
            yield Finding("error", what, "ask for more time")
        if bundle.job.launch.nodes > 1:
            yield Finding("error", "HF Jobs has one machine for a job", "[launch] nodes = 1 and a flavor of more GPUs")
        try:
            from huggingface_hub import HfApi, get_token
        except ImportError:
            yield Finding("error", NO_HUB, INSTALL_HUB)
            return
        if not (hasattr(HfApi, "run_uv_job") and hasattr(HfApi, "sync_bucket")):
            yield Finding("error", "this huggingface_hub knows no jobs with buckets", INSTALL_HUB)
            return
        if options.attempts > 1 and "attempts" not in _arguments(HfApi.run_uv_job):
            yield Finding("error", "this huggingface_hub knows no attempts", 'pip install -U "huggingface-hub>=2.4"')
        if get_token() is None:
            yield Finding("error", "you are not logged in to the hub", "`hf auth login`, or set HF_TOKEN")
            return
        if absent := [name for name in options.secrets if _secret(name) is None]:
            yield Finding("error", f"secrets that are set here by no value: {', '.join(absent)}", "set them")
        yield from self._told_by_the_hub()

    def _told_by_the_hub(self) -> Iterator[Finding]:
        """Ask the hub who the user is, and what the flavor costs."""
        flavor = self.options.flavor
        try:
            with _told("asking the hub"):
                self._namespace()
                known = {each.name: each for each in _api().list_jobs_hardware()}
        except ForgeError as error:
            yield Finding("error", str(error))
            return
        if flavor is not None and flavor not in known:
            yield Finding("error", f"there is no flavor {flavor}", f"there is {', '.join(known)}")
        elif flavor is not None and self.options.timeout:
            cost = known[flavor]
            unit = {"minute": 60, "hour": 3600}.get(cost.unit_label)
            told = f"{flavor} is {cost.unit_cost_usd:g} USD a {cost.unit_label}"
            if unit:
                attempts = self.options.attempts
                told += f", at most {cost.unit_cost_usd * self.options.seconds * attempts / unit:.2f} USD"
                told += f" in {attempts} attempts" if attempts > 1 else ""
            yield Finding("note", told)

    def write(self, bundle: Bundle) -> Path:
        """Write the script, and what is asked of the service."""
        job = (bundle.folder / "job.toml").read_text(encoding="utf-8")
        below = [name.as_posix() for name in files_below(bundle.folder)]
        files = {name: bundle.folder / name for name in below if name != "job.toml"}
        path = bundle.folder / "job.py"
        write_text(path, script_text(bundle.name, job, files, bundle.packages, self.options.secrets))
        write_json(bundle.folder / "request.json", self._request(bundle))
        return path

    def _request(self, bundle: Bundle) -> dict[str, Any]:
        """Return what is asked of the service, the secrets by their names."""
        options = self.options
        stop = {"FORGE_STOP_AFTER": str(options.seconds - options.seconds_before_timeout)} if options.timeout else {}
        request = {
            "flavor": options.flavor,
            "timeout": options.timeout,
            "namespace": options.namespace,
            "name": bundle.title,
            "env": {"FORGE_RUN": f"{RUNS}/{bundle.name}", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **stop},
            "secrets": options.secrets,
            "bucket": options.bucket,
            "folder": bundle.name,
            "image": options.image,
        }
        return request | ({"attempts": options.attempts} if options.attempts > 1 else {})

    def submit(self, bundle: Bundle) -> tuple[str, str | None]:
        """Make the bucket if it is not there, and start the job."""
        from huggingface_hub import Volume

        request = json.loads((bundle.folder / "request.json").read_text(encoding="utf-8"))
        with _told("sending the job"):
            namespace = self._namespace()
            bucket, folder = request.pop("bucket") or f"{namespace}/forge-runs", request.pop("folder")
            assert folder == bundle.name
            _api().create_bucket(bucket_id=bucket, private=True, exist_ok=True)
            request |= {"namespace": namespace, "secrets": {name: _secret(name) for name in request["secrets"]}}
            volume = Volume(type="bucket", source=bucket, mount_path=RUNS, read_only=False)
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # it prints where the script lies
                warnings.filterwarnings("ignore", ".*is experimental", UserWarning)
                info = _api().run_uv_job(str(bundle.folder / "job.py"), volumes=[volume], **request)
        return f"{namespace}/{info.id}", info.url

    def status(self, ticket: Ticket, run: Path) -> Status:  # noqa: ARG002 - the hub knows
        """Ask the hub."""
        with _told("asking for the job"):
            told = _api().inspect_job(**_job(ticket)).status
        stage = str(getattr(told.stage, "value", told.stage))
        return Status(_STATES.get(stage, "unknown"), stage + (f": {masked(told.message)}" if told.message else ""))

    def logs(self, ticket: Ticket, run: Path, *, follow: bool) -> Iterator[str]:  # noqa: ARG002
        """Stream what it prints."""
        with _told("reading its log"):
            yield from _api().fetch_job_logs(**_job(ticket), follow=follow)

    def cancel(self, ticket: Ticket, run: Path) -> None:  # noqa: ARG002
        """Cancel it. The service says nothing of a time in which a checkpoint could be saved."""
        with _told("cancelling the job"):
            _api().cancel_job(**_job(ticket))

    def fetch(self, ticket: Ticket, run: Path) -> None:
        """Copy its folder of the bucket."""
        request = json.loads((run / "submit" / "request.json").read_text(encoding="utf-8"))
        bucket = request["bucket"] or f"{_job(ticket)['namespace']}/forge-runs"
        with _told("reading the bucket"):
            source = f"hf://buckets/{bucket}/{request['folder']}"
            _api().sync_bucket(source, str(run), exclude=[".lock", "submit/*"], quiet=True)

    def _namespace(self) -> str:
        return self.options.namespace or str(_api().whoami()["name"])


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi()


def _job(ticket: Ticket) -> dict[str, str]:
    namespace, _, number = ticket.id.rpartition("/")
    return {"namespace": namespace, "job_id": number}


def _secret(name: str) -> str | None:
    """Return the value of a secret: a variable, or the login that is saved on this machine."""
    from huggingface_hub import get_token

    return os.environ.get(name) or (get_token() if name == "HF_TOKEN" else None)


def _arguments(function: Any) -> set[str]:
    import inspect

    return set(inspect.signature(function).parameters)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Tell what the hub or the network refuses."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    try:
        yield
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        kind = MachineError if code is None or code >= 500 else ForgeError  # then it may have done what was asked
        raise kind(f"{what} failed", masked(first_line(error)), _ADVICE.get(code or 0)) from error
    except Exception as error:
        if not isinstance(error, (OSError, *_network_errors())):
            raise
        raise MachineError(f"{what} failed", masked(first_line(error)), "look at the network") from error


_ADVICE = {401: "`hf auth login`", 402: "HF Jobs need credit of who pays", 403: "take a token that may start jobs"}


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's HTTP library raises when the network fails: httpx under hub 1, httpx2 under hub 2."""
    return tuple(sys.modules[name].TransportError for name in ("httpx", "httpx2") if name in sys.modules)

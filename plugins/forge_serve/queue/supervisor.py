"""``python -m forge_serve.queue.supervisor ENTRY``: the parent of an entry's training, which outlives who began it.

It holds the entry's lock, runs the command of forge, heeds the wish to stop, and writes how it ended. It is no child of
a server or a terminal: it has a session of its own, and nothing that it needs ends with them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ForgeError
from forge.disk.files import write_json
from forge.disk.owner import hold
from forge_serve.queue.entry import Place

if TYPE_CHECKING:
    from collections.abc import Mapping

TICK = 0.1
PATIENCE = 10.0
"""Seconds after which what was told to end at once is killed."""

OURS = ("FORGE_SERVE_",)
"""Variables that are the server's own; a training never sees them."""


def clean(environ: Mapping[str, str], devices: str | None) -> dict[str, str]:
    """Return the environment of a training: without the server's own secrets, and with the GPUs of its slot."""
    kept = {name: value for name, value in environ.items() if not name.startswith(OURS)}
    return kept if devices is None else {**kept, "CUDA_VISIBLE_DEVICES": devices}


class Supervisor:
    """Does one entry.

    Args:
        place: The entry.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.error: dict[str, Any] | None = None
        self.told_to_stop = False

    def run(self) -> None:
        """Do the entry and write how it ended."""
        begun = self.place.begun or {}
        command = [sys.executable, "-P", "-m", "forge", *self.place.command()]
        folder = self.place.entry.folder or str(self.place.path)
        with (self.place.path / "printed.txt").open("ab") as printed:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=clean(os.environ, begun.get("devices")),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=printed,
                start_new_session=True,
            )
        reader = threading.Thread(target=self.read, args=(child,), daemon=True)
        reader.start()
        self.wait(child)
        reader.join(timeout=5)
        write_json(self.place.path / "ended.json", self.outcome(child.returncode))

    def read(self, child: subprocess.Popen[bytes]) -> None:
        """Take from what forge prints where the run is, and what went wrong."""
        assert child.stdout is not None
        for line in child.stdout:
            if not line.startswith(b'{"error":') and b'"planned"' not in line:
                continue  # one of a hundred thousand events
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if "kind" not in said:
                self.error = said["error"]
            elif said["kind"] == "planned":
                write_json(self.place.path / "run.json", {"run": str(Path(said["folder"]).absolute())})

    def wait(self, child: subprocess.Popen[bytes]) -> None:
        """Wait for the end, and pass on the wish to stop."""
        heeded = ""
        since = 0.0
        while child.poll() is None:
            time.sleep(TICK)
            wish = self.wish()
            if wish and wish != heeded:
                with suppress(OSError, ValueError):  # Windows has no such signal: there it is killed below
                    child.send_signal(signal.SIGINT)
                    if wish == "now":  # another signal: two of the same may come as one
                        child.send_signal(signal.SIGTERM)
                heeded, since = wish, time.monotonic()
            if heeded == "now" and time.monotonic() - since > PATIENCE:
                with suppress(OSError):
                    child.kill()

    def wish(self) -> str:
        """Return ``stop`` or ``now`` where somebody asked for it, or nothing."""
        try:
            said = (self.place.path / "stop").read_text(encoding="utf-8").strip()
        except OSError:
            said = ""
        return said or ("stop" if self.told_to_stop else "")

    def outcome(self, code: int) -> dict[str, Any]:
        """Return how it ended, as ``ended.json`` has it."""
        state = {0: "done", 130: "stopped"}.get(code, "stopped" if self.wish() == "now" else "failed")
        error = self.error
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            state = "stopped" if self.wish() else "failed"
            why = "the process of `forge` itself was killed, most often as the machine ran out of memory"
            error = ForgeError(f"forge was killed ({name})", why, f"see {self.place.path / 'printed.txt'}").to_json()
        elif error is None and state == "failed":
            see = self.place.path / "printed.txt"
            error = ForgeError(f"forge ended with code {code}", "it said no more", f"see {see}").to_json()
        return {"state": state, "time": time.time(), "code": code, "error": error}


def main() -> None:
    """Do the entry whose folder is the only argument."""
    place = Place(Path(sys.argv[1]))
    supervisor = Supervisor(place)

    def stop(_number: int, _frame: object) -> None:
        supervisor.told_to_stop = True

    signal.signal(signal.SIGTERM, stop)  # a machine that goes down: the training saves
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with hold(place.path / ".lock"):
        try:
            supervisor.run()
        except BaseException as error:
            what = f"the supervisor failed: {type(error).__name__}: {error}"
            failed = ForgeError(what, None, f"see {place.path / 'printed.txt'}").to_json()
            write_json(
                place.path / "ended.json", {"state": "failed", "time": time.time(), "code": None, "error": failed}
            )
            raise


if __name__ == "__main__":
    main()

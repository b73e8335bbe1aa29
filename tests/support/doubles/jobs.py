"""A double of Hugging Face Jobs with its buckets: a small HTTP server on this computer.

The real ``huggingface_hub`` talks to it, and files go through the real ``hf_xet``, into a folder in the place of the
hub's storage. This is a double: its answers were written after the client's source, it knows no other part of the hub,
and it starts a job as a process of this computer. Mounted buckets are folders, whose places are put into the job's
command and variables instead of those in a container, and ``uv run`` is this Python, which has the packages already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

TOKEN = "hf_doubleOfJobs0123456789abcd"
USER = "tester"
PRICES = {"cpu-basic": 0.0002, "a10g-small": 0.0167, "t4-small": 0.0067}
NOW = "2026-11-29T12:00:00.000Z"


@dataclass
class Started:
    """A job.

    Attributes:
        asked: What the client asked for.
        stage: How it is doing.
        lines: What it printed.
        starts: How often it was started.
    """

    asked: dict[str, Any]
    stage: str = "SCHEDULING"
    lines: list[str] = field(default_factory=list)
    starts: int = 0
    process: subprocess.Popen[str] | None = None


class Jobs:
    """The server, running while it is entered as a context manager.

    Args:
        root: A folder of its own.
        held: Whether jobs wait until :meth:`let_go`.
    """

    def __init__(self, root: Path, *, held: bool = False) -> None:
        self.root = root
        self.jobs: dict[str, Started] = {}
        self.buckets: dict[str, dict[str, dict[str, Any]]] = {}
        self.requests: list[tuple[str, str]] = []
        self._free = threading.Event()
        if not held:
            self._free.set()

    def environment(self, token: str | None = TOKEN) -> dict[str, str]:
        """Return the variables with which a child process talks to it."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.root / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def let_go(self) -> None:
        """Let the jobs that wait begin."""
        self._free.set()

    def mount(self, bucket: str) -> Path:
        """Return the folder that stands for a bucket where it is mounted."""
        return self.root / "mounts" / bucket

    def __enter__(self) -> Self:
        jobs = self

        class Handler(_Handler):
            pass

        Handler.jobs = jobs
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for job in self.jobs.values():
            if job.process is not None and job.process.poll() is None:
                job.process.kill()
        self._free.set()
        self._server.shutdown()
        self._server.server_close()

    def start(self, asked: dict[str, Any]) -> str:
        """Take a job."""
        number = f"job{len(self.jobs) + 1}"
        self.jobs[number] = Started(asked)
        threading.Thread(target=self._work, args=(self.jobs[number],), daemon=True).start()
        return number

    def _work(self, job: Started) -> None:
        self._free.wait()
        code = 1
        try:
            for _ in range(job.asked.get("attempts") or 1):
                if code == 0 or job.stage == "CANCELED":
                    break
                code = self._attempt(job)
        finally:
            if job.stage != "CANCELED":
                job.stage = "COMPLETED" if code == 0 else "ERROR"

    def _attempt(self, job: Started) -> int:
        places = {}
        for volume in job.asked.get("volumes") or []:
            inside = volume.get("path")
            self._tool("download", volume["source"])
            places[volume["mountPath"]] = str(self.mount(volume["source"]) / (inside or ""))
        command = [self._placed(word, places) for word in job.asked["command"]]
        assert command[:2] == ["uv", "run"]
        given = {**job.asked["environment"], **(job.asked.get("secrets") or {})}
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        variables = {name: self._placed(value, places) for name, value in given.items()}
        job.starts += 1
        job.stage = "RUNNING"
        job.process = subprocess.Popen(
            [sys.executable, *command[2:]],
            env={**clean, "HF_HUB_OFFLINE": "1", **variables},
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with job.process as process:
            assert process.stdout is not None
            for line in process.stdout:
                job.lines.append(line.rstrip("\n"))
            code = process.wait()
        for volume in job.asked.get("volumes") or []:
            self._tool("upload", volume["source"])
        return code

    def _placed(self, text: str, places: dict[str, str]) -> str:
        for mounted, place in places.items():
            if text == mounted or text.startswith(f"{mounted}/"):
                return place + text[len(mounted) :]
        return text

    def _tool(self, what: str, bucket: str) -> None:
        """Copy between a bucket and its folder, by the real client in a process of its own."""
        folder = self.mount(bucket)
        folder.mkdir(parents=True, exist_ok=True)
        source, target = f"hf://buckets/{bucket}", str(folder)
        if what == "upload":
            source, target = target, source
        code = "import sys; from huggingface_hub import HfApi; HfApi().sync_bucket(*sys.argv[1:], quiet=True)"
        subprocess.run(
            [sys.executable, "-c", code, source, target], env={**os.environ, **self.environment()}, check=True
        )


class _Handler(BaseHTTPRequestHandler):
    jobs: Jobs
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.jobs.requests.append((self.command, self.path))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if token != TOKEN:
            self._json({"error": "Invalid username or password."}, 401)
            return
        self._route(path)

    do_GET = do_HEAD = do_POST = _handle  # noqa: N815 - http.server's names

    def _route(self, path: list[str]) -> None:
        match [self.command, *path]:
            case ["GET", "api", "whoami-v2"]:
                self._json({"type": "user", "name": USER, "orgs": []})
            case ["GET", "api", "jobs", "hardware"]:
                self._json([_hardware(name, price) for name, price in PRICES.items()])
            case ["POST", "api", "jobs", _]:
                self._json(self._told(self.jobs.start(json.loads(self.body))))
            case ["GET", "api", "jobs", _, number] if number in self.jobs.jobs:
                self._json(self._told(number))
            case ["POST", "api", "jobs", _, number, "cancel"] if number in self.jobs.jobs:
                self._cancel(self.jobs.jobs[number])
            case ["GET", "api", "jobs", _, number, "logs"] if number in self.jobs.jobs:
                self._logs(self.jobs.jobs[number])
            case ["POST", "api", "buckets", owner, name]:
                known = f"{owner}/{name}" in self.jobs.buckets
                self.jobs.buckets.setdefault(f"{owner}/{name}", {})
                self._json({"url": f"{self.jobs.url}/buckets/{owner}/{name}"}, 409 if known else 200)
            case ["GET", "api", "buckets", owner, name] if f"{owner}/{name}" in self.jobs.buckets:
                about = {"private": True, "createdAt": NOW, "size": 0, "totalFiles": 0}
                self._json({"id": f"{owner}/{name}", **about})
            case ["GET", "api", "buckets", _, _, "xet-write-token" | "xet-read-token"]:
                self._json({"casUrl": f"local://{self.jobs.root}/storage", "exp": 4_000_000_000, "accessToken": "t"})
            case ["POST", "api", "buckets", owner, name, "batch"]:
                for line in self.body.splitlines():
                    entry = json.loads(line)
                    if entry["type"] == "addFile":
                        self.jobs.buckets[f"{owner}/{name}"][entry["path"]] = entry
                self._json({"success": True, "failed": []})
            case ["GET", "api", "buckets", owner, name, "tree", *prefix] if f"{owner}/{name}" in self.jobs.buckets:
                files = self.jobs.buckets[f"{owner}/{name}"]
                below = "/".join(prefix)
                self._json([self._file(path, files) for path in sorted(files) if path.startswith(below)])
            case ["POST", "api", "buckets", owner, name, "paths-info"]:
                files = self.jobs.buckets[f"{owner}/{name}"]
                self._json([self._file(path, files) for path in json.loads(self.body)["paths"] if path in files])
            case ["HEAD", "buckets", owner, name, "resolve", *inside]:
                files = self.jobs.buckets[f"{owner}/{name}"]
                entry = files["/".join(inside)]
                self.send_response(200)
                self.send_header("X-Xet-Hash", entry["xetHash"])
                self.send_header("X-Xet-Refresh-Route", f"{self.jobs.url}/api/buckets/{owner}/{name}/xet-read-token")
                self.send_header("X-Linked-Size", str(self._size(entry["xetHash"])))
                self.send_header("Content-Length", "0")
                self.end_headers()
            case _:
                self._json({"error": f"this double does not know {self.command} {self.path}"}, 404)

    def _file(self, path: str, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
        entry = files[path]
        moment = datetime.fromtimestamp(entry["mtime"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        size = self._size(entry["xetHash"])
        return {"type": "file", "path": path, "size": size, "xetHash": entry["xetHash"], "mtime": moment}

    def _size(self, name: str) -> int:
        """Return how large an object of the storage is: the client does not say it."""
        from hf_xet import XetFileInfo
        from huggingface_hub.utils._xet import get_xet_session

        if not name.strip("0"):  # an empty file
            return 0
        path = self.jobs.root / "objects" / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            asked = {"token_refresh_url": f"{self.jobs.url}/api/buckets/a/b/xet-read-token", "custom_headers": {}}
            asked["token_refresh_headers"] = {"Authorization": f"Bearer {TOKEN}"}
            with get_xet_session().new_file_download_group(**asked) as group:
                group.start_download_file(XetFileInfo(name), str(path))
        return path.stat().st_size

    def _told(self, number: str) -> dict[str, Any]:
        job = self.jobs.jobs[number]
        asked = {"dockerImage": job.asked.get("dockerImage"), "flavor": job.asked["flavor"]}
        owner = {"id": "1", "name": USER, "type": "user"}
        status = {"stage": job.stage, "message": None}
        return {"id": number, "createdAt": NOW, "owner": owner, "status": status, **asked}

    def _cancel(self, job: Started) -> None:
        job.stage = "CANCELED"
        if job.process is not None:
            job.process.terminate()
        self._json({})

    def _logs(self, job: Started) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        sent = 0
        while True:
            over = job.stage in {"COMPLETED", "ERROR", "CANCELED"}
            for line in job.lines[sent:]:
                event = {"data": line, "timestamp": NOW}
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                sent += 1
            self.wfile.flush()
            if over:
                break
            time.sleep(0.1)
        self.close_connection = True

    def _json(self, data: Any, status: int = 200) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _hardware(name: str, price: float) -> dict[str, Any]:
    cost = {"unitCostMicroUSD": int(price * 1e6), "unitCostUSD": price, "unitLabel": "minute"}
    return {"name": name, "prettyName": name, "cpu": "2 vCPU", "ram": "16 GB", **cost}

"""A double of the model hub: a small HTTP server on this computer that answers as huggingface.co does.

Tests have no network and must not write to a real hub, yet what they test is what the real ``huggingface_hub`` and
forge's own request do with real answers. This is a double: it knows models only (no datasets, no Xet, no pull
requests), keeps everything in memory, and its answers were written after the client's source and the hub's documented
error codes.

Like the hub, it answers 401 with ``RepoNotFound`` to a stranger who asks for a model that does not exist or is private,
and 404 to a user; it keeps every commit; it stores large files apart and redirects to them, on another host name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

TOKEN = "hf_double"
"""A token of the user ``tester`` that every :class:`Hub` accepts."""

_LARGE = (".safetensors", ".bin", ".gguf", ".pt")


def _is_large(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(_LARGE) or size > 10_000_000)


def _etag(path: str, content: bytes) -> str:
    if _is_large(path, len(content)):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # as git names it


@dataclass
class Repo:
    """One model: its commits, oldest first, and who may see it."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)

    @property
    def head(self) -> str:
        return next(reversed(self.commits))

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the newest commit; change them with :meth:`commit`."""
        return self.commits[self.head]

    def commit(self, files: Mapping[str, bytes], message: str) -> str:
        seed = json.dumps([len(self.commits), message, {path: _etag(path, body) for path, body in files.items()}])
        name = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[name] = dict(files)
        self.messages.append(message)
        return name

    def find(self, revision: str) -> str | None:
        revision = self.head if revision == "main" else self.tags.get(revision, revision)
        return revision if revision in self.commits else None


class Hub:
    """The server, running while it is entered as a context manager.

    Attributes:
        repos: The models by id; what clients upload appears here.
        tokens: The tokens that are accepted.
        tokens_seen: Every token that a client sent, in order.
        requests: ``(method, path)`` of every request, in order.
        leaked: Tokens that reached the host of the large files.
        url: The address, for ``HF_ENDPOINT``.
    """

    user = "tester"

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.tokens = {TOKEN}
        self.tokens_seen: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.leaked: list[str] = []
        self.objects: dict[str, bytes | None] = {}  # large files; None while announced
        self.url = ""

    def add(self, model: str, files: Mapping[str, bytes | str], *, gated: bool = False, private: bool = False) -> str:
        """Put a model on the hub and return its commit."""
        repo = self.repos.setdefault(model, Repo(gated=gated, private=private))
        content = {path: body.encode() if isinstance(body, str) else body for path, body in files.items()}
        self._store(content)
        return repo.commit(content, "add")

    def add_folder(self, model: str, folder: Path, *, gated: bool = False, private: bool = False) -> str:
        """Put the files of a folder on the hub and return the commit."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return self.add(model, files, gated=gated, private=private)

    def environment(self, home: Path, token: str | None = TOKEN) -> dict[str, str]:
        """Return the variables with which a child process talks to this hub and keeps its files in a folder."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def __enter__(self) -> Self:
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _store(self, files: Mapping[str, bytes]) -> None:
        for path, body in files.items():
            if _is_large(path, len(body)):
                self.objects[_etag(path, body)] = body


class _Refused(Exception):  # noqa: N818
    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Keep quiet: the hub records its requests itself."""

    def _handle(self) -> None:
        self.body = self._read_body()
        self.hub.requests.append((self.command, self.path))
        self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if self.token:
            self.hub.tokens_seen.append(self.token)
            if self.headers.get("Host", "").startswith("localhost"):
                self.hub.leaked.append(self.token)
        path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        try:
            if self.token and self.token not in self.hub.tokens:
                raise _Refused(401, None, "Invalid credentials in Authorization header")
            self._route(path)
        except _Refused as refused:
            headers = {"X-Error-Message": refused.message} | ({"X-Error-Code": refused.code} if refused.code else {})
            self._json({"error": refused.message}, refused.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 - http.server's names

    def _route(self, path: list[str]) -> None:
        match [self.command, *path]:
            case ["GET", "api", "whoami-v2"]:
                self._writer()
                self._json({"type": "user", "name": self.hub.user, "auth": {"type": "access_token"}, "orgs": []})
            case ["POST", "api", "validate-yaml"]:
                self._json({"errors": [], "warnings": []})
            case ["POST", "api", "repos", "create"]:
                self._create()
            case ["PUT", "lfs", oid]:
                self._put(oid)
            case ["GET" | "HEAD", "lfs", oid] if self.hub.objects.get(oid) is not None:
                self._send(self.hub.objects[oid] or b"")
            case ["POST", owner, name, "info", "lfs", "objects", "batch"]:
                self._batch(f"{owner}/{name.removesuffix('.git')}")
            case ["GET", "api", "models", owner, name]:
                self._info(f"{owner}/{name}", "main")
            case ["GET", "api", "models", owner, name, "revision", revision]:
                self._info(f"{owner}/{name}", revision)
            case ["GET", "api", "models", owner, name, "tree", revision, *_]:
                self._tree(f"{owner}/{name}", revision)
            case ["POST", "api", "models", owner, name, "paths-info", revision]:
                self._tree(f"{owner}/{name}", revision, set(json.loads(self.body)["paths"]))
            case ["POST", "api", "models", owner, name, "preupload", _]:
                self._preupload(f"{owner}/{name}")
            case ["POST", "api", "models", owner, name, "commit", _]:
                self._commit(f"{owner}/{name}")
            case ["GET" | "HEAD", owner, name, "resolve", revision, *file]:
                self._resolve(f"{owner}/{name}", revision, "/".join(file))
            case _:
                raise _Refused(404, None, f"this double does not know {self.command} {self.path}")

    def _repo(self, model: str) -> Repo:
        repo = self.hub.repos.get(model)
        if repo is None or (repo.private and not self.token):
            raise _Refused(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _at(self, repo: Repo, revision: str) -> str:
        commit = repo.find(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _writer(self) -> None:
        if not self.token:
            raise _Refused(401, None, "Invalid username or password.")

    def _create(self) -> None:
        self._writer()
        asked = json.loads(self.body)
        model = f"{asked.get('organization') or self.hub.user}/{asked['name']}"
        answer = {"url": f"{self.hub.url}/{model}", "name": model, "id": model}
        if model in self.hub.repos:
            self._json(answer | {"error": "You already created this model repo"}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.hub.repos[model] = Repo(private=private)
        self.hub.repos[model].commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        self._json(answer)

    def _info(self, model: str, revision: str) -> None:
        repo = self._repo(model)
        commit = self._at(repo, revision)
        siblings = [{"rfilename": path} for path in repo.commits[commit]]
        gated = "manual" if repo.gated else False
        about = {"sha": commit, "private": repo.private, "gated": gated, "siblings": siblings, "tags": []}
        self._json({"_id": "0", "id": model, "modelId": model} | about)

    def _tree(self, model: str, revision: str, only: set[str] | None = None) -> None:
        repo = self._repo(model)
        entries = []
        for path, body in repo.commits[self._at(repo, revision)].items():
            if only is not None and path not in only:
                continue
            entry = {"type": "file", "path": path, "size": len(body), "oid": _etag(path, body)}
            if _is_large(path, len(body)):
                entry["lfs"] = {"oid": _etag(path, body), "size": len(body), "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def _resolve(self, model: str, revision: str, file: str) -> None:
        repo = self._repo(model)
        if repo.gated and self.token not in repo.granted:
            message = f"Access to model {model} is restricted."
            raise _Refused(403 if self.token else 401, "GatedRepo", message)
        commit = self._at(repo, revision)
        body = repo.commits[commit].get(file)
        if body is None:
            raise _Refused(404, "EntryNotFound", "Entry not found")
        etag = _etag(file, body)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        if _is_large(file, len(body)):
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(body))}
            # The hub's large files are on another host, which must not get the user's token.
            store = self.hub.url.replace("127.0.0.1", "localhost")
            self._send(b"", 302, headers | linked | {"Location": f"{store}/lfs/{etag}"})
        else:
            self._send(body, 200, headers)

    def _preupload(self, model: str) -> None:
        self._writer()
        self._repo(model)
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if _is_large(file["path"], file["size"]) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, model: str) -> None:
        self._writer()
        self._repo(model)
        objects = []
        for item in json.loads(self.body)["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if self.hub.objects.setdefault(item["oid"], None) is None:
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{item['oid']}"}}
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def _put(self, oid: str) -> None:
        # Like a presigned address: no token, but only what a batch has announced, and only what hashes to its name.
        if oid not in self.hub.objects or hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refused(403, None, "not announced, or not that content")
        self.hub.objects[oid] = self.body
        self._send(b"")

    def _commit(self, model: str) -> None:
        self._writer()
        repo = self._repo(model)
        files, message = dict(repo.files), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            match entry["key"]:
                case "header":
                    message = value["summary"]
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    body = self.hub.objects.get(value["oid"])
                    if body is None:
                        raise _Refused(400, None, f"{value['path']} was not uploaded")
                    files[value["path"]] = body
                case "deletedFile":
                    files.pop(value["path"], None)
                case "deletedFolder":
                    files = {path: body for path, body in files.items() if not path.startswith(value["path"])}
        self.hub._store(files)
        commit = repo.commit(files, message)
        self._json({"success": True, "commitUrl": f"{self.hub.url}/{model}/commit/{commit}", "commitOid": commit})

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _json(self, data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self._send(json.dumps(data).encode(), status, {"Content-Type": "application/json"} | dict(headers or {}))

    def _send(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        headers = dict(headers or {})
        wanted = self.headers.get("Range", "")
        if status == 200 and wanted.startswith("bytes="):  # a client going on with a half-done download
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(body)) if last else len(body)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(body)}"
            status, body = 206, body[int(first or 0) : end]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

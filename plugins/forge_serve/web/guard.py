"""Who may ask: the right host, our own page, and whoever has the token.

A server on the loopback is asked by every page that the user's browser shows, by every process of the machine, and by
names that were made to point there. So each request is held to the same four questions, files and streams included.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from forge_serve.web.problems import Refused

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = frozenset({"/login", "/healthz"})
"""What needs no token."""

LARGEST = 2**20
"""Bytes of a request's body."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Door:
    """What a request must show.

    Attributes:
        token: The token.
        port: The port that the server listens on.
        host: The host that it listens on.
        origins: Further origins under which it is reached, such as a proxy's.
    """

    token: str = field(repr=False)
    port: int
    host: str = "127.0.0.1"
    origins: frozenset[str] = frozenset()

    @property
    def cookie(self) -> str:
        """The name of the page's cookie; browsers send cookies to every port, so each server has its own."""
        return f"forge-{self.port}"

    @property
    def session(self) -> str:
        """The value of the page's cookie: made of the token, which cannot be made of it."""
        return hmac.new(self.token.encode(), b"forge serve: session", hashlib.sha256).hexdigest()

    @property
    def remote(self) -> bool:
        """Whether others than this machine can reach the server."""
        return not is_loopback(self.host)

    def knows_host(self, host: str) -> bool:
        """Whether a request was meant for this server, and not for a name that was made to point here."""
        host = host.lower()
        if host in {f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", "[::1]")}:
            return True
        if self.port == 80 and host in {"127.0.0.1", "localhost", "[::1]"}:
            return True
        if host in {urlsplit(origin).netloc for origin in self.origins}:
            return True
        name, _, port = host.rpartition(":")
        return self.remote and port == str(self.port) and (_is_address(name.strip("[]")) or name == self.host.lower())

    def knows_origin(self, origin: str) -> bool:
        """Whether a page that asks is our own."""
        if origin in self.origins:
            return True
        parts = urlsplit(origin)
        return parts.scheme == "http" and not parts.path and self.knows_host(parts.netloc)

    def lets_in(self, headers: Headers) -> bool:
        """Whether a request has the token, or the page's cookie."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and same(given.strip(), self.token):
            return True
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        return any(name == self.cookie and same(value, self.session) for name, _, value in cookies)


def same(given: str, right: str) -> bool:
    """Whether a secret is the right one, in a time that tells nothing about it."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class Guard:
    """Refuses what may not ask, before anything else looks at it, and puts the same headers on every answer."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self.app, self.door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if (no := self.objection(scope)) is not None:
            if no.status == 413:
                await drain(receive)
            await no.response()(scope, receive, guarded)
            return
        await self.app(scope, bounded(receive), guarded)

    def objection(self, scope: Scope) -> Refused | None:
        """Return why a request is refused; None where it may ask."""
        headers, method = Headers(scope=scope), scope["method"]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self.door.knows_host(hosts[0]):
            return Refused(
                421, "this server answers to its own address only; --origin names another under which it is reached"
            )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if origin is not None and not self.door.knows_origin(origin):
            return Refused(403, "a page of another origin asked")
        if method not in READING and site not in {None, "same-origin", "none"}:
            return Refused(403, "a page of another site asked")
        if scope["path"] not in OPEN and not self.door.lets_in(headers):
            why = (
                "the token is missing or wrong; open the link that `forge serve` printed, or send it as a bearer token"
            )
            return Refused(401, why, headers={"www-authenticate": "Bearer"})
        if method not in READING:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                return Refused(415, "what changes something is sent as application/json")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST:
            return Refused(413, f"a request may have {LARGEST:,} bytes")
        return None


async def drain(receive: Receive) -> None:
    """Read what is left of a body, up to a bound: who sends more than it may can read the answer then."""
    left = 16 * LARGEST
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


def bounded(receive: Receive) -> Receive:
    """Return what receives a request's body and refuses one that is too large, whatever length it was said to have."""
    seen = 0

    async def bounded_receive() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > LARGEST:
            if message.get("more_body"):
                await drain(receive)
            raise Refused(413, f"a request may have {LARGEST:,} bytes")
        return message

    return bounded_receive

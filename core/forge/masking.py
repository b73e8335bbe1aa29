"""Hides passwords and tokens in texts that are shown or written down: of forge's own messages and of others'."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

HIDDEN = "***"
"""What stands in the place of a password or a token."""

_NAMES = (
    r"[\w.-]*(?:token|secret|passw(?:or)?d|pwd|signature|credentials?|api[_-]?key|access[_-]?key(?:[_-]?id)?|jwt|assertion)"
    r"|sig|key|auth|authorization|policy|key-pair-id|x-(?:amz|goog)-[\w-]+|awsaccesskeyid"
)
"""Parameters of addresses that let in whoever has them: of signed addresses, and of services."""

_VALUE = r"[^&\s\"'<>\\#)\],]"

_PATTERNS = (
    # https://user:password@host, with what a password may hold that is not encoded; http%3A%2F%2Fuser%3Apassword%40host
    (("@",), re.compile(r"(://)[^\s/?#\"'<>\\]*@"), rf"\1{HIDDEN}@"),
    (
        ("%40",),
        re.compile(r"(%3A%2F%2F)(?:(?!%2F|%3F)[^\s&/?#\"'<>\\])*%40", re.IGNORECASE),
        rf"\1{HIDDEN}%40",
    ),
    # user:password@host:3128, as proxies are given
    (
        ("@",),
        re.compile(r"(?<![\w/@.%-])[^\s/@:\"'<>\\()=]{1,200}:[^\s/@\"'<>\\]{1,200}@(?=[\w.-]+:\d{2,5}\b)"),
        f"{HIDDEN}@",
    ),
    (
        ("=",),
        re.compile(rf"((?:[?&#;]|\\u0026)(?:{_NAMES})=){_VALUE}*[^&\s\"'<>\\#)\],:.;]", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (
        ("authorization",),
        re.compile(r"(authorization[\"']?\s*[:=]\s*[\"']?(?:(?:bearer|basic)\s+)?+)[^\s\"',}\\]{4,}", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (("bearer",), re.compile(r"(\bbearer\s+)[\w.~+/-]{20,}=*", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        ("hf_", "api_org_", "github_pat_", *(f"gh{kind}_" for kind in "oprsu"), "glpat-", "sk-", "xox", "akia", "asia"),
        re.compile(
            r"\b(?:hf_[A-Za-z0-9]{20,}|(?:hf_oauth|hf_jwt|api_org|github_pat)_[\w.-]{20,}|gh[oprsu]_[A-Za-z0-9]{20,}"
            r"|glpat-[\w-]{20,}|sk-[\w-]{20,}|xox[abp]-[\w-]{10,}|A(?:KIA|SIA)[0-9A-Z]{16})\b"
        ),
        HIDDEN,
    ),
)
"""What a login of each kind has in it for sure, in small letters, which is found fast; its pattern; what hides it."""

_SECRETS = re.compile(r"(?:^|_)(?:TOKEN|API_?KEY|PASSWORD|PASSWD|SECRET|SECRET_KEY|ACCESS_KEY)$")
"""Names of variables of the environment whose values are hidden wherever they turn up."""

_ENDS = ("TOKEN", "KEY", "PASSWORD", "PASSWD", "SECRET")  # looked at first: a log masks every line

_SHORTEST = 8  # letters; a shorter value may be any word


def masked(text: str) -> str:
    """Return a text in which logins and tokens are hidden: in addresses, in headers, and by themselves.

    >>> masked("cannot reach https://me:word@host/a?page=2&token=abc")
    'cannot reach https://***@host/a?page=2&token=***'
    """
    small = text.lower()
    for marks, pattern, instead in _PATTERNS:
        if any(mark in small for mark in marks):
            text = pattern.sub(instead, text)
    for name in os.environ:
        if name.endswith(_ENDS) and _SECRETS.search(name):
            value = os.environ.get(name, "")
            text = text.replace(value, HIDDEN) if len(value) >= _SHORTEST else text
    return text


class Masking:
    """A text stream, such as a process's log, into which nothing is written but by :func:`masked`.

    Args:
        stream: The stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        self._stream.write(masked(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def mask_output() -> None:
    """Let this process print nothing but by :func:`masked`."""
    sys.stdout, sys.stderr = Masking(sys.stdout), Masking(sys.stderr)

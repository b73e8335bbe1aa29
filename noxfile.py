"""The tasks of the repository, for people and CI, on every system: ``nox -s check``, and ``nox -l`` lists them.

They run in the environment that the README's install line made: none makes one of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["check", "test"]

# cog's own end mark, ]]], also ends types such as Mapping[str, Mapping[str, Mapping[str, Any]]] in a table of the API.
COG = ("cog", "-I", "docs", "--markers", "[[[cog ]]]--> [[[end]]]")

# What finds barriers on the page of `forge serve`; no part of forge, and fetched for tests alone.
AXE = "4.14.1"

# Where the scripts that measure find what they share with each other, with the tests and with the quick start.
BENCHMARKS = os.pathsep.join(("benchmarks", "tests", "examples/quickstart"))


def pages() -> list[str]:
    """Return the pages of the documentation, which a shell on Windows would not find by a pattern."""
    return [path.as_posix() for path in sorted(Path("docs").rglob("*.md"))]


@nox.session
def check(session: nox.Session) -> None:
    """Style, types, who imports whom, documentation."""
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("mypy", "benchmarks", env={"MYPYPATH": BENCHMARKS})
    session.run("lint-imports")
    docs(session)


@nox.session
def test(session: nox.Session) -> None:
    """The tests, or those that are named: nox -s test -- tests/core."""
    session.run("pytest", *session.posargs)


@nox.session
def cover(session: nox.Session) -> None:
    """The tests with the share of lines and branches that they reach."""
    session.run("pytest", *session.posargs, "--cov")  # last: a path behind it would be taken for its value


@nox.session
def browser(session: nox.Session) -> None:
    """All tests of the page of `forge serve`, in Chromium; with --draw also the pictures of the documentation."""
    draw = "--draw" in session.posargs
    arguments = [argument for argument in session.posargs if argument != "--draw"]
    session.run("npm", "install", "--silent", "--no-save", "--prefix", "build/axe", f"axe-core@{AXE}", external=True)
    environ = {"FORGE_AXE": str(Path("build/axe/node_modules/axe-core/axe.min.js").resolve())}
    if draw:
        environ["FORGE_PICTURES"] = str(Path("docs/images").resolve())
    session.run("pytest", "-m", "browser or not browser", "tests/serve/page", *arguments, env=environ)


@nox.session
def docs(session: nox.Session) -> None:
    """Hold the generated parts to the code, and build the site into build/site."""
    session.run(*COG, "--check", "--diff", *pages())
    session.run("mkdocs", "build", "--strict", "--quiet")


@nox.session
def generate(session: nox.Session) -> None:
    """Write the generated parts of the documentation."""
    session.run(*COG, "-r", *pages())


@nox.session
def contract(session: nox.Session) -> None:
    """Add what is new to the list of what plugins can rely on; what is gone is told, and never removed."""
    session.run("python", "tests/support/contract.py")


@nox.session
def bench(session: nox.Session) -> None:
    """A benchmark: nox -s bench -- trl_parity.py --full. Without a name the smallest, which takes seconds."""
    script, *arguments = session.posargs or ["trl_parity.py", "--tiny"]
    session.run("python", f"benchmarks/{script}", *arguments)

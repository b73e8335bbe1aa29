"""The files that every new plugin has, whatever it brings. ``@NAME@`` and the like stand for what differs."""

from __future__ import annotations

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "forge-@NAME@"
version = "0.1.0"
description = "@ABOUT@"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["@NEEDS@"]

[project.optional-dependencies]
dev = ["mypy", "pytest", "ruff"]

[project.entry-points.@API@]
@NAME@ = "@PACKAGE@"

[tool.hatch.build.targets.wheel]
packages = ["@PACKAGE@"]

[tool.mypy]
strict = true
packages = ["@PACKAGE@"]

[[tool.mypy.overrides]]
module = ["trl.*"]
follow_imports = "skip"
ignore_missing_imports = true

[tool.ruff]
line-length = 120
"""

README = """\
# forge-@NAME@

@ABOUT@ A plugin of [forge](https://pypi.org/project/forge-train/).

```sh
pip install -e ".[dev]"
pytest
forge plugins @NAME@
```

## Use

```@JOB@
```

@SEEN@

## What is where

- `@PACKAGE@/__init__.py` says what the plugin can do. forge imports it while it plans, so it imports nothing heavy.
- The other modules do it. They are imported in the process that needs them.
- `tests/` checks the contract, and what the plugin does in a run.

forge's pages on plugins, docs/plugins/, tell of every hook, record and word.
"""

IGNORED = """\
__pycache__/
*.egg-info/
.mypy_cache/
.pytest_cache/
.ruff_cache/
dist/
runs/
"""

CI = """\
name: CI
on: [push, pull_request]
permissions:
  contents: read
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.13"]
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: ${{ matrix.python }}
      - run: pip install -e ".[dev]"
      - run: ruff check
      - run: ruff format --check
      - run: mypy
      - run: pytest
"""

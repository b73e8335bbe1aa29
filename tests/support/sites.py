"""Distributions that are installed for one test only, and clean interpreters that see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import tomli

from forge.api import API

if TYPE_CHECKING:
    from collections.abc import Mapping

FORGE = str(Path(sys.executable).with_name("forge"))


_MODULES = """
import sys
before = set(sys.modules)  # an interpreter whose coverage is measured has many
import json
sys.argv[0] = "forge"
from forge.cli import main
try:
    main()
finally:
    sys.stdout.flush()
    print("\\n" + json.dumps(sorted(set(sys.modules) - before)))
"""


class Site:
    """A folder of installed distributions, as ``site-packages`` is one, and interpreters that see it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def install(
        self, name: str, modules: Mapping[str, str], points: str, version: str = "1.0", needs: str = ""
    ) -> None:
        """Install a distribution: its modules, the text of its ``entry_points.txt``, and what it requires."""
        for module, text in modules.items():
            path = self.folder / f"{module.replace('.', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (info / "METADATA").write_text(head + (f"Requires-Dist: {needs}\n" if needs else ""))
        (info / "entry_points.txt").write_text(points)

    def install_project(self, root: Path) -> None:
        """Install a project as an editable install does: its packages stay where they are."""
        table = tomli.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        project = table["project"]
        points = "\n".join(f"{key} = {value}" for key, value in project["entry-points"][API].items())
        self.install(project["name"], {}, f"[{API}]\n{points}\n", project["version"])
        for package in table["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
            (self.folder / package).symlink_to(root / package, target_is_directory=True)

    def pytest(self, *roots: Path) -> str:
        """Run the tests of installed projects in an interpreter of their own, and return what it prints."""
        command = [sys.executable, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "--import-mode=importlib"]
        ran = subprocess.run(
            [*command, "--rootdir", str(self.folder.parent), "-c", os.devnull, *map(str, roots)],
            capture_output=True,
            text=True,
            env=self.environment(),
            cwd=self.folder,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def environment(self, **variables: str) -> dict[str, str]:
        """Return an environment in which interpreters see the distributions."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("FORGE_", "_FORGE"))}
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        more = {"FORGE_CACHE": str(self.folder.with_name("cache")), "FORGE_CONFIG": ""}
        return {**clean, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **more, **variables}

    def python(self, code: str, *arguments: str, **variables: str) -> str:
        """Run code in a fresh interpreter and return what it prints."""
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment(**variables), cwd=self.folder, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def modules(self, *arguments: str) -> set[str]:
        """Return the modules that a command of ``forge`` loads, without those of a bare interpreter."""
        return set(json.loads(self.python(_MODULES, *arguments).splitlines()[-1]))

    def forge(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command ``forge``."""
        return subprocess.run(
            [FORGE, *arguments],
            capture_output=True,
            text=True,
            env=self.environment(**variables),
            cwd=self.folder,
            timeout=60,
        )

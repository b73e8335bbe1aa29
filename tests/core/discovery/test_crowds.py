"""Many plugins of strangers are asked at once, and each has its own time."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from forge.discovery.discover import discover
from support.crowd import install_good, offering
from support.projects import alive, wait_for

if TYPE_CHECKING:
    from pathlib import Path

    from support.sites import Site


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Site:
    """A site whose plugins this process sees, and a memory of its own."""
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORGE_PLUGIN_SECONDS", raising=False)
    return site


def statuses(*names: str) -> dict[str, str]:
    found = discover({})
    return {name: f"{plugin.status} {plugin.reason or ''}" for name in names if (plugin := found.find(name))}


def test_no_plugin_keeps_another_waiting(here: Site, tmp_path: Path) -> None:
    for mine, other in ("ab", "ba"):  # neither answers before the other is asked
        text = f"import pathlib, time\npathlib.Path({str(tmp_path / mine)!r}).touch()\n"
        text += f"while not pathlib.Path({str(tmp_path / other)!r}).exists():\n    time.sleep(0.01)\n"
        text += offering(f"yield Extension(impl='meet_{mine}')")
        here.install(f"forge-meet-{mine}", {f"meet_{mine}": text}, f"[forge_v1]\nmeet-{mine} = meet_{mine}\n")
    assert statuses("meet-a", "meet-b") == {"meet-a": "ok ", "meet-b": "ok "}


def test_what_it_takes_to_start_the_process_that_asks_is_not_the_plugins_time(
    here: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = "import sys, time\nif 'forge.discovery.asking' in sys.orig_argv:\n    time.sleep(2.5)\n"
    (here.folder / "sitecustomize.py").write_text(late)
    monkeypatch.setenv("PYTHONPATH", str(here.folder))
    monkeypatch.setenv("FORGE_PLUGIN_SECONDS", "2")
    install_good(here, "good")
    assert statuses("good") == {"good": "ok "}


def test_who_does_not_wait_for_plugins_leaves_nothing_behind(site: Site, tmp_path: Path) -> None:
    told = tmp_path / "asked"
    text = f"import os, pathlib, time\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n"
    site.install("forge-slow", {"slow_mod": text}, "[forge_v1]\nslow = slow_mod\n")
    # Where the tests run in the background of a script, the shell has SIGINT ignored, also for what they start.
    heeds = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from forge.cli import main; main()"
    )
    arguments = [sys.executable, "-c", heeds, "plugins"]
    command = subprocess.Popen(arguments, env=site.environment(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: told.exists() and told.read_text())
    command.send_signal(signal.SIGINT)
    assert "stopped" in command.communicate(timeout=60)[1]
    assert command.returncode == 130
    wait_for(lambda: not alive(int(told.read_text())), seconds=30)

"""Plugins that do to their process, and say of themselves, what nobody should: it costs them alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from forge.discovery.discover import discover
from support.crowd import HEAD, install_good, offering
from support.projects import alive, wait_for

if TYPE_CHECKING:
    from support.sites import Site

FINE = offering('yield Offer(stage=Stage.EXPORT, impl="a:b", serves=frozenset({"evil/tar"}))')

PROCESS = {
    "forks": f"import os\nos.fork()\n{FINE}",
    "leaves-its-process-to-a-copy": f"import os\nif os.fork():\n    os._exit(0)\nos.setsid()\n{FINE}",
    "starts-a-process": "import subprocess, sys\n"
    f"subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n{FINE}",
    "leaves-a-thread": f"import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n{FINE}",
    "ends-later": f"import os, threading\nthreading.Timer(0.05, os._exit, (0,)).start()\n{FINE}",
    "kills-its-parent": f"import os\nos.kill(os.getppid(), 9)\n{FINE}",
    "kills-its-group": f"import os\nos.killpg(0, 9)\n{FINE}",
    "writes-everywhere": "import os\nfor number in range(3, 40):\n    try:\n"
    f"        os.write(number, b'{{\"told\": 1}}')\n    except OSError:\n        pass\n{FINE}",
    "closes-everything": f"import os\nos.closerange(3, 256)\n{FINE}",
    "changes-its-surroundings": "import locale, logging, os, signal, sys, warnings\n"
    "os.chdir('/')\nos.environ.clear()\nsys.path.clear()\nsys.meta_path.clear()\nsys.modules['wave'] = None\n"
    "warnings.simplefilter('error')\nlogging.disable(50)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    f"locale.setlocale(locale.LC_ALL, 'C')\nsys.stdout = sys.stderr = None\n{FINE}",
    "floods": f"for _ in range(2000): print('x' * 1000)\n{FINE}",
    "recodes": f"import sys\nsys.stdout.reconfigure(encoding='utf-16')\n{FINE}",
    "patches-builtins": f"import builtins\nbuiltins.len = None\n{FINE}",
    "clears-modules": f"import sys\nsys.modules.clear()\n{FINE}",
    "limits-recursion": f"import sys\nsys.setrecursionlimit(60)\n{FINE}",
    "acts-at-its-exit": f"import atexit, os\natexit.register(os._exit, 5)\n{FINE}",
    "changes-forge": "import json\nimport forge.discovery.loading\n"
    f"forge.discovery.loading.load = json.dumps = None\n{FINE}",
}
"""Modules by what they do to the process that imports them."""

KEYS = FINE.replace("{", "{{").replace("}))", "}}), options='evil_mod:Keys')") + (
    "\nfrom forge.api import Table\nclass Keys(Table):\n    {}\n"
)
"""A module whose keys are to be filled in."""

NEXT = """import os, warnings, wave
assert "PATH" in os.environ and os.getcwd() != "/"
warnings.warn("of no account")
"""
"""The beginning of a plugin that wants its surroundings as they ought to be."""


@pytest.fixture
def here(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site whose plugins this process sees, and a memory of its own."""
    monkeypatch.syspath_prepend(site.folder)
    monkeypatch.setenv("FORGE_CACHE", str(site.folder.with_name("cache")))
    monkeypatch.setenv("FORGE_PLUGIN_SECONDS", "3")
    return site


@pytest.mark.parametrize("way", PROCESS)
def test_what_a_plugin_does_to_its_process_is_nothing_to_the_next_one(here: Site, way: str) -> None:
    here.install("forge-evil", {"evil_mod": PROCESS[way]}, "[forge_v1]\nevil = evil_mod\n")
    text = NEXT + FINE.replace("evil/tar", "next/tar")
    here.install("forge-next", {"next_mod": text}, "[forge_v1]\nnext = next_mod\n")
    for again in (False, True):
        found = discover({}, again=again)
        after = found.find("next")
        assert after is not None
        assert after.status == "ok", after.reason
    evil = found.find("evil")
    assert evil is not None
    assert evil.status == "ok" or "Error" in str(evil.reason) or "it ended the process" in str(evil.reason)


def test_the_process_of_a_plugin_that_hangs_ends_with_all_that_it_started(here: Site) -> None:
    number = here.folder / "number"
    text = (
        "import subprocess, sys, time\n"
        "started = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"with open({str(number)!r}, 'w') as file:\n    print(started.pid, file=file)\ntime.sleep(60)\n{FINE}"
    )
    here.install("forge-evil", {"evil_mod": text}, "[forge_v1]\nevil = evil_mod\n")
    found = discover({}).find("evil")
    assert found is not None
    assert "it gave no answer within 3 seconds" in str(found.reason)
    wait_for(lambda: not alive(int(number.read_text())), seconds=30)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (offering("while True:\n        yield Extension(impl='a')"), "yields more than 1000 offers, commands"),
        (FINE.replace("}))", "}), supports=frozenset(f'evil/{n}' for n in range(90_000)))"), "says 1 MiB of itself"),
        (FINE.replace("evil/tar", "evil/t ar"), "serves 'evil/t ar' at export; a word of its own is evil/ and then"),
        (FINE.replace("evil/tar", "evil/t\\nar"), r"serves = frozenset({'evil/t\nar'})"),
        (FINE.replace("evil/tar", "evil/t\\u0430r"), r"serves 'evil/t\u0430r' at export"),
        (FINE.replace("evil/tar", "evil/"), "serves 'evil/' at export"),
        (FINE.replace("}))", "}), backend='\\udc80')"), "with backend = '\\udc80'; write a text"),
        (FINE.replace("}))", "}), provides=frozenset({'\\x1b[2J'}))"), r"with provides = frozenset({'\x1b[2J'})"),
        (FINE.replace("}))", "}), environment={'A=B': 'x'})"), "write a dict of texts"),
        (FINE.replace("}))", "}), environment={'A': 'x\\0'})"), "write a dict of texts"),
        (KEYS.format("a: object = object()"), "the keys of Keys are not all JSON data with a schema"),
        (KEYS.format("a: float = float('nan')"), "the keys of Keys are not all JSON data with a schema"),
        (f"raise RuntimeError('two\\nlines ' * 500)\n{HEAD}", "RuntimeError: two lines two lines"),
    ],
)
def test_what_a_plugin_says_of_itself_is_held_to_what_commands_can_bear(here: Site, text: str, said: str) -> None:
    here.install("forge-evil", {"evil_mod": text}, "[forge_v1]\nevil = evil_mod\n")
    found = discover({}).find("evil")
    assert found is not None
    assert found.status == "broken"
    assert said in str(found.reason)
    assert len(str(found.reason)) <= 400
    assert "\n" not in str(found.reason)


@pytest.mark.parametrize(
    ("point", "status", "said"),
    [
        ("evil = evil_mod:forge_offers", "broken", "its entry point names evil_mod:forge_offers, of the type function"),
        ("evil = ../evil mod!", "broken", "its entry_points.txt is damaged: 'evil = ../evil mod!'"),
        ("HuggingFace = evil_mod", "duplicate", "huggingface is a plugin of forge's own; it needs another name"),
        ("unsloth_text = evil_mod", "duplicate", "unsloth-text is a plugin of forge's own; it needs another name"),
    ],
)
def test_an_entry_point_names_a_module_and_no_name_that_passes_for_one_of_forges_own(
    here: Site, point: str, status: str, said: str
) -> None:
    here.install("forge-evil", {"evil_mod": FINE}, f"[forge_v1]\n{point}\n")
    (found,) = (plugin for plugin in discover({}).plugins if plugin.distribution == "forge-evil")
    assert (found.status, said in str(found.reason)) == (status, True), found.reason


def test_records_without_end_are_given_up(here: Site) -> None:
    text = FINE.replace("}))", "}), decide=decide)") + (
        "\ndef decide(machine, job, facts):\n    while True:\n        yield Decision('train.learning_rate', 1.0, 'r')\n"
    )
    here.install("forge-evil", {"evil_mod": text}, "[forge_v1]\nevil = evil_mod\n")
    install_good(here, "good")
    found = discover({}).find("evil")
    assert found is not None
    decide = found.offers[0].decide
    assert decide is not None
    with pytest.raises(Exception, match="it yields more than 1000 records"):
        decide(None, None, None)


def test_a_model_of_keys_that_does_what_it_likes_is_named_and_prints_into_no_output(here: Site) -> None:
    rule = "@field_validator('a')\n    @classmethod\n    def ruled(cls, value):\n        print('ruled')\n"
    text = KEYS.format(f"a: int = 1\n    {rule}        raise SystemExit(3)")
    here.install(
        "forge-evil", {"evil_mod": f"from pydantic import field_validator\n{text}"}, "[forge_v1]\nevil = evil_mod\n"
    )
    job = '[model]\nid = "org/none"\n[data]\npath = "rows.jsonl"\n[[export]]\nformat = "evil/tar"\na = 3\n'
    (here.folder / "job.toml").write_text(job)
    done = here.forge("plan", "job.toml", "--json")
    said = json.loads(done.stdout)["error"]
    assert (done.returncode, said["why"]) == (1, "SystemExit: 3")
    assert said["what"] == "evil_mod.Keys failed at the keys of a job"


def test_a_reason_of_a_probe_is_one_line(here: Site) -> None:
    text = FINE.replace("}))", "}), probe=lambda *_: 'two\\nlines ' * 99_999)")
    here.install("forge-evil", {"evil_mod": text}, "[forge_v1]\nevil = evil_mod\n")
    job = '[model]\nid = "org/none"\n[data]\npath = "rows.jsonl"\n[[export]]\nformat = "evil/tar"\n'
    (here.folder / "job.toml").write_text(job)
    done = here.forge("plan", "job.toml")
    assert "evil: two lines two" in done.stderr
    assert len(done.stderr) < 1000

"""Plugins of strangers, many of them broken, each in a way of its own: a machine as nobody should have one."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from support.sites import Site

HEAD = "from forge.api import Command, Decision, Extension, Offer, Problem, Stage, hookimpl\n"

GOOD = f"""{HEAD}
def cannot(machine, job, facts):
    job.train.options["learning_rate"] = 99.0
    job.export.clear()
    print("a probe that prints, and changes what it is given")

@hookimpl
def forge_offers():
    yield Offer(stage=Stage.EXPORT, impl="MODULE:nothing", serves=frozenset({{"merged", "NAME/own"}}),
                options="MODULE:Keys", config="MODULE:Keys", probe=cannot, sheds=("PATH", "HF_"),
                patches=frozenset({{"json"}}), environment={{"OMP_NUM_THREADS": "77"}}, priority=99)
    yield Offer(stage=Stage.TRAIN, impl="MODULE:nothing", serves=frozenset({{"sft"}}), options="MODULE:Keys")
    yield Offer(stage=Stage.LOAD, impl="MODULE:nothing", supports=frozenset({{"text"}}), priority=99,
                provides=frozenset({{"NAME-model"}}))
    yield Extension(impl="MODULE")

from forge.api import Table

class Keys(Table):
    shiny: bool = True
    learning_rate: str = "fast"
"""
"""One that can be used, is not chosen, and would leave traces everywhere if it were asked."""


def offering(text: str) -> str:
    """Return a module whose hook yields something."""
    return f"{HEAD}\n@hookimpl\ndef forge_offers():\n    {text}\n"


def _offer(more: str) -> str:
    return offering(f'yield Offer(stage=Stage.EXPORT, impl="a:b", serves=frozenset({{"merged"}}), {more})')


BROKEN: Mapping[str, str] = {
    "raises": f"raise RuntimeError('no licence')\n{GOOD}",
    "exits": "import sys\nsys.exit(3)\n",
    "ends": "import os\nos._exit(0)\n",
    "interrupts": "raise KeyboardInterrupt\n",
    "kills": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
    "hangs": "import time\ntime.sleep(3600)\n",
    "misses": "import forge_surely_not_there\n",
    "syntax": "def broken(:\n",
    "torch": f"import torch\n{GOOD}",
    "nothing": "",
    "yields-text": offering("yield 'an offer'"),
    "yields-none": offering("yield None"),
    "returns-int": offering("return 3"),
    "hook-raises": offering("yield 1 / 0"),
    "hook-exits": offering("import sys; sys.exit(1)"),
    "hook-hangs": offering("import time; time.sleep(3600)"),
    "list": _offer('supports=["push"]'),
    "text": offering('yield Offer(stage=Stage.EXPORT, impl="a:b", serves="merged")'),
    "typo": f"{GOOD}\n@hookimpl\ndef forge_ofers():\n    return []\n",
    "path": _offer('environment={"PATH": "/nowhere"}'),
    "number": _offer('environment={"A": 1}'),
    "impl": offering('yield Offer(stage=Stage.LOAD, impl=3, supports=frozenset({"text"}))'),
    "options-missing": _offer('options="nowhere:Keys"'),
    "options-plain": _offer('options="json:dumps"'),
    "options-exit": _offer('options="MODULE:leave"').replace(
        "from forge.api", "import sys\nleave = sys.exit\nfrom forge.api"
    ),
    "options-clash": _offer('options="MODULE:Keys"')
    + "from forge.api import Table\nclass Keys(Table):\n    format: int = 3\n",
    "config-missing": _offer('config="nowhere:Keys"'),
    "options-load": offering('yield Offer(stage=Stage.LOAD, impl="a:b", supports=frozenset(), options="MODULE:Keys")')
    + "from forge.api import Table\nclass Keys(Table):\n    mine: int = 3\n",
    "unknown-word": offering('yield Offer(stage=Stage.TRAIN, impl="a:b", serves=frozenset({"stf"}))'),
    "endless": offering("while True: yield Extension(impl='a')"),
    "own-error": "class Own(BaseException):\n    def __str__(self): raise RuntimeError\nraise Own\n",
    "recurses": "def again(): again()\nagain()\n",
    "closes": "import os, sys\nsys.stdout.close()\nos.close(1)\nraise RuntimeError('closed')\n",
}
"""Modules that cannot be used, by what they do."""


def install_good(site: Site, name: str) -> None:
    """Install a plugin that can be used."""
    module = f"crowd_{name.replace('-', '_')}"
    text = GOOD.replace("MODULE", module).replace("NAME", name)
    site.install(f"forge-{name}", {module: text}, f"[forge_v1]\n{name} = {module}\n")


def install_broken(site: Site, name: str, way: str) -> None:
    """Install a plugin that cannot be used, in one of the ways."""
    module = f"crowd_{name.replace('-', '_')}"
    text = BROKEN[way].replace("MODULE", module).replace("NAME", name)
    site.install(f"forge-{name}", {module: text}, f"[forge_v1]\n{name} = {module}\n")


def install_damaged(site: Site) -> None:
    """Install distributions whose metadata is damaged, plugins and others."""
    for name, points in {
        "no-metadata": "[forge_v1]\nno-metadata = crowd_nowhere\n",
        "no-value": "[forge_v1]\nno-value =\n",
        "odd-name": "[forge_v1]\nplügin = crowd_nowhere\n",
        "own-name": "[forge_v1]\nhuggingface = crowd_thief\n",
        "future": "[forge_v2]\nfuture = crowd_nowhere\n",
        "twin-a": "[forge_v1]\ntwin = crowd_nowhere\n",
        "twin-b": "[forge_v1]\ntwin = crowd_nowhere\n",
    }.items():
        site.install(f"forge-{name}", {}, points)
    (site.folder / "forge_no_metadata-1.0.dist-info" / "METADATA").unlink()
    (site.folder / "forge_dangling-1.0.dist-info").symlink_to(site.folder / "nowhere")


def install_unreadable(site: Site) -> None:
    """Install distributions whose entry points cannot be read: forge reads past them, and transformers does not."""
    site.install("forge-malformed", {}, "[forge_v1]\nthis line says nothing\n")
    site.install("others", {}, "[console_scripts\nbroken\x00 = = =\n")
    info = site.folder / "forge_bytes-1.0.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_bytes(b"[forge_v1]\n\xff\xfe = \x80\n")


def install_crowd(site: Site, good: int, broken: int) -> None:
    """Install that many plugins, those that are broken in all ways by turns, and damaged metadata beside them."""
    ways = list(BROKEN)
    for number in range(good):
        install_good(site, f"good-{number}")
    for number in range(broken):
        way = ways[number % len(ways)]
        if number >= len(ways) and way in {"hangs", "hook-hangs"}:  # one of a kind is enough to wait for
            way = "raises"
        install_broken(site, f"bad-{number}", way)
    install_damaged(site)

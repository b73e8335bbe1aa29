"""``forge schema``: the JSON Schema of job files, for editors."""

from __future__ import annotations

import click

from forge.cli.common import print_json, with_files
from forge.errors import UsageError


@click.command(name="schema")
@click.argument("plugins", nargs=-1, metavar="[PLUGIN]...")
def command(plugins: tuple[str, ...]) -> None:
    """Print the JSON Schema of job files, composed from the core, forge's own plugins and each PLUGIN.

    Save it beside your jobs and begin them with `#:schema ./forge.schema.json`, and editors with Taplo complete and
    check the keys. A plugin of somebody else's adds its keys where you name it, one in one file by that: ./mine.py.
    """
    from forge.discovery.keys import PluginKeys
    from forge.job.schema import job_schema

    names, catalogue = with_files(plugins)
    for name in names:
        plugin = catalogue.find(name)
        if plugin is None or plugin.status != "ok":
            why = "is not installed" if plugin is None else f"is {plugin.status}: {plugin.reason}"
            raise UsageError(f"the keys of plugin {name} are unknown", f"it {why}", "see `forge plugins`")
    own = [plugin.name for plugin in catalogue.usable if plugin.own]
    print_json(job_schema(PluginKeys(catalogue), list(dict.fromkeys([*own, *names]))))

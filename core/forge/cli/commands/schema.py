"""``forge schema``: the JSON Schema of job files, for editors."""

from __future__ import annotations

import click

from forge.cli.common import print_json


@click.command(name="schema")
def command() -> None:
    """Print the JSON Schema of job files, composed from the core and the installed plugins.

    Save it beside your jobs and begin them with `#:schema ./forge.schema.json`, and editors with Taplo complete and
    check the keys.
    """
    from forge.discovery.discover import discover
    from forge.discovery.keys import PluginKeys
    from forge.job.schema import job_schema

    print_json(job_schema(PluginKeys(discover())))

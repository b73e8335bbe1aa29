"""``forge plugins``: what is installed, what is broken and why, and the beginning of a plugin of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forge.cli.common import json_option, print_json

if TYPE_CHECKING:
    from forge.discovery import Plugin


@click.command(name="plugins")
@click.argument("name", metavar="[NAME]", required=False)
@click.argument("new_name", metavar="", required=False)
@json_option
def command(name: str | None, new_name: str | None, as_json: bool) -> None:
    """List the plugins, or show one by NAME with its offers; `forge plugins new NAME` writes the start of one.

    FORGE_PLUGINS=a,b loads only these; FORGE_PLUGINS=-a loads all but that; FORGE_PLUGINS= only forge's own.
    """
    from forge.discovery import discover
    from forge.errors import UsageError

    if name == "new":
        if not new_name:
            raise UsageError("the new plugin has no name", do="write forge plugins new NAME")
        from forge.scaffold import scaffold

        for path in scaffold(new_name, Path()):
            click.echo(path)
        return
    if new_name:
        raise UsageError(f"forge plugins takes one name, not {name} and {new_name}")
    catalogue = discover()
    if name:
        plugin = catalogue.find(name)
        if plugin is None:
            known = ", ".join(p.name for p in catalogue.plugins)
            raise UsageError(f"there is no plugin {name}", f"there are {known}", f"often `pip install forge-{name}`")
        shown = _whole(plugin)
        print_json(shown) if as_json else click.echo(_text(shown))
        return
    if as_json:
        print_json([_whole(plugin) for plugin in catalogue.plugins])
        return
    for plugin in catalogue.plugins:
        stages = ", ".join(dict.fromkeys(offer.stage.value for offer in plugin.offers))
        stages += (", " if stages and plugin.extensions else "") + ("observer" if plugin.extensions else "")
        what = stages if plugin.status == "ok" else f"{plugin.status}: {plugin.reason}"
        click.echo(f"{plugin.name:<18}{plugin.distribution} {plugin.version:<10}{what}")


def _whole(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "reason": plugin.reason,
        "offers": [
            {
                "stage": offer.stage.value,
                "impl": offer.impl,
                "supports": sorted(offer.supports),
                "requires": list(offer.requires_dist),
                "platforms": sorted(offer.platforms),
                "accelerators": sorted(offer.accelerators),
                "provides": sorted(offer.provides),
                "depends": sorted(offer.depends),
                "conflicts": sorted(offer.conflicts),
                "priority": offer.priority,
                "backend": offer.backend,
            }
            for offer in plugin.offers
        ],
        "extensions": [extension.impl for extension in plugin.extensions],
    }


def _text(shown: dict[str, Any]) -> str:
    lines = [f"{shown['name']}: {shown['distribution']} {shown['version']}, {shown['status']}"]
    if shown["reason"]:
        lines.append(shown["reason"])
    for offer in shown["offers"]:
        lines.append(f"  {offer['stage']:<9}{offer['impl']}")
        for key, value in offer.items():
            if value and key not in {"stage", "impl"}:
                lines.append(f"    {key:<13}{', '.join(value) if isinstance(value, list) else value}")
    lines += [f"  observer {module}" for module in shown["extensions"]]
    return "\n".join(lines)

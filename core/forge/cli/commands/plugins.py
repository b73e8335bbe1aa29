"""``forge plugins``: what is installed, what is broken and why, and the beginning of a plugin of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from forge.cli.common import json_option, print_json, with_files
from forge.cli.scaffold import scaffold
from forge.cli.scaffold.kinds import KINDS
from forge.cli.terminal import say
from forge.errors import UsageError

if TYPE_CHECKING:
    from forge.discovery.catalogue import Plugin


class PluginsGroup(click.Group):
    """A group whose other words are names or files of plugins: ``forge plugins gguf`` shows that one."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command of a word, or one that shows the plugin of that name."""
        return super().get_command(ctx, cmd_name) or _show_command(cmd_name)


@click.group(
    name="plugins", cls=PluginsGroup, invoke_without_command=True, subcommand_metavar="[NAME | FILE.py | new NAME]"
)
@json_option
@click.option("--again", is_flag=True, help="Ask plugins of others anew, also those whose files are as they were.")
@click.pass_context
def command(context: click.Context, as_json: bool, again: bool) -> None:
    """List the plugins, or show one by NAME, or by its file, with its offers and commands.

    FORGE_PLUGINS=a,b loads only these; FORGE_PLUGINS=-a loads all but that; FORGE_PLUGINS= only forge's own. What
    others' plugins can do is asked once for each version of their files, and remembered.
    """
    from forge.discovery.discover import discover

    context.obj = as_json
    if context.invoked_subcommand is not None:
        return
    catalogue = discover(again=again)
    if as_json:
        print_json([_whole(plugin) for plugin in catalogue.plugins])
        return
    for name in catalogue.missed:
        say(f"FORGE_PLUGINS names {name}, and there is no such plugin here", err=True)
    for plugin in catalogue.plugins:
        what = dict.fromkeys(offer.stage.value for offer in plugin.offers)
        what |= {"observer": None} if plugin.extensions else {}
        what |= dict.fromkeys(function.name for function in plugin.functions)
        what |= {f"forge {command.name}": None for command in plugin.commands}
        what |= {f"--to {target.name}": None for target in plugin.targets}
        what |= {f"check {check.name}": None for check in plugin.checks}
        said = ", ".join(what) if plugin.status == "ok" else f"{plugin.status}: {plugin.reason}"
        say(f"{plugin.name:<17} {plugin.distribution} {plugin.version:<10}{said}")
        for old in plugin.deprecated:
            say(f"{'':<18}warning: it uses {old}")


@command.command(name="new")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(list(KINDS)), default="observer", show_default=True, help="What it is to bring."
)
def new(name: str, kind: str) -> None:
    """Write the beginning of a plugin called NAME, as a distribution forge-NAME in this folder.

    It installs, its tests pass, and it does something that is seen in the first `forge run`; its README says what.
    """
    from forge.cli import COMMANDS

    written = scaffold(name, Path(), kind, commands=COMMANDS)
    for path in written:
        say(path)
    root = written[0].parent
    say(f'next: pip install -e "{root}[dev]", pytest {root}, and {root}/README.md', err=True)


def _show_command(name: str) -> click.Command:
    """Return a command that shows one plugin."""

    @click.command(name=name)
    @json_option
    @click.pass_obj
    def show(before: bool, as_json: bool) -> None:
        """Show this plugin with its offers and commands."""
        (called,), catalogue = with_files([name])
        plugin = catalogue.find(called)
        if plugin is None:
            there = ", ".join(plugin.name for plugin in catalogue.plugins)
            raise UsageError(f"there is no plugin {name}", f"there are {there}", f"often `pip install forge-{name}`")
        shown = _whole(plugin)
        print_json(shown) if before or as_json else say(_text(shown))

    return show


def _whole(plugin: Plugin) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status,
        "reason": plugin.reason,
        "deprecated": list(plugin.deprecated),
        "offers": [
            {
                "stage": offer.stage.value,
                "impl": offer.impl,
                "serves": sorted(offer.serves),
                "supports": sorted(offer.supports),
                "requires": list(offer.requires_dist),
                "platforms": sorted(offer.platforms),
                "accelerators": sorted(offer.accelerators),
                "provides": sorted(offer.provides),
                "removes": sorted(offer.removes),
                "depends": sorted(offer.depends),
                "conflicts": sorted(offer.conflicts),
                "priority": offer.priority,
                "backend": offer.backend,
            }
            for offer in plugin.offers
        ],
        "extensions": [extension.impl for extension in plugin.extensions],
        "functions": {function.name: function.impl for function in plugin.functions},
        "commands": {command.name: command.help for command in plugin.commands},
        "targets": {target.name: target.help for target in plugin.targets},
        "checks": {check.name: check.help for check in plugin.checks},
    }


def _text(shown: dict[str, Any]) -> str:
    lines = [f"{shown['name']}: {shown['distribution']} {shown['version']}, {shown['status']}"]
    if shown["reason"]:
        lines.append(shown["reason"])
    lines += [f"warning: it uses {what}" for what in shown["deprecated"]]
    for offer in shown["offers"]:
        lines.append(f"  {offer['stage']:<9}{offer['impl']}")
        for key, value in offer.items():
            if value and key not in {"stage", "impl"}:
                lines.append(f"    {key:<13}{', '.join(value) if isinstance(value, list) else value}")
    lines += [f"  observer {module}" for module in shown["extensions"]]
    lines += [f"  function {name}  {impl}" for name, impl in shown["functions"].items()]
    lines += [f"  forge {name:<12}{said}" for name, said in shown["commands"].items()]
    lines += [f"  --to {name:<13}{said}" for name, said in shown["targets"].items()]
    lines += [f"  check {name:<12}{said}" for name, said in shown["checks"].items()]
    return "\n".join(lines)

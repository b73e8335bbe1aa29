"""The commands, how they end, and the machines to plan for."""

from __future__ import annotations

import inspect

import click

from forge import errors
from forge.cli import COMMANDS, cli
from forge.discovery.discover import discover
from forge.machine.presets import PRESETS
from parts.markdown import sentence, table


def helps() -> str:
    """The help text of every command, those of forge's own plugins after the core's."""
    root = click.Context(cli, terminal_width=100, info_name="forge", **cli.context_settings)
    texts = [f"```text\n{cli.get_help(root).rstrip()}\n```"]
    brought = [command.name for plugin in discover({"FORGE_PLUGINS": ""}).usable for command in plugin.commands]
    for name in (*COMMANDS, *sorted(brought)):
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=root, terminal_width=100)
        texts.append(f"## forge {name}\n\n```text\n{command.get_help(context).rstrip()}\n```")
    return "\n\n".join(texts)


def exit_codes() -> str:
    """The errors that forge raises on purpose, with their exit codes."""
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ForgeError)]
    found.sort(key=lambda each: each.exit_code)
    lines = [(f"`{each.__name__}`", str(each.exit_code), sentence(inspect.getdoc(each) or "")) for each in found]
    return table(("error", "exit code", "meaning"), lines)


def machines() -> str:
    """The presets of ``FORGE_MACHINE``."""
    lines = []
    for name, machine in PRESETS.items():
        cards = ", ".join(card.name for card in machine.accelerators) or "none"
        torch = machine.torch.version if machine.torch else "none"
        lines.append((f"`{name}`", f"{machine.platform} {machine.arch}", cards, torch))
    return table(("name", "platform", "accelerator", "torch"), lines)

"""The command ``forge``. Its commands live in :mod:`forge.cli.commands`, imported when they are called.

``forge --help`` prints from the table below, so it imports nothing but click; a test holds the table to the modules. A
command's module imports in its function what pydantic, rich or the plugins come with, so that its ``--help`` and a
shell's completion take 60 ms and not 300.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from forge.cli.terminal import Unwritable, say, standard_streams
from forge.errors import ForgeError, Interrupted, PluginError, UsageError, no_text, told_by

COMMANDS = {
    "run": "Train what a job file says.",
    "resume": "Go on with a run that was stopped or killed.",
    "worker-node": "Take part in a training that another node has begun.",
    "submit": "Send a job to a cluster or a cloud.",
    "logs": "Print what a run has told, here or where it was sent.",
    "fetch": "Bring what a run made where it was sent.",
    "cancel": "End a run that was sent elsewhere.",
    "script": "Print a job as one file that `uv run` trains.",
    "eval": "Measure a trained run on held-out rows.",
    "chat": "Talk to a trained run.",
    "export": "Export a trained run, again or in another format.",
    "plan": "Show which plugins would run a job, and why.",
    "data": "Show the rows of a job as the trainer gets them.",
    "init": "Write a commented job file for this machine.",
    "schema": "Print the JSON Schema of job files.",
    "plugins": "List the plugins, or begin a new one.",
    "doctor": "Say what works on this machine, and what would mend the rest.",
    "runs": "List the runs, or show one.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import a command: one of the table, or one that a plugin brings."""
        if cmd_name not in COMMANDS:
            return plugin_command(cmd_name)
        command: click.Command = importlib.import_module(f"forge.cli.commands.{cmd_name.replace('-', '_')}").command
        command.short_help = COMMANDS[cmd_name]  # shells show it while they complete
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say the nearest command where there is none of that name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from forge.discovery.discover import discover  # only mistakes pay for these
            from forge.job.nearest import nearest

            brought = [command.name for plugin in discover().usable for command in plugin.commands]
            near = nearest(args[0], [*COMMANDS, *brought])
            if near and near not in error.message:  # newer versions of click say it themselves
                raise click.UsageError(f"{error.message} Did you mean '{near}'?", ctx) from None
            raise

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Say where further commands come from, without looking for them."""
        formatter.write_paragraph()
        formatter.write_text("Plugins bring more commands: `forge plugins` lists them.")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table without importing a command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def plugin_command(name: str) -> click.Command | None:
    """Return a command that an installed plugin brings, or None.

    Raises:
        PluginError: The plugin names something that is no command.
    """
    from forge.api.reference import load_object
    from forge.discovery.discover import discover

    if (found := discover().command(name)) is None:
        return None
    plugin, brought = found
    what = f"plugin {plugin.name} ({plugin.distribution} {plugin.version}) brings forge {name}, which cannot be used"
    try:
        command = load_object(brought.impl)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise PluginError(what, told_by(error), f"see `forge plugins {plugin.name}`") from error
    if not isinstance(command, click.Command):
        raise PluginError(what, f"{brought.impl} is no click command")
    return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="forge-train", message="%(version)s")
def cli() -> None:
    """Fine-tune language models from one job file.

    Begin with `forge init`, look with `forge plan` and `forge data`, train with `forge run`.
    """


def main() -> None:
    """Run the command; errors that forge knows print as one message, without a traceback."""
    gc.set_threshold(100_000)  # a command begins with objects by the hundred thousand, and next to none is garbage
    atexit.register(gc.disable)  # else the interpreter looks through all of them once more before it ends
    # pydantic looks for plugins of its own in every distribution, and stops at the first whose metadata is damaged.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with standard_streams():
        sys.exit(_exit_code())


def _exit_code() -> int:
    try:
        for argument in sys.argv[1:]:
            if fault := no_text(argument):
                what = f"{argument} cannot be used"
                raise UsageError(what, fault, "what forge writes is UTF-8; rename the file")
        code: Any = cli.main(standalone_mode=False)
    except ForgeError as error:
        if debugging():
            sys.excepthook(*sys.exc_info())
        if not isinstance(error, Interrupted):
            say("error: ", err=True, nl=False, fg="red", bold=True)
        say(error, err=True)
        _tell_programs(error)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        say("stopped", err=True)
        return 130
    except BrokenPipeError:  # `forge plan | head`
        return 1
    except Unwritable as error:
        say(f"error: nothing can be written to standard output: {error.strerror}", err=True)
        return 1
    except Exception as error:  # noqa: BLE001 - what nobody foresaw still deserves a sentence
        if debugging():
            sys.excepthook(*sys.exc_info())
        from forge.disk.faults import machine_error  # only a fault pays for it

        known: ForgeError | None = machine_error(error, Path.cwd(), wide=True)
        if known is None and isinstance(error, OSError) and error.filename is not None:  # a folder that is closed
            known = UsageError(f"{error.filename} cannot be used", error.strerror)
        if known is not None:
            say("error: ", err=True, nl=False, fg="red", bold=True)
            say(known, err=True)
            _tell_programs(known)
            return known.exit_code
        what = f"forge itself failed: {told_by(error)}"
        say(f"{what}; FORGE_DEBUG=1 shows the traceback, please report it", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _tell_programs(error: ForgeError) -> None:
    """Print an error as the last line of standard output too, as JSON, where the command was to print JSON."""
    if "--json" in sys.argv[1:]:
        import json  # only a fault pays for it

        with suppress(Unwritable, BrokenPipeError):  # it has been told on standard error
            say(json.dumps({"error": error.to_json()}, ensure_ascii=False, default=str))


def debugging() -> bool:
    """Whether the user asked for tracebacks: ``FORGE_DEBUG=1``."""
    return os.environ.get("FORGE_DEBUG", "") not in {"", "0"}

"""Sending a job to a target: what is checked, written down, and sent, in this order."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import forge
from forge.api.plan import Task
from forge.api.submitter import Bundle, Submitter, Ticket
from forge.discovery.describe import describe_model
from forge.disk.files import write_text
from forge.disk.folder import RunFolder
from forge.disk.portable import Portable
from forge.errors import ForgeError, JobError, MachineError, PluginError, Problem, UsageError, first_line
from forge.job.explain import problems_of
from forge.job.nearest import nearest
from forge.masking import masked
from forge.planning.absent import refuse_absent
from forge.planning.packages import packages_of
from forge.planning.planner import make_plan
from forge.text.units import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path
    from typing import TypeVar

    from forge.discovery.catalogue import Catalogue
    from forge.job.read import JobFile
    from forge.machine.machine import Machine

    T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sending:
    """A job that was written down and can be sent.

    Attributes:
        folder: The run.
        bundle: What is sent.
        shown: The file that says how it runs there.
        notes: What the target wants the user to know.
    """

    folder: RunFolder
    bundle: Bundle
    shown: Path
    notes: tuple[str, ...]


def submitter_of(catalogue: Catalogue, name: str, options: Mapping[str, Any], source: str) -> Submitter[Any]:
    """Return what sends jobs to a target, with options.

    Args:
        catalogue: The plugins.
        name: The target.
        options: Its options.
        source: Where they stand, for messages.

    Raises:
        UsageError: No plugin has such a target.
        JobError: An option is wrong.
        PluginError: The target cannot be used.
    """
    if (found := catalogue.target(name)) is None:
        known = sorted({target.name for plugin in catalogue.usable for target in plugin.targets})
        near = nearest(name, known)
        do = f"did you mean {near}?" if near else f"there is {', '.join(known)}" if known else "see `forge plugins`"
        raise UsageError(f"no plugin sends jobs to {name}", None, do)
    plugin, target = found
    what = f"{plugin} sends jobs to {name}, which cannot be used"
    kind = of_plugin(what, lambda: _class(target.impl, what))
    if problems := [*problems_of(kind.keys, options, f"submit.{name}"), *_logins(name, options)]:
        raise JobError(source, problems)
    made: Submitter[Any] = of_plugin(what, lambda: kind(kind.keys(**options)))
    return made


def _logins(target: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield the options that hold a login, which would be written into files and read by others."""
    for key, value in options.items():
        text = json.dumps(value, ensure_ascii=False)
        if masked(text) != text:
            do = "set a variable of the environment; the option secrets, where there is one, names it"
            yield Problem(f"submit.{target}.{key}", "it holds a login, and options are written down", do)


def _class(impl: str, what: str) -> type[Submitter[Any]]:
    from forge.api.reference import load_object

    kind = load_object(impl)
    if not isinstance(kind, type) or not issubclass(kind, Submitter):
        raise PluginError(what, f"{impl} is no forge.api.Submitter")
    return kind


def of_plugin(what: str, act: Callable[[], T]) -> T:
    """Do something of a plugin's. Raises :class:`PluginError` for whatever it raises that is not for the user."""
    try:
        return act()
    except (ForgeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(what, masked(f"{type(error).__name__}: {first_line(error)}")) from error


def prepare(
    file: JobFile,
    catalogue: Catalogue,
    machine: Machine,
    runs: Path,
    submitter: Submitter[Any],
    target: str,
    *,
    dry: bool = False,
) -> Sending:
    """Check that a job can be sent, and write what is sent into a fresh run folder.

    Args:
        file: The job.
        catalogue: The plugins.
        machine: The machine that it is planned for: nearest to what it will run on.
        runs: The folder of all runs.
        submitter: The target.
        target: Its name.
        dry: Whether it is only to be looked at: then what speaks against sending it is told among the notes.

    Raises:
        ForgeError: It cannot be sent. Nothing was written then.
    """
    facts = describe_model(catalogue, file.job.model.id, file.job.model.revision, file.job.folder)
    plan = make_plan(file, catalogue, machine, facts, task=Task.TRAIN)
    refuse_absent(file, plan, catalogue, elsewhere=submitter.shares_disk)
    adapter = plan.decided("adapter.from")
    portable = Portable(file, facts, RunFolder.name_of(file), carry=not submitter.shares_disk, adapter=adapter)
    if (large := portable.bytes()) > submitter.limit:
        raise UsageError(
            f"{size(large)} of local files would have to be sent to {target}, at most {size(submitter.limit)}",
            _largest(portable.files, file.job.folder),
            "push them to the hub and write their ids into the job",
        )
    packages = tuple(packages_of(plan, file.job, catalogue))
    folder = RunFolder.create(runs.resolve(), file)
    try:
        name = f"{folder.path.parent.name}/{folder.path.name}"
        bundle = Bundle(run=folder.path, name=name, job=file.job, packages=packages)
        unseen = (facts.note,) if facts.source == "unknown" and facts.note else ()
        notes = (*unseen, *_checked(bundle, submitter, target, dry=dry))
        bundle.folder.mkdir()
        write_text(bundle.folder / "job.toml", portable.text(forge.__version__))
        portable.copy(bundle.folder)
        shown = of_plugin(f"target {target}: its write failed", lambda: submitter.write(bundle))
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        with suppress(OSError):  # there are other runs of the job
            folder.path.parent.rmdir()
        raise
    return Sending(folder, bundle, shown, notes)


def _checked(bundle: Bundle, submitter: Submitter[Any], target: str, *, dry: bool) -> tuple[str, ...]:
    """Return what a target wants the user to know. Raises :class:`UsageError` for all that is wrong at once."""
    findings = of_plugin(f"target {target}: its check failed", lambda: list(submitter.check(bundle)))
    if (errors := [each for each in findings if each.severity == "error"]) and not dry:
        advice = "; ".join(each.do for each in errors if each.do)
        why = "; ".join(each.message for each in errors)
        raise UsageError(f"this job cannot be sent to {target}", why, advice or None)
    heads = {"error": "it would be refused: ", "warning": "", "note": ""}
    return tuple(f"{heads[each.severity]}{each.message}{f'; {each.do}' if each.do else ''}" for each in findings)


def send(sending: Sending, submitter: Submitter[Any], target: str, options: Mapping[str, Any]) -> Ticket:
    """Send what was written, and keep a ticket for it in the run folder; also where nobody knows whether it arrived.

    Raises:
        ForgeError: The target did not take it.
        MachineError: It gave no answer.
    """
    ticket = Ticket(target=target, options=dict(options), sent=round(time.time(), 3))
    sending.folder.write_ticket(ticket)  # a kill while it is sent leaves a word of it
    try:
        id_, address = of_plugin(f"target {target}: its submit failed", lambda: submitter.submit(sending.bundle))
    except MachineError as error:
        do = f"look there before you send it again; {sending.folder.path} is kept"
        raise MachineError(f"nobody knows whether {target} took the job: {error.what}", error.why, do) from error
    except ForgeError:
        (sending.folder.path / "ticket.json").unlink()
        raise
    ticket = Ticket(target=target, id=id_, options=dict(options), sent=ticket.sent, address=address)
    sending.folder.write_ticket(ticket)
    return ticket


def _largest(files: Mapping[str, Path], folder: Path) -> str:
    """Name the largest of files."""
    largest = sorted(((path.stat().st_size, path) for path in files.values()), reverse=True)
    names = [f"{path.relative_to(folder) if path.is_relative_to(folder) else path} ({size(n)})" for n, path in largest]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

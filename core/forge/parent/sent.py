"""Runs that were sent elsewhere: how they are doing, what they print, their end, and the way back of what they made."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from forge.api.submitter import Status, Submitter
from forge.disk.owner import hold
from forge.errors import RunError
from forge.parent.submit import of_plugin, submitter_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forge.discovery.catalogue import Catalogue
    from forge.disk.folder import RunFolder


class Sent:
    """A run that was sent elsewhere.

    Args:
        folder: Its folder here.
        catalogue: The plugins.

    Raises:
        RunError: It was not sent, or it never arrived.
        ForgeError: Its target is not there any more.
    """

    def __init__(self, folder: RunFolder, catalogue: Catalogue) -> None:
        ticket = folder.ticket()
        if ticket is None:
            raise RunError(f"{folder.path} was not sent anywhere", "it is a run of this machine")
        if not ticket.id:
            why = f"what sent it to {ticket.target} ended before it had an answer"
            raise RunError(f"nobody knows whether {folder.path} arrived", why, "look there, and submit the job again")
        self.folder, self.ticket = folder, ticket
        source = str(folder.path / "ticket.json")
        self.submitter: Submitter[Any] = submitter_of(catalogue, ticket.target, ticket.options, source)

    def status(self) -> Status:
        """Ask how it is doing, and write the answer down; of what has ended, nobody is asked again."""
        if not self.ticket.status.over:
            status = self._do("status", lambda: self.submitter.status(self.ticket, self.folder.path))
            if status != self.ticket.status:
                self.ticket = replace(self.ticket, status=status)
                self.folder.write_ticket(self.ticket)
        return self.ticket.status

    def logs(self, *, follow: bool) -> Iterator[str]:
        """Yield what it printed, line by line; with ``follow`` until it has ended."""
        lines = self._do("logs", lambda: iter(self.submitter.logs(self.ticket, self.folder.path, follow=follow)))
        while (line := self._do("logs", lambda: next(lines, None))) is not None:
            yield line

    def cancel(self) -> Status:
        """End it. Raises :class:`RunError` if it has ended."""
        if (status := self.status()).over:
            raise RunError(f"{self.folder.path} has ended already", status.about or status.state)
        self._do("cancel", lambda: self.submitter.cancel(self.ticket, self.folder.path))
        return self.status()

    def fetch(self) -> None:
        """Bring what it has made into the folder here."""
        if self.submitter.shares_disk:
            return
        with hold(self.folder.path / ".lock"):
            self._do("fetch", lambda: self.submitter.fetch(self.ticket, self.folder.path))

    def _do(self, name: str, act: Any) -> Any:
        return of_plugin(f"target {self.ticket.target}: its {name} failed", act)

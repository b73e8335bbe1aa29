"""Places where jobs are sent: a cluster's queue, a cloud. Plugins bring them by ``forge_targets``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """A place where jobs can be sent: ``forge submit JOB --to <name>``.

    Attributes:
        name: Lower-case letters, digits and dashes. A target of forge's own wins.
        help: What it is, in one line.
        impl: ``"package.module:Class"`` of a :class:`~forge.api.Submitter`, imported when a job is sent there, and not
            before.

    Example:
        >>> Target("pbs", "A queue of PBS.", "forge_pbs.submitter:Pbs").name
        'pbs'
    """

    name: str
    help: str
    impl: str

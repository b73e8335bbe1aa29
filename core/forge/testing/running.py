"""A whole run for a test: planned, trained, evaluated and exported as ``forge run`` does it, in a second or two."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tomli
import tomli_w

from forge.api.code import forget_code
from forge.api.plan import Task
from forge.discovery.catalogue import OWN, Plugin
from forge.disk.folder import RunFolder
from forge.errors import RunError
from forge.machine.probe import probe
from forge.parent.run import run
from forge.planning.opening import open_job
from forge.testing import light
from forge.testing.tiny import make_model, make_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from forge.api.event import Event
    from forge.api.plan import Plan
    from forge.api.results import Trained


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that has ended.

    Attributes:
        folder: The run folder.
        events: What happened in all its workers, in order.
    """

    folder: Path
    events: Sequence[Event] = field(repr=False)

    @property
    def plan(self) -> Plan:
        """The plan of the training."""
        return RunFolder(self.folder).plan()

    @property
    def trained(self) -> Trained:
        """What training left. Raises :class:`forge.api.RunError` if it was not trained."""
        return RunFolder(self.folder).weights_or_refuse()

    @property
    def exports(self) -> list[Path]:
        """The folders of the exports."""
        with suppress(RunError):
            return [path for path, _ in RunFolder(self.folder).exports()]
        return []

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """What the evaluation found."""
        return RunFolder(self.folder).evaluation()

    @property
    def log(self) -> str:
        """What the workers printed."""
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")

    def of_kind(self, kind: str) -> list[Event]:
        """Return the events of one kind."""
        return [event for event in self.events if event.kind == kind]


def run_job(toml: str, folder: Path, *, dry_run: bool = False, whole: bool = False) -> Ran:
    """Run a job in a folder.

    The model and the rows that it does not name are made there: a tiny Llama in ``model`` and conversations in
    ``rows.jsonl``. Of the stages, those that the job asks of the plugin under test are that plugin's: by a word of its
    own, by ``[use]``, or because the plugin's stages do not fit the light ones. All others are light: they read JSON
    Lines, and of ``[train]`` they know ``max_steps``, ``save_steps`` and ``learning_rate``.

    Args:
        toml: The job's text; the empty text is a job.
        folder: Where to run it; a test's ``tmp_path``.
        dry_run: Whether to try it and not to train.
        whole: Whether to use no light stages at all, as for a method that TRL's trainer carries out.

    Returns:
        The run.

    Raises:
        ForgeError: As ``forge run`` would show it: the job has mistakes, or a stage failed.
    """
    tables = tomli.loads(toml)
    if "id" not in tables.setdefault("model", {}):
        tables["model"]["id"] = "model"
        make_model(folder / "model")
    if not {"path", "sources"} & tables.setdefault("data", {}).keys():
        tables["data"]["path"] = "rows.jsonl"
        make_rows(folder / "rows.jsonl")
    path = folder / "job.toml"
    path.write_text(tomli_w.dumps(tables), encoding="utf-8")
    machine = probe()
    events: list[Event] = []
    stand_in = Plugin(name="light", distribution=OWN, version="0", offers=tuple(light.offers()))
    try:
        file, catalogue = open_job(path, machine, beside=[] if whole else [stand_in])
        task = Task.DRY_RUN if dry_run else Task.TRAIN
        done = run(file, catalogue, machine, folder / "runs", events.append, task=task)
    finally:
        forget_code()  # the next test's plugin may have the same name
    return Ran(done.path, events)

"""The job: what the user asked for, checked and typed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from forge.errors import RunError, UsageError, first_line
from forge.job.adapter import OF_LAYERS, AdapterTable
from forge.job.data import DataTable, Source
from forge.job.table import Table
from forge.job.tables import (
    EvalTable,
    ExportTable,
    GenerationTable,
    LaunchTable,
    ModelTable,
    TrainTable,
    UseTable,
)


class Job(Table):
    """A whole job.

    Attributes:
        folder: Where relative paths of the job start: the folder of the job file.
    """

    name: str | None = Field(
        None,
        pattern=r"^[\w][\w.-]*$",
        max_length=100,
        description="Name of the runs' folder; the file's name if it is missing.",
    )
    model: ModelTable
    adapter: AdapterTable = Field(default_factory=AdapterTable)
    data: DataTable
    train: TrainTable = Field(default_factory=TrainTable)
    eval: EvalTable | None = None
    generation: GenerationTable = Field(default_factory=GenerationTable)
    launch: LaunchTable = Field(default_factory=LaunchTable)
    export: list[ExportTable] = Field(default_factory=list)
    use: UseTable = Field(default_factory=UseTable)
    plugins: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Tables that plugins own: `[plugins.<name>]`."
    )
    folder: Path = Field(default=Path(), exclude=True)

    def path(self, text: str) -> Path:
        """Resolve a path of the job file: relative ones start at the job's folder.

        Raises:
            UsageError: It starts with ``~`` and there is no such home folder.
        """
        try:
            return self.folder / Path(text).expanduser()
        except RuntimeError as error:
            raise UsageError(f"{text} cannot be found", first_line(error), "write the whole path") from None

    def tables(self) -> dict[str, Any]:
        """Return the job as the tables of a job file, as JSON data, every value written out."""
        tables: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        if self.adapter.type == "layers":  # the other keys would contradict it, as under "none"
            chosen = {key: tables["adapter"][key] for key in sorted(OF_LAYERS)}
            tables["adapter"] = {**chosen, **self.adapter.options}
        elif self.adapter.type == "none":
            tables["adapter"] = {"type": "none", **self.adapter.options, **self.adapter.parts}
        if self.data.sources:  # each has its own
            for key in Source.model_fields:
                del tables["data"][key]
        else:
            del tables["data"]["sources"]
        return tables

    def to_toml(self) -> dict[str, Any]:
        """Return the job as the tables of a job file, every value written out, no ``None`` and no empty table."""
        pruned: dict[str, Any] = _without_none(self.tables())
        return {key: value for key, value in pruned.items() if value not in ({}, [])}

    def digest(self) -> str:
        """Return a sha256 over what decides what is trained."""
        return hashlib.sha256(json.dumps(self.meaning(), sort_keys=True).encode()).hexdigest()

    def meaning(self) -> dict[str, Any]:
        """Return the tables that decide what is trained: not the job's name, nor where, nor what comes after."""
        after = {"name", "eval", "generation", "launch", "export", "use"}
        return {key: value for key, value in self.to_toml().items() if key not in after}


def load_job(data: Mapping[str, Any]) -> Job:
    """Rebuild a job from :func:`dump_job`'s data; it was checked when it was read.

    Raises:
        RunError: It is no such data: the plan that held it was damaged, or is of another forge.
    """
    try:
        return Job.model_validate({**data, "folder": Path(data["folder"])}, strict=False, context={"checked": True})
    except (ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        raise RunError("the job in the run's plan.json is damaged", why, "restore the plan") from error


def dump_job(job: Job) -> dict[str, Any]:
    """Return the job as JSON data, with the folder that relative paths start at."""
    return {**job.tables(), "folder": str(job.folder)}


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value

"""The lock of a job: ``job.lock.toml``, a job that can be run elsewhere, with every value and every revision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import forge

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from forge.api.plan import Plan
    from forge.job.job import Job


def lock_text(
    job: Job, plan: Plan, name: str, data_digest: str | None = None, code: Mapping[str, Path] | None = None
) -> str:
    """Return the text of a lock.

    Args:
        job: The job, with the plan's decisions in place of what it left open.
        plan: The plan, which knows the base model's folder or revision.
        name: The run's name, for a job that has none.
        data_digest: The digest of the rows, once they have been read.
        code: The run's copies of the plugins that are files beside the job.
    """
    import tomli_w  # only who begins a run writes one

    tables = job.to_toml()
    tables["name"] = tables.get("name") or name
    tables["launch"] = plan.asked().launch.model_dump(mode="json")  # another machine has another number of GPUs
    if plan.facts.source == "folder" and plan.facts.path:
        tables["model"]["id"] = plan.facts.path
    elif plan.facts.revision:
        tables["model"]["revision"] = plan.facts.revision
    if strangers := [step.plugin for step in plan.steps if step.distribution != forge.DISTRIBUTION]:
        known = tables.setdefault("use", {}).get("prefer", [])
        tables["use"]["prefer"] = list(dict.fromkeys([*known, *strangers]))  # its keys are theirs
    use, own = tables.setdefault("use", {}), f"{forge.DISTRIBUTION} "
    versions = {name: said for name, said in plan.versions().items() if not said.startswith(own)}
    versions |= {name: f"sha256:{digest}" for name, digest in plan.code.items()}
    if versions:
        use["versions"] = versions
    else:
        use.pop("versions", None)  # of a lock that was run where other plugins served
    if code:
        use["plugins"] = [str(path) for path in code.values()]
    if not use:
        del tables["use"]
    data, asked = tables["data"], tables.get("eval", {})
    for table in (data, *data.get("sources", []), asked, *tables.get("plugins", {}).values()):
        for key in ("path", "eval_path", "chat_template", "include_path"):
            if key in table:
                table[key] = _absolute(job, table[key])
    if isinstance(data.get("tools"), str):
        data["tools"] = _absolute(job, data["tools"])
    for key in ("adapter", "train", "eval", "export", "plugins"):
        if key in tables:
            tables[key] = _with_absolute_functions(job, tables[key])
    if data_digest:
        data["digest"] = data_digest
    head = f"# Written by forge {plan.forge}: the job of this run with every value. `forge run` takes it.\n\n"
    return head + tomli_w.dumps(tables)


def _absolute(job: Job, value: str | list[str]) -> str | list[str]:
    """Make the local paths among a job's values independent of where the job file lies."""
    if isinstance(value, list):
        return [str(_absolute(job, item)) for item in value]
    path = job.path(value)
    return str(path.resolve()) if path.exists() or any(sign in value for sign in "*?[") else value


def _with_absolute_functions(job: Job, value: Any) -> Any:
    """Make each ``./file.py:function`` among values, of whichever plugin, independent of where the job file lies."""
    if isinstance(value, dict):
        return {key: _with_absolute_functions(job, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_absolute_functions(job, item) for item in value]
    if not isinstance(value, str):
        return value
    file, colon, function = value.rpartition(":")
    return f"{_absolute(job, file)}:{function}" if colon and file.endswith(".py") else value

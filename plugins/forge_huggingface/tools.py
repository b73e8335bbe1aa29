"""The tools that ``[data]`` gives to conversations, and what a job may hand to a chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.api import DataError

if TYPE_CHECKING:
    from forge.api import Job


OWN = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "conversations",
        "max_length",
        "messages",
        "padding",
        "raise_exception",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "strftime_now",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)
"""Names that forge and transformers pass to a template, or to what renders it, themselves."""


FORM = '{"type": "function", "function": {"name": …, "description": …, "parameters": …}}'
"""How a tool is written."""


def wrong_tool(tool: Any) -> str | None:
    """Return what is wrong with a tool as a phrase, or None."""
    if not isinstance(tool, Mapping):
        return f"that is not an object but a {type(tool).__name__}"
    inner = tool.get("function", tool)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return None if isinstance(name, str) and name else "without a name"


def wrapped(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool as templates want it: what stands alone is put under ``function``."""
    if "function" in tool:
        return tool
    return {"type": "function", "function": {key: kept for key, kept in tool.items() if key != "type"}}


def tools_of(job: Job) -> tuple[Mapping[str, Any], ...] | None:
    """Return the tools of ``[data]``, or None.

    Raises:
        DataError: The file is missing or damaged, or what it holds are no tools.
    """
    given: Any = job.data.tools
    if given is None:
        return None
    where = "[data] tools"
    if isinstance(given, str):
        path = job.path(given)
        where = f"{where} = {given}"
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            why = f"there is no {path.resolve()}"
            raise DataError(f"{where} was not found", why, "mend the path, which starts at the job's folder") from None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{where} cannot be read", str(error), "name a JSON file") from error
        except ValueError as error:
            raise DataError(f"{where} is not JSON", str(error), "write a list of tools into it") from error
    do = f"write a list, each as {FORM}"
    if not isinstance(given, list):
        raise DataError(f"{where} is not a list", f"it is a {type(given).__name__}", do)
    if not given:
        raise DataError(f"{where} is empty", "an empty list gives no tools", "remove it, or list some")
    for number, tool in enumerate(given, 1):
        if (wrong := wrong_tool(tool)) is not None:
            raise DataError(f"{where} has an entry {wrong}", f"entry {number} is {json.dumps(tool)[:80]}", do)
    return tuple(wrapped(tool) for tool in given)

"""The tools that ``[data]`` gives to conversations, and what a job may hand to a chat template."""

from __future__ import annotations

import json
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


def tools_of(job: Job) -> tuple[dict[str, Any], ...] | None:
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
    do = 'write a list, each as {"type": "function", "function": {"name": …, "description": …, "parameters": …}}'
    if not isinstance(given, list):
        raise DataError(f"{where} is not a list", f"it is a {type(given).__name__}", do)
    if not given:
        raise DataError(f"{where} is empty", "an empty list gives no tools", "remove it, or list some")
    for number, tool in enumerate(given, 1):
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        name = inner.get("name") if isinstance(inner, dict) else None
        if not isinstance(name, str) or not name:
            raise DataError(f"{where} has an entry without a name", f"entry {number} is {json.dumps(tool)[:80]}", do)
    return tuple(given)

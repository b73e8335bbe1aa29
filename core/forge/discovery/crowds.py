"""Asking many plugins of others the same at once: one that takes long keeps no other waiting."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from forge.discovery.guard import NoAnswer
from forge.discovery.strangers import Strangers
from forge.errors import ForgeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from forge.discovery.installed import Found

AT_ONCE = 4
"""How many are asked at a time: each has a process, and more of them than processors help where plugins hang."""


def ask_each(
    plugins: Sequence[Found], what: str, question: Mapping[str, Any]
) -> list[dict[str, Any] | NoAnswer | ForgeError]:
    """Ask plugins and return the answer of each, or why there is none. Arguments are as of :meth:`Strangers.ask`."""
    processes = [Strangers() for _ in plugins[:AT_ONCE]]
    free: SimpleQueue[Strangers] = SimpleQueue()
    for process in processes:
        free.put(process)

    def answer(found: Found) -> dict[str, Any] | NoAnswer | ForgeError:
        process = free.get()
        try:
            return process.ask(found, what, question)
        except (NoAnswer, ForgeError) as error:
            return error
        finally:
            free.put(process)

    pool = ThreadPoolExecutor(len(processes))
    try:
        return list(pool.map(answer, plugins))
    finally:  # also where somebody does not wait for them
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.close()

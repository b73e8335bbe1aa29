"""The processes that train together, as a stage sees them: what they tell each other, and where they wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from forge.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Group:
    """The processes that train together. Of one, each question is answered by itself: no stage need ask how many.

    All of them must call the same methods in the same order, or they wait for each other until ``[launch] timeout``
    ends it. A process that is gone makes the others fail with :class:`forge.api.PeerLost`.

    Attributes:
        rank: The number of this process, from 0.
        size: How many there are.

    Example:
        >>> group = Group()
        >>> group.rank, group.size, group.agree(False), group.gather("rows"), group.first("plan")
        (0, 1, False, ['rows'], 'plan')
    """

    rank: int = 0
    size: int = 1

    def barrier(self) -> None:
        """Return when all have called it."""

    def gather(self, value: T) -> list[T]:
        """Return the values of all, by rank; each must be one that pickle takes."""
        return [value]

    def agree(self, wish: bool) -> bool:
        """Return whether any of them wishes it."""
        return wish

    def agree_soon(self, what: str, wish: bool) -> bool:
        """Return whether any of them wished it when they were asked before; for each step.

        None waits for a word of this step: one may be a step ahead of the slowest. Where calls take ten seconds and
        more the answer is of this one, from the second such call on.

        Args:
            what: Which question this is; each has its own answers.
            wish: What this process wishes.
        """
        del what
        return self.agree(wish)

    def same(self, what: str, value: Any, say: Callable[[Any], str] = str) -> None:
        """Raise :class:`forge.api.RunError` where processes differ in what must be the same in all.

        Args:
            what: What that is, in the plural, as in ``"rows"``.
            value: What this process has.
            say: Says of a value what it is.
        """
        every = self.gather(value)
        if other := next((rank for rank, each in enumerate(every) if each != every[0]), None):
            why = f"process 0 has {say(every[0])}, and process {other} has {say(every[other])}"
            raise RunError(f"the processes do not have the same {what}", why, "give all the same files and versions")

    def first(self, value: T) -> T:
        """Return the value of rank 0, which may take as long as it needs: no timeout ends this wait."""
        return value

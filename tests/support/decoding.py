"""A decoder as on a GPU, for a CPU."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from forge_huggingface.model.decoding import Decoder, generating, inside

if TYPE_CHECKING:
    from collections.abc import Iterator


class Fixed(Decoder):
    """Generates as on a GPU, with a cache of fixed size, but records nothing."""

    def __init__(self) -> None:
        super().__init__(print)
        self.steps = 0

    @contextlib.contextmanager
    def around(self, model: Any) -> Iterator[None]:
        """Count the tokens that the step makes."""

        def step(forward: Any) -> Any:
            def counted(**inputs: Any) -> Any:
                self.steps += 1
                return forward(**inputs)

            return counted

        with generating(inside(model), step, print):
            yield

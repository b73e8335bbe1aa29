"""A model that answers: how it is asked, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from forge.api.plan import Who

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from collections.abc import Generator as Stream
    from contextlib import AbstractContextManager


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is generated. The defaults are greedy: the most probable token each time, and nothing penalised.

    Attributes:
        max_new_tokens: The longest answer.
        temperature: 0 takes the most probable token each time; above, tokens are drawn.
        top_p: Draw among the most probable tokens that together have this probability; 1 is all.
        top_k: Draw among this many tokens; 0 is all.
        min_p: Draw among tokens with at least this share of the best one's probability.
        repetition_penalty: Divides the score of what is there already, prompt included; 1 is none (arXiv 1909.05858).
        presence_penalty: Is taken from the score of what the answer holds already; 0 is none.
        seed: For repeatable draws; None draws anew each time.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is to go on from.

    Attributes:
        text: The text, special tokens written out, the first one of a text included; nothing is to be added.
        images: The images, in the order of their places in the text. They may be opened when they are looked at.
    """

    text: str
    images: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said.

    Attributes:
        text: The text, without special tokens.
        tokens: Their number.
        finished: Whether it ended by itself, not by ``max_new_tokens``.
    """

    text: str
    tokens: int
    finished: bool


class Generator(Protocol):
    """Trained weights, a base model or a file, ready to answer.

    Attributes:
        sampling: How it is meant to answer: the job's word, its model's, its family's, in this order.
        advice: Where those values come from, as a phrase.
    """

    sampling: Sampling
    advice: str

    def chat(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Stream[str, None, Answer]:
        """Yield the answer to a conversation as it comes, and return the :class:`Answer`; closing it stops the model.

        Raises:
            UsageError: The messages cannot be rendered by the chat template.
        """
        ...

    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, count: int = 1, batch_size: int | None = None
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Yield the index of a prompt and ``count`` answers to it, in whatever order serves the model best.

        ``batch_size`` is how many prompts are answered at a time; None leaves it to the generator.
        """
        ...

    def losses(
        self, rows: Sequence[Mapping[str, Any]], *, batch_size: int | None = None
    ) -> list[tuple[float, int]] | None:
        """Return for each row (layouts ``tokens`` and ``images``) the sum of its loss and its tokens in the loss.

        The sum is that of negative log-likelihoods, in nats. None if this generator cannot say it.
        """
        ...

    def base(self) -> Generator | None:
        """Return the base model, where the same weights in memory serve it, or None."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


@runtime_checkable
class Lender(Protocol):
    """A :class:`Generator` that holds a model of transformers, and lends it to what asks in another way."""

    def lent(self) -> AbstractContextManager[tuple[Any, Any]]:
        """Lend the model as it answers, with its adapter or without, and its tokenizer.

        The model has the settings of its own ``generation_config.json``, as one has that transformers has loaded.
        """
        ...


def ask_each(
    models: Sequence[Who], generate: Callable[[Who], Generator], ask: Callable[[Who, Generator], None]
) -> None:
    """Ask every model of a plan once, one after the other, and free each before the next is loaded.

    The trained one comes first: where its weights without the adapter are the base, they are loaded once for both.

    Args:
        models: Which ones, as :attr:`Answers.models <forge.api.Answers.models>` says.
        generate: Loads one.
        ask: Asks one.
    """
    left = list(models)
    if Who.TUNED in left:
        tuned = generate(Who.TUNED)
        try:
            if Who.BASE in left and (base := tuned.base()) is not None:
                left.remove(Who.BASE)
                ask(Who.BASE, base)
                del base  # it holds the weights too
            left.remove(Who.TUNED)
            ask(Who.TUNED, tuned)
        finally:
            tuned.close()
    for who in left:
        other = generate(who)
        try:
            ask(who, other)
        finally:
            other.close()

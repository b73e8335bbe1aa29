"""The keys that ``[train]`` has under ``embedding`` and ``reranker``: transformers' arguments, and the losses' own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from forge.api import Mistake
from forge_huggingface.arguments.fields import table
from forge_huggingface.arguments.options import Arguments, build
from forge_sentence_transformers.shapes import EMBEDDING, LOSSES, RERANKER

if TYPE_CHECKING:
    from pydantic import BaseModel

Pooling = Literal["auto", "mean", "cls", "lasttoken", "max", "weightedmean"]

OPEN = "auto"

UNREAD = frozenset(
    {
        "data_seed",
        "include_num_input_tokens_seen",
        "label_smoothing_factor",
        "liger_kernel_config",
        "neftune_noise_alpha",
        "train_sampling_strategy",
        "use_liger_kernel",
    }
)
"""Arguments of transformers' trainer that those of sentence-transformers pass over: batches and losses are theirs."""


class TextArguments(Arguments):
    """What both methods take beside transformers' arguments."""

    method: ClassVar[str] = EMBEDDING

    kernels: Literal["none"] = Field("none", description="`none`: forge's kernels are for language models.")
    per_device_train_batch_size: Annotated[int, Field(ge=1)] = Field(
        32, description="Rows of a batch. Losses that take the other rows of a batch for negatives learn more of more."
    )
    gradient_checkpointing: bool = Field(False, description="Compute layers again in the backward pass to save memory.")
    loss: str = Field(OPEN, description="The loss, by sentence-transformers' name; `auto` goes by what the rows have.")
    scale: float | None = Field(None, gt=0, description="By what similarities are multiplied, in losses that rank.")
    mini_batch_size: int | None = Field(
        None, ge=1, description="Rows at a time in a loss that is called `Cached…`, whose batches may be huge."
    )
    batch_sampler: Literal["auto", "batch_sampler", "no_duplicates"] = Field(
        "auto",
        description="`no_duplicates` puts no text into a batch twice; `auto` takes it for losses that need it.",
    )

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys contradict each other in."""
        yield from super().contradictions()
        known = LOSSES[self.method]
        if self.loss != OPEN and self.loss not in known:
            others = next((name for name, losses in LOSSES.items() if name != self.method and self.loss in losses), "")
            what = f'there is no loss "{self.loss}" for method = "{self.method}"'
            rest = f'it is one of method = "{others}"; ' if others else ""
            yield Mistake(f"{what}; {rest}there are {', '.join(known)}", ("loss",))
        for key in ("scale", "mini_batch_size", "margin"):
            value = getattr(self, key, None)
            if value is None or (self.loss in known and key in known[self.loss].takes):
                continue
            takers = [name for name, loss in known.items() if key in loss.takes]
            if self.loss != OPEN or key != "scale":  # rows may yet decide for a loss with it
                by = f'loss = "{self.loss}"'
                yield Mistake(f"{key} has no effect: {by} does not read it; take {' or '.join(takers)}", (key,))
        for key in sorted(UNREAD & self.model_fields_set):
            if getattr(self, key) != type(self).model_fields[key].default:
                yield Mistake(f"{key} has no effect: sentence-transformers' trainers do not read it; remove it", (key,))
        if self.batch_size is not None:
            what = "batch_size would be parted by memory, and these losses compare the rows of a batch with each other"
            yield Mistake(f"{what}; write per_device_train_batch_size", ("batch_size",))
        yield from self.prompted()

    def prompted(self) -> Iterator[Mistake]:
        """Yield prompts of columns that no row has."""
        return iter(())


class EmbeddingArguments(TextArguments):
    """What an embedding model is trained with."""

    margin: float | None = Field(None, gt=0, description="The margin of TripletLoss and the contrastive losses.")
    matryoshka_dims: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="Train embeddings that may be cut to these lengths (MatryoshkaLoss), the whole one among them."
    )
    matryoshka_weights: list[Annotated[float, Field(ge=0)]] = Field([], description="How much each of them counts.")
    prompts: dict[str, str] = Field(
        {}, description='Texts to put before those of a column: `{ anchor = "query: ", positive = "passage: " }`.'
    )
    pooling_mode: Pooling = Field(
        "auto",
        description="How tokens become one vector, for a model that does not say it: `auto` takes `lasttoken` for one "
        "that writes, else `mean`.",
    )

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys contradict each other in."""
        yield from super().contradictions()
        dims, weights = self.matryoshka_dims, self.matryoshka_weights
        if weights and len(weights) != len(dims):
            what = f"matryoshka_weights has {len(weights)} values for {len(dims)} matryoshka_dims; give each one"
            yield Mistake(what, ("matryoshka_weights", "matryoshka_dims"))
        if len(set(dims)) != len(dims):
            yield Mistake("matryoshka_dims names a length twice; name each once", ("matryoshka_dims",))

    def prompted(self) -> Iterator[Mistake]:
        """Yield prompts of columns that no row has."""
        for column in self.prompts:
            if column not in {"anchor", "positive", "negative"}:
                yield Mistake(f"prompts.{column} is for no column; there are anchor, positive, negative", ("prompts",))


class RerankerArguments(TextArguments):
    """What a reranker is trained with."""

    method: ClassVar[str] = RERANKER


_MODELS: dict[str, type[TextArguments]] = {EMBEDDING: EmbeddingArguments, RERANKER: RerankerArguments}
_BUILT: dict[str, type[BaseModel]] = {}


def keys(method: str) -> type[BaseModel]:
    """Return the model of the keys of a method: transformers' arguments, and those of its losses."""
    if method not in _BUILT:
        theirs = frozenset(table("SFTConfig").keys() - table("TrainingArguments").keys())
        model: Any = build("SFTConfig", _MODELS[method], without=theirs)
        model.method = method
        _BUILT[method] = model
    return _BUILT[method]

"""The shape of a model: the numbers that its memory is counted with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Linear:
    """Linear layers of one name and one size.

    Attributes:
        name: The module's last name: ``"q_proj"``.
        inputs: The width that it takes.
        outputs: The width that it gives.
        count: How many of them the model has.
        part: ``"language"``, ``"vision"`` for what sees, ``"joint"`` for what leads from one to the other,
            ``"experts"`` for those of a mixture, which transformers keeps in one three-dimensional parameter for all
            of a block: gate and up together as ``"gate_up_proj"``, and ``"down_proj"``.
    """

    name: str
    inputs: int
    outputs: int
    count: int
    part: str = "language"

    @property
    def parameters(self) -> int:
        """The weights of all of them."""
        return self.inputs * self.outputs * self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The numbers that decide a model's memory. Those of a vision model are its language model's.

    Attributes:
        layers: Repeated blocks.
        hidden: Width of the stream between them.
        intermediate: Inner width of a block's feed-forward part; of a mixture, of all the experts that a token sees.
        heads: Attention heads.
        kv_heads: Heads of keys and values.
        head_dim: Width of a head.
        vocab: Rows of the embedding.
        tied: Whether the output layer is the embedding.
        gated: Whether the feed-forward part has a gate (SwiGLU, GeGLU).
        norms: Norms of the whole stream in a block.
        head_norms: Whether queries and keys are normed, each head.
        linears: The linear layers inside the repeated blocks.
        embedding: Parameters of embeddings and output layer, each counted once if they are tied.
        rest: All other parameters: norms, biases, convolutions.
        exact: Whether the files' headers tell ``linears``, ``embedding`` and ``rest``; else the config does, as if the
            model were built as Llama is.
        mixture: Whether the config speaks of experts at all; None in records that do not know.
        experts: Experts of a block among which its router chooses; 0 if there are none.
        experts_per_token: How many of them a token sees.
        router_aux_loss_coef: Weight of the loss that keeps experts evenly used, if the config says it.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    gated: bool
    norms: int
    head_norms: bool
    linears: tuple[Linear, ...]
    embedding: int
    rest: int
    exact: bool
    mixture: bool | None = None
    experts: int = 0
    experts_per_token: int = 0
    router_aux_loss_coef: float | None = None

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(linear.parameters for linear in self.linears) + self.embedding + self.rest

    @property
    def query(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.kv_heads * self.head_dim

"""What is known about a model while planning: its kind, size and state, as a record.

Which backend fits depends on the model, and no plugin may load one to find out. So a plugin describes it once, from
files alone, and every offer's probe sees the same :class:`ModelFacts`. What cannot be known says so in ``note``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from forge import records
from forge.model.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Mapping


ModelTask = Literal["text", "vision", "seq2seq", "other", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What is known about a model before anything is imported.

    Attributes:
        id: The job's ``[model] id``.
        source: Where the facts come from: a local folder, the download cache, the hub, or nowhere.
        path: The folder with the model's files, if all its weights are on this machine.
        revision: The commit on the hub.
        architectures: Names of transformers' classes, from the config.
        model_type: transformers' name of the family: ``"llama"``.
        task: What it is for; ``"vision"`` takes images and text.
        parameters: The number of parameters.
        weight_bytes: The size of the weight files.
        dtype: The type of most weights, by torch's name.
        quantized: The method by which the stored weights are quantised: ``"bitsandbytes"``, ``"gptq"``, ``"fp8"``.
        stored_bits: Bits that a weight of a quantised layer takes as it is stored, with its share of scales.
        context: The longest row in tokens that the model was made for.
        chat_template: Whether it comes with one.
        digest: sha256 over the config and the weight files' names, sizes and headers.
        shape: The numbers that memory is counted with.
        note: Why something is unknown.
    """

    id: str
    source: Literal["folder", "cache", "hub", "unknown"]
    path: str | None = None
    revision: str | None = None
    architectures: tuple[str, ...] = ()
    model_type: str | None = None
    task: ModelTask = "unknown"
    parameters: int | None = None
    weight_bytes: int | None = None
    dtype: str | None = None
    quantized: str | None = None
    stored_bits: float | None = None
    context: int | None = None
    chat_template: bool | None = None
    digest: str | None = None
    shape: Shape | None = None
    note: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON data."""
        data: dict[str, Any] = records.to_json(self)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFacts:
        """Rebuild facts from :meth:`to_json`'s data. Raises :class:`ValueError` if they are none."""
        return records.from_json(cls, data)

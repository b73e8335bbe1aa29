"""The trained model in transformers: what a file's answers are compared with.

It is the base with the adapter beside it, not a merged copy: so a mistake in merging is seen too. It computes on the
CPU in 32 bit where that fits into memory.
"""

from __future__ import annotations

import copy
import gc
import os
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from forge_huggingface.model.load import model_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray


class Reference:
    """A model in transformers.

    Args:
        base: The folder with the (base) model.
        adapter: The folder with the adapter, if there is one.
        layers: Take only so many of its layers; None for all.
        wide: Compute in 32 bit, not in 16.
        task: The model's task, as in ``ModelFacts``.
    """

    def __init__(
        self, base: Path, adapter: Path | None, *, layers: int | None = None, wide: bool = True, task: str = "text"
    ) -> None:
        import torch
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(base, local_files_only=True)
        if layers is not None:
            config = cut(config, layers)
        dtype = torch.float32 if wide else torch.bfloat16
        with _quiet():
            model = model_class(task).from_pretrained(
                base, config=config, dtype=dtype, use_safetensors=True, local_files_only=True
            )
            if adapter is not None:
                from peft import PeftModel

                model = PeftModel.from_pretrained(model, adapter)
        self._model: Any = model.eval()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._model = None
        gc.collect()

    def chances(self, ids: Sequence[int]) -> NDArray[Any]:
        """Return the natural logarithms of all next tokens' probabilities, shape (len(ids), vocabulary), float32."""
        import torch

        with torch.inference_mode():
            logits = self._model(input_ids=torch.tensor([list(ids)])).logits[0].float()
            return logits.log_softmax(-1).numpy()


def cut(config: Any, layers: int) -> Any:
    """Return a config with the first layers only."""
    config = copy.deepcopy(config)
    config.num_hidden_layers = min(layers, config.num_hidden_layers)
    for name in ("layer_types", "no_rope_layers"):
        if getattr(config, name, None):
            setattr(config, name, list(getattr(config, name))[:layers])
    return config


def fits(weights: int, *, wide: bool) -> bool:
    """Whether a model of so many weights fits into the memory that is free now, with a fifth to spare."""
    return weights * (4 if wide else 2) * 1.2 < free_memory()


def free_memory() -> int:
    """Return the bytes of memory that are free, as the system estimates them."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - not a path of the user's
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass  # not Linux
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30  # Windows tells it only through an API; half of a common machine's


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep quiet about weights of layers that were left out on purpose."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)

"""The keys that a job may set of a config of TRL, by the config's name.

So an offer of another plugin can name them: ``options="forge_huggingface.arguments.models:SFTConfig"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge_huggingface.arguments.options import train_options
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from pydantic import BaseModel


def __getattr__(name: str) -> type[BaseModel]:
    method = next((each.name for each in METHODS.values() if each.config == name), None)
    if method is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return train_options(method)

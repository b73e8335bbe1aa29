"""The keys that `[[export]]` has for this format."""

from typing import Literal

from forge.api import Table
from pydantic import Field


class Options(Table):
    """What a job may say of the bundle."""

    file: str = Field("bundle", pattern=r"^[A-Za-z0-9][\w.-]*$", description="Name of the archive, without .tar.")
    compression: Literal["none", "xz"] = Field("none", description="Weights hardly become smaller by it.")
    licence: str | None = Field(None, description="SPDX name of the licence. The base model's if it is left out.")

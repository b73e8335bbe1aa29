"""The versions that an install asks for are those that the plugins ask for: written twice, and held together here."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli
from packaging.requirements import Requirement

import forge_gguf
import forge_huggingface
import forge_lm_eval
import forge_mlx
import forge_serve
import forge_unsloth

ROOT = Path(__file__).parents[2]
EXTRAS = tomli.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]

HUGGINGFACE = (*forge_huggingface.MODELS, forge_huggingface.PEFT, forge_huggingface.TRL, forge_huggingface.DATASETS)
ALONE = {
    "huggingface": {"pillow"},  # asked for by jobs with images only, where they are opened
    "lm-eval": {"forge-train"},  # with huggingface's packages
    "mlx": {"forge-train"},  # with huggingface's packages
    "unsloth": {"triton"},  # comes with torch on Linux, where Unsloth runs, and exists nowhere else
}
"""What stands on one side only, and why."""


def versions(requirements: object) -> dict[str, str]:
    """Return the range of each package; the markers of an extra only say where it can be installed."""
    return {(found := Requirement(str(each))).name: str(found.specifier) for each in requirements}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("extra", "asked"),
    [
        ("huggingface", HUGGINGFACE),
        ("unsloth", forge_unsloth.REQUIRES),
        ("gguf", forge_gguf.REQUIRES),
        ("mlx", forge_mlx.MLX),
        ("lm-eval", forge_lm_eval.HARNESS),
        ("serve", forge_serve.REQUIRES),
    ],
)
def test_an_extra_installs_what_its_plugin_asks_for(extra: str, asked: tuple[str, ...]) -> None:
    installed, needed = versions(EXTRAS[extra]), versions(asked)
    alone = ALONE.get(extra, set())
    assert installed.keys() ^ needed.keys() == alone
    assert {name: installed[name] for name in installed.keys() - alone} == {n: needed[n] for n in needed.keys() - alone}


def test_the_extra_dev_repeats_no_other() -> None:
    named = {Requirement(each).name for each in EXTRAS["dev"]}
    others = {Requirement(each).name for extra in ("gguf", "rewards", "docs", "serve") for each in EXTRAS[extra]}
    assert not named & others
    own = next(Requirement(each) for each in EXTRAS["dev"] if each.startswith("forge-train"))
    assert own.extras == {"docs", "gguf", "rewards", "serve"}

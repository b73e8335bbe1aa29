"""Another plugin brings a method of its own, as docs/plugins.md says, and a job asks for it by the plugin's word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from forge.api import Offer, Stage
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.discover import discover
from support.projects import perform_in

if TYPE_CHECKING:
    import pytest

    from support.projects import Project

GUIDE = Path(__file__).parents[2] / "docs" / "plugins.md"
KEYS = """
from forge_huggingface.arguments.options import Arguments, build


class Mine(Arguments):
    colour: str = "blue"


def keys(method):
    assert method == "mine/sft"
    return build("SFTConfig", Mine, without=frozenset({"neftune_noise_alpha"}))
"""


def test_the_method_of_the_guide_trains(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, offer = re.findall(r"^```py\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    package = tmp_path / "site" / "forge_mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text(train)
    (package / "options.py").write_text(KEYS)
    monkeypatch.syspath_prepend(package.parent)
    offers = (eval(offer, {"Offer": Offer, "Stage": Stage}),)
    mine = Plugin(name="mine", distribution="forge-mine", version="1", offers=offers)
    catalogue = Catalogue((*discover({}).plugins, mine))
    project.write(train={"method": "mine/sft", "colour": "red"})
    done = perform_in(*project.prepare(catalogue=catalogue))
    assert done.code == 0, done.printed
    assert [event["step"] for event in done.of_kind("step")] == [1, 2, 3, 4]
    assert (done.folder.path / "adapter" / "adapter_model.safetensors").exists()

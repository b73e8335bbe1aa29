"""What is told before a run goes on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from forge.api import Stage, Step
from forge.discovery.catalogue import Catalogue, Plugin
from forge.parent.resume import _renewed


def test_a_plugin_of_another_version_than_the_run_began_with_is_named_once() -> None:
    steps = [
        Step(stage=stage, label=stage.value, plugin=name, distribution=f"forge-{name}", version="1.0", impl="a:b")
        for name in ("old", "same", "gone")
        for stage in (Stage.LOAD, Stage.ADAPT)
    ]
    found = Catalogue(
        (
            Plugin(name="old", distribution="forge-old", version="1.1"),
            Plugin(name="same", distribution="forge-same", version="1.0"),
        )
    )
    assert list(_renewed(cast(Any, SimpleNamespace(steps=steps)), found)) == [
        "plugin old (forge-old) was 1.0 and is 1.1: the numbers may differ from an uninterrupted run"
    ]

"""What is told before a run goes on."""

from __future__ import annotations

from forge.discovery.catalogue import Catalogue, Plugin
from forge.planning.renewing import renewed_plugins


def test_a_plugin_that_is_another_than_the_run_began_with_or_gone_is_named() -> None:
    before = {"old": "forge-old 1.0", "same": "forge-same 1.0", "gone": "forge-gone 1.0", "moved": "forge-moved 1.0"}
    before["broken"] = "forge-broken 1.0"
    found = Catalogue(
        (
            Plugin(name="old", distribution="forge-old", version="1.1"),
            Plugin(name="same", distribution="forge-same", version="1.0"),
            Plugin(name="moved", distribution="forge-other", version="1.0"),
            Plugin(name="broken", distribution="forge-broken", version="1.0", status="broken", reason="no licence"),
        )
    )
    assert list(renewed_plugins(before, found)) == [
        "plugin old was forge-old 1.0 and is forge-old 1.1: the results may differ",
        "plugin gone (forge-gone 1.0) is not installed any more",
        "plugin moved was forge-moved 1.0 and is forge-other 1.0: the results may differ",
        "plugin broken (forge-broken 1.0) is broken by now: no licence",
    ]

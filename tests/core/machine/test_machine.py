"""Machines: what the probe sees without torch, and the machines that ``FORGE_MACHINE`` puts in its place."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import UsageError
from forge.machine import probe as hardware
from forge.machine.machine import Accelerator, Machine, TorchBuild
from forge.machine.presets import PRESETS, current
from forge.machine.probe import probe

if TYPE_CHECKING:
    import ctypes
    from pathlib import Path

GIB = 1024**3


def test_the_probe_tells_what_is_installed() -> None:
    machine = probe()
    assert machine.platform == sys.platform
    assert machine.python == sys.version.split()[0]
    for name in ("pytest", "pluggy", "pydantic-core", "huggingface-hub"):
        assert machine.versions[name] == version(name)
    assert machine.memory > GIB // 4
    assert machine.cores >= 1
    assert machine.disk is not None


def test_the_probe_reads_torchs_build_as_torch_tells_it_and_imports_nothing_heavy() -> None:
    script = """
import sys
from forge.machine.probe import probe
build = probe().torch
assert not {"torch", "numpy", "pydantic", "urllib.request"} & set(sys.modules), "heavy"
import torch.version
assert (build.version, build.cuda, build.hip) == (torch.__version__, torch.version.cuda, torch.version.hip), build
"""
    pytest.importorskip("torch", reason="torch is not installed")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system is asked in other ways")
def test_the_probe_starts_no_program_and_reads_no_distributions_metadata() -> None:
    script = """
import json, sys
from forge.machine.probe import probe
seen = []
sys.addaudithook(lambda event, arguments: seen.append((event, str(arguments[0] if arguments else ""))))
probe()
print(json.dumps(seen))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    seen = json.loads(done.stdout)
    assert not {"subprocess.Popen", "os.posix_spawn", "os.exec", "os.system", "socket.connect"} & {e for e, _ in seen}
    opened = [path for event, path in seen if event == "open" and "__pycache__" not in path]
    assert len(opened) < 15  # a few of the kernel's, and torch's version; each METADATA would be a hundred more
    assert not [path for path in opened if path.endswith("METADATA")]


@pytest.mark.parametrize("name", PRESETS)
def test_a_machine_survives_json(name: str) -> None:
    machine = PRESETS[name]
    assert Machine.from_json(json.loads(json.dumps(machine.to_json()))) == machine


def test_the_probed_machine_survives_json() -> None:
    machine = probe()
    assert Machine.from_json(json.loads(json.dumps(machine.to_json()))) == machine
    assert hash(machine)


def test_forge_machine_names_a_preset_or_a_file(tmp_path: Path) -> None:
    mac = current({"FORGE_MACHINE": "macos"})
    assert replace(mac, versions={}) == replace(PRESETS["macos"], versions={})
    assert PRESETS["macos"].versions.items() <= mac.versions.items()
    assert "click" in mac.versions, "what no preset tells is taken to be there where it is here"
    assert "bitsandbytes" not in mac.versions, "what another preset has is not"
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(PRESETS["linux-cuda"].to_json()))
    assert current({"FORGE_MACHINE": str(file)}) == PRESETS["linux-cuda"]
    assert current({}).platform == sys.platform
    assert current({"FORGE_MACHINE": ""}).platform == sys.platform


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "neither such a preset nor such a file"),
        ("{", "Expecting property name"),
        ("[]", "must be a JSON object"),
        ("{}", "platform is missing"),
        (json.dumps(PRESETS["macos"].to_json() | {"cpu": 1}), "cpu is an unknown key"),
        (
            json.dumps(PRESETS["macos"].to_json() | {"memory": "16 GB"}),
            "memory: input should be a valid integer, not '16 GB'",
        ),
        (
            json.dumps(PRESETS["macos"].to_json() | {"accelerators": [{"kind": "cuda"}]}),
            "accelerators.0.name is missing",
        ),
    ],
)
def test_a_bad_forge_machine_is_explained_and_the_presets_named(tmp_path: Path, content: str | None, why: str) -> None:
    file = tmp_path / "machine.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError) as caught:
        current({"FORGE_MACHINE": str(file)})
    assert why in str(caught.value)
    assert "linux-cuda, linux-t4, linux-a100" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kinds", "usable"),
    [
        ("linux-cuda", {"cuda"}, {"cuda"}),
        ("linux-cpu", set(), set()),
        ("windows-cpu", set(), set()),
        ("windows-cuda-cpu-torch", {"cuda"}, set()),
        ("macos", {"mps"}, {"mps"}),
    ],
)
def test_an_accelerator_is_usable_only_with_torchs_right_build(name: str, kinds: set[str], usable: set[str]) -> None:
    assert PRESETS[name].kinds == kinds
    assert PRESETS[name].usable_kinds == usable
    assert (PRESETS[name].mismatch() is None) == (kinds == usable)


def test_a_cpu_build_beside_a_card_is_told_with_the_line_that_mends_it() -> None:
    assert PRESETS["windows-cuda-cpu-torch"].mismatch() == (
        "torch 2.13.0+cpu is a CPU build beside an NVIDIA GeForce RTX 4090; install the CUDA build: "
        "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
    )


def test_an_old_driver_gets_an_older_cuda() -> None:
    card = Accelerator("cuda", "Tesla T4", driver="535.104")
    assert "/whl/cu126" in (replace(PRESETS["windows-cuda-cpu-torch"], accelerators=(card,)).mismatch() or "")


def test_a_rocm_card_beside_a_cuda_build_is_a_mismatch_and_no_torch_is_none() -> None:
    machine = replace(PRESETS["linux-cuda"], accelerators=(Accelerator("rocm", "AMD GPU gfx1100"),))
    assert "a CUDA build beside an AMD GPU gfx1100; install the ROCm build" in (machine.mismatch() or "")
    assert replace(machine, torch=TorchBuild("2.13.0+rocm7", hip="7.0")).usable_kinds == {"rocm"}
    without = replace(machine, torch=None)
    assert without.mismatch() is None
    assert without.usable_kinds == frozenset()


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        (" 1 ", [1]),
        ("0,7,1", [0]),  # CUDA stops at the first that is not there
        ("0,-1,1", [0]),
        ("1,1", []),
        ("GPU-bb", [1]),
        ("GPU-a", []),  # ambiguous
        ("GPU-a1-x,2", [0, 2]),
        ("nonsense", []),
    ],
)
def test_cuda_visible_devices_hides_as_cuda_does(visible: str | None, expected: list[int]) -> None:
    assert hardware.select(visible, ["GPU-a1-x", "GPU-bb-y", "GPU-a2-z"]) == expected


class Nvml:
    """A double of NVIDIA's library with two cards, one of which says little."""

    def __init__(self) -> None:
        self.shut = False

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        self.shut = True
        return 0

    def nvmlSystemGetDriverVersion(self, buffer: Any, _size: Any) -> int:  # noqa: N802
        buffer.value = b"580.1"
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.value = index.value + 1
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, handle: Any) -> int:  # noqa: N802
        handle._obj.value = 1
        return 0 if uuid == b"MIG-1" else 6

    def nvmlDeviceGetUUID(self, handle: ctypes.c_void_p, buffer: Any, _size: Any) -> int:  # noqa: N802
        buffer.value = b"GPU-%d" % (handle.value or 0)
        return 0

    def nvmlDeviceGetName(self, handle: ctypes.c_void_p, buffer: Any, _size: Any) -> int:  # noqa: N802
        buffer.value = b"NVIDIA H100" if handle.value == 1 else b"NVIDIA GB10"
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: ctypes.c_void_p, memory: Any) -> int:  # noqa: N802
        memory._obj.total, memory._obj.free = 80 * GIB, 71 * GIB
        return 0 if handle.value == 1 else 3

    def nvmlDeviceGetCudaComputeCapability(self, handle: ctypes.c_void_p, major: Any, minor: Any) -> int:  # noqa: N802
        major._obj.value, minor._obj.value = (9, 0) if handle.value == 1 else (12, 1)
        return 0


def test_nvidia_cards_are_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = Nvml()
    monkeypatch.setattr(hardware, "_load_nvml", lambda: nvml)
    first = Accelerator("cuda", "NVIDIA H100", 80 * GIB, "9.0", "580.1", free=71 * GIB)
    second = Accelerator("cuda", "NVIDIA GB10", None, "12.1", "580.1")
    assert hardware.nvidia(None) == (first, second)
    assert hardware.nvidia("1,0") == (second, first)
    assert hardware.nvidia("GPU-2") == (second,)
    assert hardware.nvidia("") == ()
    assert hardware.nvidia("MIG-1") == (first,)
    assert hardware.nvidia("MIG-2") == ()
    assert nvml.shut


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({"meminfo": "MemTotal: 9 kB\nMemAvailable:    1048576 kB\n", "memory.max": "max"}, GIB),
        (
            {
                "meminfo": f"MemAvailable: {64 * 2**20} kB",
                "memory.max": str(8 * GIB),
                "memory.current": str(7 * GIB),
                "memory.stat": f"anon 1\nfile {2 * GIB}\n",
            },
            3 * GIB,  # what the container holds of files goes where something else needs the room
        ),
        ({}, None),
    ],
)
def test_free_main_memory_is_what_the_container_leaves(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], left: int | None
) -> None:
    monkeypatch.setattr(hardware, "_read", lambda path: files.get(path.name, ""))
    assert hardware.available(8 * GIB) == left


def test_a_computer_without_the_driver_has_no_nvidia_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_load_nvml", lambda: None)
    assert hardware.nvidia(None) == ()


def test_rocm_cards_are_read_from_the_kernel(tmp_path: Path) -> None:
    for node, text, bank in [
        ("0", "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\n", 0),
        ("1", "simd_count 192\ngfx_target_version 110000\n", 24 * GIB),
        ("2", "simd_count 440\ngfx_target_version 90010\n", 64 * GIB),
    ]:
        (tmp_path / node / "mem_banks" / "0").mkdir(parents=True)
        (tmp_path / node / "properties").write_text(text)
        (tmp_path / node / "mem_banks" / "0" / "properties").write_text(f"size_in_bytes {bank}\n")
    cards = hardware.rocm(None, tmp_path)
    assert [(card.capability, card.memory) for card in cards] == [("gfx1100", 24 * GIB), ("gfx90a", 64 * GIB)]
    assert hardware.rocm("1", tmp_path) == cards[1:]
    assert hardware.rocm(None, tmp_path / "none") == ()


def test_the_first_distribution_on_the_path_wins_and_names_are_normalised(tmp_path: Path) -> None:
    for folder, names in {"a": ["Foo_Bar-1.0", "torch-2.13.0+cu130"], "b": ["foo.bar-2.0", "only_b-3"]}.items():
        for name in names:
            (tmp_path / folder / f"{name}.dist-info").mkdir(parents=True)
    path = [str(tmp_path / "a"), str(tmp_path / "missing"), str(tmp_path / "b")]
    assert hardware.versions(path) == {"foo-bar": "1.0", "torch": "2.13.0+cu130", "only-b": "3"}


def test_free_disk_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert hardware.free_disk(tmp_path / "not" / "yet") is not None


@pytest.mark.parametrize(
    ("text", "build"),
    [
        ("__version__ = '2.9.1+cu128'\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n", ("12.8", None)),
        ("__version__ = '2.9.1'\ncuda = None\nhip = '6.4.43482'\n", (None, "6.4.43482")),
        ("__version__ = '2.9.1'\ncuda = _find()\n", (None, None)),
        ("", None),
    ],
)
def test_torchs_build_is_parsed_from_its_text(
    text: str, build: tuple[str | None, str | None] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "torch" / "version.py").write_text(text)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    found = hardware.torch_build()
    assert (None if found is None else (found.cuda, found.hip)) == build

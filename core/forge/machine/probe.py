"""Looking at this computer: drivers, kernel files and file names, each read directly.

torch would tell all this, but importing it takes seconds and settles which backend patches what. Everything here is
best effort: what cannot be read is unknown, never an error, since a half-broken machine must get a plan too.
"""

from __future__ import annotations

import ast
import ctypes
import importlib.util
import os
import platform
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.machine.machine import Accelerator, Machine, TorchBuild

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


_CGROUP = Path("/sys/fs/cgroup")
_KFD = Path("/sys/class/kfd/kfd/topology/nodes")


def arch() -> str:
    """Return the processor's architecture."""
    return platform.machine()


def is_wsl() -> bool:
    """Return whether this Linux runs inside Windows."""
    return sys.platform == "linux" and "microsoft" in os.uname().release.lower()


def cores() -> int:
    """Return how many processor cores this process may use: affinity and the container's limit count."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota, _, period = _read(_CGROUP / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        count = min(count, -(-int(quota) // int(period)))
    return max(count, 1)


def memory() -> int:
    """Return the bytes of main memory that this process may use; 0 if unknown."""
    if sys.platform == "win32":
        return _windows_memory()
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
    limit = _read(_CGROUP / "memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def available(total: int) -> int | None:
    """Return the bytes of main memory that a program could get now, of those that it may use; None if unknown."""
    line = re.search(r"^MemAvailable:\s+(\d+) kB$", _read(Path("/proc/meminfo")), re.MULTILINE)
    if line is None:
        return None
    left, limit, used = int(line[1]) * 1024, _read(_CGROUP / "memory.max"), _read(_CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():  # what it holds of files goes where something else needs the room
        files = re.search(r"^file (\d+)$", _read(_CGROUP / "memory.stat"), re.MULTILINE)
        left = min(left, total - int(used) + (int(files[1]) if files else 0))
    return max(0, left)


def free_disk(folder: Path) -> int | None:
    """Return the free bytes at a folder, or at the nearest parent that exists."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def versions(path: Iterable[str]) -> dict[str, str]:
    """Return the installed distributions' normalised names and versions, from the names of their folders.

    ``importlib.metadata`` opens every METADATA file: a hundred milliseconds for what the names say already.
    """
    found: dict[str, str] = {}
    for entry in path:
        try:
            names = [item.name for item in os.scandir(entry or ".") if item.name.endswith(".dist-info")]
        except OSError:  # a zip archive, or a folder that is not there
            continue
        for name in sorted(names):
            project, _, version = name.removesuffix(".dist-info").rpartition("-")
            if project:
                found.setdefault(re.sub(r"[-_.]+", "-", project).lower(), version)
    return found


def torch_build() -> TorchBuild | None:
    """Return what the installed torch was built for, or None if there is none."""
    try:
        spec = importlib.util.find_spec("torch")  # of a top-level package: finds it, imports nothing
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    text = _read(Path(spec.origin).with_name("version.py"))
    version = _assigned(text, "__version__")
    return TorchBuild(version, _assigned(text, "cuda"), _assigned(text, "hip")) if version else None


def _assigned(text: str, name: str) -> str | None:
    match = re.search(rf"^{name}(?:\s*:[^=\n]*)?\s*=\s*(.+)$", text, re.MULTILINE)
    if match is None:
        return None
    try:
        value = ast.literal_eval(match[1].strip())
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, str) else None


def accelerators(environ: Mapping[str, str], memory: int) -> tuple[Accelerator, ...]:
    """Return the accelerators that programs started with an environment will see.

    Args:
        environ: The environment; ``CUDA_VISIBLE_DEVICES`` and its ROCm relatives hide devices.
        memory: Main memory, which Apple's GPUs share.
    """
    if sys.platform == "darwin":
        return (Accelerator("mps", "Apple GPU", memory),) if arch() == "arm64" else ()
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    found = nvidia(visible)
    if sys.platform == "linux":
        # HIP obeys NVIDIA's variable too, where its own is not set.
        found += rocm(environ.get("HIP_VISIBLE_DEVICES", environ.get("ROCR_VISIBLE_DEVICES", visible)))
    return found


def visible_by(environ: Mapping[str, str], cards: Iterable[Accelerator]) -> str:
    """Return the variable that says which of some GPUs can be seen: ROCm's own where it is set and they are AMD's.

    >>> amd, other = [Accelerator("rocm", "", 0)], [Accelerator("cuda", "", 0)]
    >>> [visible_by({"HIP_VISIBLE_DEVICES": "2"}, cards) for cards in (amd, other)]
    ['HIP_VISIBLE_DEVICES', 'CUDA_VISIBLE_DEVICES']
    """
    own = "HIP_VISIBLE_DEVICES" in environ and any(card.kind == "rocm" for card in cards)
    return "HIP_VISIBLE_DEVICES" if own else "CUDA_VISIBLE_DEVICES"


def select(visible: str | None, uuids: Sequence[str]) -> list[int]:
    """Return the indices of the devices that ``CUDA_VISIBLE_DEVICES`` leaves visible, in its order.

    As in CUDA: the first entry that names no device ends the list, and naming one twice hides all. Indices count in
    NVML's order, which is CUDA's unless the cards differ and ``CUDA_DEVICE_ORDER`` is unset.
    """
    if visible is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in visible.split(",")):
        if entry.isdigit():
            matches = [int(entry)] if int(entry) < len(uuids) else []
        elif entry.startswith("GPU-"):  # may be shortened as long as it is unique
            matches = [index for index, uuid in enumerate(uuids) if uuid.startswith(entry)]
        else:
            matches = []
        if len(matches) != 1:
            break
        chosen += matches
    return chosen if len(set(chosen)) == len(chosen) else []


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def nvidia(visible: str | None) -> tuple[Accelerator, ...]:
    """Return the NVIDIA devices that a value of ``CUDA_VISIBLE_DEVICES`` leaves visible."""
    nvml = _load_nvml()
    if nvml is None or nvml.nvmlInit_v2() != 0:
        return ()
    try:
        driver = _text(nvml.nvmlSystemGetDriverVersion)
        if visible is not None and visible.startswith("MIG-"):
            handle = ctypes.c_void_p()
            missing = nvml.nvmlDeviceGetHandleByUUID(visible.split(",")[0].encode(), ctypes.byref(handle))
            return () if missing else (_describe(nvml, handle, driver),)
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        handles = []
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(handle)) == 0:
                handles.append(handle)
        uuids = [_text(nvml.nvmlDeviceGetUUID, handle) or "" for handle in handles]
        return tuple(_describe(nvml, handles[index], driver) for index in select(visible, uuids))
    except (AttributeError, OSError):  # a driver too old to have one of the functions
        return ()
    finally:
        nvml.nvmlShutdown()


def _load_nvml() -> Any:
    names = ["libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1"]
    if sys.platform == "win32":
        names = ["nvml.dll", r"C:\Program Files\NVIDIA Corporation\NVSMI\nvml.dll"]
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _text(function: Any, *arguments: Any) -> str | None:
    buffer = ctypes.create_string_buffer(96)
    if function(*arguments, buffer, ctypes.c_uint(len(buffer))) != 0:
        return None
    return buffer.value.decode(errors="replace")


def _describe(nvml: Any, handle: ctypes.c_void_p, driver: str | None) -> Accelerator:
    memory = _Memory()
    known = nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
    major, minor = ctypes.c_int(), ctypes.c_int()
    capable = nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)) == 0
    return Accelerator(
        kind="cuda",
        name=_text(nvml.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        # Devices that share the system's memory (Jetson, GB10) report none of their own.
        memory=memory.total if known and memory.total else None,
        capability=f"{major.value}.{minor.value}" if capable else None,
        driver=driver,
        free=memory.free if known and memory.total else None,
    )


def rocm(visible: str | None, nodes: Path = _KFD) -> tuple[Accelerator, ...]:
    """Return the ROCm devices that a list of indices leaves visible, from the kernel's topology files."""
    found = []
    driver = _read(Path("/sys/module/amdgpu/version")) or None
    try:
        folders = sorted((node for node in nodes.iterdir() if node.name.isdigit()), key=lambda node: int(node.name))
    except OSError:
        return ()
    for node in folders:
        properties = _pairs(node / "properties")
        target = properties.get("gfx_target_version", 0)
        if not properties.get("simd_count") or not target:  # a CPU
            continue
        gfx = f"gfx{target // 10000}{target // 100 % 100:x}{target % 100:x}"
        size = max(
            (_pairs(bank / "properties").get("size_in_bytes", 0) for bank in node.glob("mem_banks/*")), default=0
        )
        found.append(Accelerator("rocm", f"AMD GPU {gfx}", size or None, gfx, driver))
    return tuple(found[index] for index in select(visible, [""] * len(found)))


def _pairs(path: Path) -> dict[str, int]:
    words = [line.split() for line in _read(path).splitlines()]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


class _MemoryStatus(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        *(
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "page", "freepage", "virtual", "freevirtual", "more")
        ),
    )


def _windows_memory() -> int:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    library: Any = getattr(ctypes, "windll", None)  # exists on Windows only
    if library is None or not library.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return 0
    return int(status.total)


def probe(folder: Path | None = None) -> Machine:
    """Look at this computer, without importing torch.

    Args:
        folder: Where the run will be written, for the free space there; the working folder if None.
    """
    total = memory()
    return Machine(
        platform=sys.platform,
        arch=arch(),
        wsl=is_wsl(),
        python=".".join(map(str, sys.version_info[:3])),
        cores=cores(),
        memory=total,
        accelerators=accelerators(os.environ, total),
        disk=free_disk(folder or Path()),
        versions=versions(sys.path),
        torch=torch_build(),
        available=available(total),
    )

"""What the user's environment may be without a run failing."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from forge.disk.cache import COMPILERS
from forge.disk.events import read_events
from forge.machine.presets import PRESETS
from forge.parent.process import environment_of, unsupported, worker_environment
from support.projects import Project


@pytest.mark.slow
def test_settings_of_python_that_the_libraries_do_not_work_with_stay_with_the_parent(project: Project) -> None:
    """Without docstrings, and with warnings as errors, transformers and trl cannot be imported or used."""
    project.write(train={"max_steps": 1})
    output = project.forge("run", "job.toml", PYTHONOPTIMIZE="2", PYTHONWARNINGS="error")
    assert "not passed on to the worker, whose libraries do not work with it: PYTHONOPTIMIZE, PYTHONWARNINGS" in output
    assert project.newest().trained() is not None


def test_settings_that_do_no_harm_are_passed_on() -> None:
    assert unsupported({"PYTHONOPTIMIZE": "", "PYTHONWARNINGS": "ignore", "PYTHONHASHSEED": "1"}) == []
    assert unsupported({"PYTHONWARNINGS": "ignore,error::UserWarning"}) == ["PYTHONWARNINGS"]


@pytest.mark.slow
def test_no_home_and_no_folder_for_temporary_files_are_needed(project: Project) -> None:
    """A container's user has often neither."""
    project.write(train={"max_steps": 1})
    output = project.forge("data", "job.toml", HOME="/nonexistent", TMPDIR="/nonexistent")
    assert "row 1" in output


def test_what_a_worker_compiles_is_kept_in_the_users_cache(project: Project, tmp_path: Path) -> None:
    """A library that drops the folder at its import, as Unsloth does, gets it back."""
    (tmp_path / "dropping.py").write_text("import os\nos.environ.pop('TORCHINDUCTOR_CACHE_DIR')\n")
    code = (
        "import os, sys; from dataclasses import replace; from forge.api.plan import Plan; from pathlib import Path; "
        "from forge.worker.imports import preload; plan = Plan.read(Path(sys.argv[1])); "
        "preload(replace(plan, preload=('dropping',))); print(os.environ['TORCHINDUCTOR_CACHE_DIR'])"
    )
    _, folder = project.prepare()
    plan = folder.plan_paths()[-1]
    with pytest.MonkeyPatch.context() as patch:
        for name in COMPILERS:  # torch writes its own into this process
            patch.delenv(name, raising=False)
        patch.setenv("FORGE_CACHE", str(tmp_path / "cache"))
        made, cold = environment_of(folder, plan)
    assert cold is None
    command = [sys.executable, "-c", code, str(plan)]
    done = subprocess.run(
        command, env={**made, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == made["TORCHINDUCTOR_CACHE_DIR"]
    assert done.stdout.startswith(str(tmp_path / "cache" / "compiled"))


def test_one_card_is_named_so_that_unsloth_compiles_in_all_processes(project: Project) -> None:
    _, folder = project.prepare()
    plan = replace(folder.plan(), machine=PRESETS["linux-cuda"])
    assert worker_environment({}, plan)["CUDA_VISIBLE_DEVICES"] == "0"
    assert worker_environment({"CUDA_VISIBLE_DEVICES": "3,4"}, plan)["CUDA_VISIBLE_DEVICES"] == "3"
    assert "CUDA_VISIBLE_DEVICES" not in worker_environment({}, replace(plan, machine=PRESETS["linux-cpu"]))
    amd = worker_environment({"HIP_VISIBLE_DEVICES": "2,3"}, replace(plan, machine=PRESETS["linux-rocm"]))
    assert amd["HIP_VISIBLE_DEVICES"] == "2"
    nvidia = worker_environment({"HIP_VISIBLE_DEVICES": "2,3"}, plan)  # which is left over from another machine
    assert nvidia["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in amd


@pytest.mark.slow
def test_a_second_run_compiles_nothing_anew(project: Project, tmp_path: Path) -> None:
    project.write(train={"max_steps": 1, "torch_compile": True})
    seconds = []
    for _ in range(2):
        project.forge("run", "job.toml", FORGE_CACHE=str(tmp_path / "cache"))
        seconds += [line["seconds"] for line in read_events(project.newest().events) if line["kind"] == "probe"]
    assert seconds[1] < seconds[0] / 2

"""The methods' examples: their rows become what each method trains on, and with the real model each learns."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api.plan import Task
from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.job.decisions import settle
from forge.job.read import change_of, read
from forge.machine.probe import probe
from forge.planning.planner import make_plan
from forge.worker.stages import Stages
from forge_huggingface.facts.describe import describe

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = Path(__file__).parents[2] / "examples"
METHODS = EXAMPLES / "methods"
LAYOUTS = {
    "dpo": "pairs",
    "orpo": "pairs",
    "cpo": "pairs",
    "kto": "rated",
    "reward": "ranked",
    "classification": "labelled",
    "grpo": "prompts",
    "rloo": "prompts",
    "distill": "prompts",
    "t5": "seq2seq",
}
ORDER = [name for name in LAYOUTS if name != "distill"]
pytestmark = pytest.mark.skipif(find_spec("countryinfo") is None, reason="countryinfo is not installed")


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(f"methods_{name}", METHODS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


prepare, table = script("prepare"), script("table")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The examples' folder as ``prepare.py`` leaves it, with the tests' tiny model in place of the real one."""
    folder = tmp_path_factory.mktemp("examples")
    for name in ("methods", "quickstart"):
        shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("data", "model", "t5", "*.pyc"))
        (folder / name / "data").mkdir()
    shutil.copytree(tiny_model, folder / "quickstart" / "model")
    prepare.quickstart().make_data(folder / "quickstart" / "data")
    prepare.make_data(folder / "methods" / "data")
    (folder / "methods" / "t5").mkdir()
    prepare.make_t5(folder / "methods" / "t5", folder / "methods" / "data")
    return folder / "methods"


# The rows


def rows(examples: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (examples / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("name", "train", "held_out"),
    [
        ("pairs", 212, 24),
        ("ranked", 4 * 212, 96),
        ("regions", 212, 24),
        ("sums", 8036, 64),
        ("facts", 8 * 204, 48),
    ],
)
def test_no_question_is_on_both_sides_of_the_split(examples: Path, name: str, train: int, held_out: int) -> None:
    asked = [
        {json.dumps(row.get("prompt") or row.get("input") or row["text"]) for row in rows(examples, f"{name}-{part}")}
        for part in ("train", "eval")
    ]
    assert not asked[0] & asked[1]
    assert [len(rows(examples, f"{name}-{part}")) for part in ("train", "eval")] == [train, held_out]


@pytest.mark.parametrize("name", ["rated", "cards"])
def test_the_quick_starts_held_out_countries_are_not_trained_on(examples: Path, name: str) -> None:
    held_out = (examples.parent / "quickstart" / "data" / "eval.jsonl").read_text(encoding="utf-8").splitlines()
    asked = {json.loads(line)["messages"][0]["content"] for line in held_out}
    made = rows(examples, f"{name}-train")
    assert len(made) == 212
    assert not asked & {row["prompt"][0]["content"] for row in made}


def test_a_flawed_card_is_never_the_card() -> None:
    cards = dict(prepare.quickstart().countries())
    for name, card in cards.items():
        worse = list(prepare.flawed(name, card))
        assert len({*worse, prepare.line(card)}) == len(worse) + 1


# The jobs, without the real model


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_job_is_planned_and_its_rows_become_what_its_method_trains_on(
    examples: Path, tmp_path: Path, name: str
) -> None:
    catalogue = discover({})
    # The tiny model's tokenizer needs more tokens for the same rows.
    file = read(
        examples / f"{name}.toml", PluginKeys(catalogue), [change_of(text) for text in ["model.max_seq_length=512"]]
    )
    facts = describe(file.job.model.id, file.job.model.revision, file.job.folder)
    plan = make_plan(file, catalogue, probe(), facts, task=Task.TRAIN)
    folder = RunFolder.create(tmp_path / "runs", file)
    folder.add_plan(plan)
    data = Stages(Run(folder=folder.path, plan=plan), settle(file.job, plan.decisions)).collate()
    assert data.layout == LAYOUTS[name]
    assert data.summary["dropped"] == data.summary["truncated"] == 0
    assert data.preview is not None
    assert len(data.preview(data, 3)) == 3


# All of it


@pytest.fixture(scope="module")
def ready() -> None:
    """The real model and the rows."""
    for module in ("torch", "transformers", "accelerate", "gguf"):
        pytest.importorskip(module)
    subprocess.run([sys.executable, str(METHODS / "prepare.py")], check=True)


def run(job: Path, runs: Path, *arguments: str) -> Path:
    """Run a job and return its run's folder."""
    command = [sys.executable, "-P", "-m", "forge", "run", str(job), "--runs-dir", str(runs), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return max(runs.glob("*/*/trained.json")).parent


@pytest.mark.slow
@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("name", ORDER)
def test_a_job_learns(tmp_path: Path, name: str) -> None:
    done = run(METHODS / f"{name}.toml", tmp_path)
    before, after, _ = table.measured(done, table.SCORES[name])
    assert after > before
    assert f"[`{name}`]" in table.row(name, done)


@pytest.mark.slow
@pytest.mark.usefixtures("ready")
def test_a_model_learns_from_the_model_that_the_quick_start_trained(tmp_path: Path) -> None:
    taught = run(EXAMPLES / "quickstart" / "job.toml", tmp_path / "teacher", "--set", "eval.base=false")
    teacher = taught / "exports" / "1-merged"
    done = run(METHODS / "distill.toml", tmp_path / "student", "--set", f"train.teacher_model_name_or_path={teacher}")
    before, after, _ = table.measured(done, table.SCORES["distill"])
    assert after > before

"""Fixtures that several folders ask for. Those of a session are made once in each worker."""

from __future__ import annotations

import json
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.discovery.discover import discover
from support.evaluating import METRICS, Evaluation
from support.looking import VisionProject, loads
from support.projects import Finished, Project
from support.rows import REWARDS
from support.sites import Site
from support.tiny import make_model
from support.tiny_vlm import make_vlm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from forge.discovery.catalogue import Catalogue
    from forge.disk.folder import RunFolder
    from support.looking import Projects

    Models = Callable[[str], Path]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what runs leave for later ones apart from the user's own, so that neither decides for the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FORGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A place for distributions, empty."""
    return Site(tmp_path / "site")


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    """The plugins of this checkout, and no others that the environment may have."""
    return discover({"FORGE_PLUGINS": "huggingface"})


@pytest.fixture
def hangups() -> Iterator[None]:
    """Let the processes that a test starts hear SIGHUP, though the tests may run under nohup."""
    if not hasattr(signal, "SIGHUP"):
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a real tokenizer. Shared by all tests: copy it before you change a file of it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


def furnished(folder: Path, model: Path) -> Project:
    """Return a new project with metrics and rewards beside its job, for jobs that name them."""
    made = Project(folder, model)
    (made.folder / "metrics.py").write_text(METRICS, encoding="utf-8")
    (made.folder / "rewards.py").write_text(REWARDS, encoding="utf-8")
    return made


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path) -> Project:
    """A project of its own for each test."""
    return furnished(tmp_path / "project", tiny_model)


@pytest.fixture
def rows(project: Project) -> Callable[[Sequence[Any]], None]:
    """Write the project's rows."""

    def write(rows: Sequence[Any]) -> None:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (project.folder / "rows.jsonl").write_text(text, encoding="utf-8")

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Project, RunFolder]:
    """A project with a finished run that holds out six rows. Nobody may change it."""
    made = furnished(tmp_path_factory.mktemp("trained") / "project", tiny_model)
    changes: dict[str, Any] = {"eval": {"metrics": ["f1"], "max_new_tokens": 8}, "data": {"eval_size": 6}}
    made.write(**changes, train={"max_steps": 8, "learning_rate": 0.05, "save_steps": 8})
    done: Finished = made.perform()
    assert done.code == 0, done.printed
    return made, done.folder


@pytest.fixture
def evaluate(trained: tuple[Project, RunFolder]) -> Evaluation:
    """Evaluates the finished run in this process."""
    return Evaluation(*trained)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Gives a random vision model of a family, made once. Copy it before you change a file of it."""
    pytest.importorskip("PIL")
    folder = tmp_path_factory.mktemp("vlms")

    def get(arch: str) -> Path:
        if arch.startswith("qwen"):
            pytest.importorskip("torchvision")
        path = folder / arch
        if not path.is_dir():
            make_vlm(path, arch)
        if find_spec("torchvision") is None and not loads(path):
            # transformers 5.17 has a PIL processor for gemma3 and llava, and for idefics3 only since 5.23; torchvision
            # has no CPU build on PyPI, so this set cannot have it installed by a constraint.
            pytest.skip(f"the processor of {arch} needs torchvision in this transformers")
        return path

    return get


@pytest.fixture
def projects(tmp_path: Path, models: Models) -> Projects:
    """Makes a project whose model sees, of a family."""
    return lambda arch: VisionProject(tmp_path / arch, models(arch))


@pytest.fixture
def seeing(projects: Projects) -> VisionProject:
    """A project of its own for each test, with the model that sees and needs the least."""
    return projects("idefics3")


@pytest.fixture
def examples(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the example plugins installed, in this process and in those that it starts."""
    for file in sorted((Path(__file__).parents[2] / "examples" / "plugins").glob("*/pyproject.toml")):
        site.install_project(file.parent)
    monkeypatch.syspath_prepend(site.folder)
    for name, value in site.environment().items():
        monkeypatch.setenv(name, value)

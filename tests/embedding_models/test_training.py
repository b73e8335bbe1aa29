"""Embedding models and rerankers: trained as sentence-transformers does it, resumed, evaluated and exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from forge.disk.events import read_events
from support.resuming import parted
from support.sentence_transformers import NEEDED
from support.tiny import make_model
from support.tiny_encoder import labelled, make_bert, pairs, scored, triplets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.projects import Finished, Project

pytestmark = NEEDED

WHOLE: dict[str, Any] = {"type": "none", "r": None, "lora_alpha": None}
TEXTS = ["what is a lemon?", "a lemon is a thing"]


def trained(project: Project) -> Finished:
    done = project.perform()
    assert done.code == 0, done.printed[-3000:]
    return done


def test_a_resumed_training_is_the_whole_one_and_its_adapter_loads(texts: Callable[..., Project]) -> None:
    """Over the end of an epoch, whose order is in no checkpoint."""
    from sentence_transformers import SentenceTransformer

    project = texts(
        pairs(14), train={"max_steps": 4, "save_steps": 1, "save_total_limit": 9}
    )  # 10 rows: an epoch is three steps
    found = dict(parted(project, only=frozenset({2, 3})))
    assert found == {2: [], 3: []}
    run = max(project.runs.glob("job/2*"))
    kinds = [path.name for path in (run / "adapter").iterdir()]
    assert {"adapter_model.safetensors", "modules.json", "1_Pooling", "README.md"} <= set(kinds)
    model = SentenceTransformer(str(run / "adapter"), device="cpu")
    base = SentenceTransformer(str(project.folder / "model"), device="cpu")
    assert np.abs(model.encode(TEXTS) - base.encode(TEXTS)).max() > 1e-4
    speed = [line for line in (run / "events.jsonl").read_text().splitlines() if "tokens_per_second" in line]
    assert speed


CASES = {
    "pairs": (pairs(), "embedding", {}, WHOLE),
    "triplets": (triplets(), "embedding", {"prompts": {"anchor": "query: "}, "matryoshka_dims": [8]}, WHOLE),
    "cached": (pairs(), "embedding", {"loss": "CachedMultipleNegativesRankingLoss", "mini_batch_size": 2}, WHOLE),
    "margin": (triplets(), "embedding", {"loss": "TripletLoss", "margin": 1.0}, WHOLE),
    "scored": (scored(), "embedding", {}, WHOLE),
    "angle": (scored(), "embedding", {"loss": "AnglELoss", "scale": 10.0}, WHOLE),
    "labelled": (labelled(), "embedding", {"loss": "OnlineContrastiveLoss"}, WHOLE),
    "reranker": (labelled(), "reranker", {}, WHOLE),
    "ranking": (triplets(), "reranker", {}, WHOLE),
    "distilled": (scored(), "reranker", {"loss": "MSELoss"}, WHOLE),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_of_a_plain_script(texts: Callable[..., Project], tmp_path: Path, name: str) -> None:
    rows, method, options, adapter = CASES[name]
    project = texts(rows, method, train={**options, "max_steps": 6}, adapter=adapter, data={"eval_size": None})
    done = trained(project)
    mine = [event["loss"] for event in done.of_kind("step")]
    assert mine == pytest.approx(plain(project, done, method, options, tmp_path), rel=1e-6)


def plain(project: Project, done: Finished, method: str, options: dict[str, Any], tmp_path: Path) -> list[float]:
    """Return the losses of a script that does the same with sentence-transformers alone."""
    import sentence_transformers as library
    from datasets import Dataset
    from sentence_transformers.cross_encoder import losses as of_rerankers
    from sentence_transformers.sentence_transformer import losses as of_embeddings
    from transformers import set_seed

    asked = {decision.key: decision.value for decision in done.folder.plan().decisions}
    rows = Dataset.from_file(str(done.folder.path / "data" / "train.arrow"))
    set_seed(42)
    reranks = method == "reranker"
    kind = library.CrossEncoder if reranks else library.SentenceTransformer
    model = kind(str(project.folder / "model"), device="cpu")
    name = options.get("loss") or asked["train.loss"]
    names = {"margin": "triplet_margin" if name == "TripletLoss" else "margin"}
    given = {names.get(key, key): options[key] for key in ("scale", "margin", "mini_batch_size") if key in options}
    loss = getattr(of_rerankers if reranks else of_embeddings, name)(model, **given)
    if "matryoshka_dims" in options:
        loss = of_embeddings.MatryoshkaLoss(model, loss, [16, *options["matryoshka_dims"]])
    arguments = library.CrossEncoderTrainingArguments if reranks else library.SentenceTransformerTrainingArguments
    args = arguments(
        str(tmp_path / "plain"), max_steps=6, per_device_train_batch_size=4, learning_rate=0.01, logging_steps=1,
        lr_scheduler_type="linear", save_strategy="no", report_to="none", use_cpu=True, seed=42,
        batch_sampler=asked["train.batch_sampler"], prompts=options.get("prompts"), disable_tqdm=True,
    )  # fmt: skip
    trainer = library.CrossEncoderTrainer if reranks else library.SentenceTransformerTrainer
    made = trainer(model=model, args=args, train_dataset=rows, loss=loss)
    made.train()
    return [line["loss"] for line in made.state.log_history if "loss" in line]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [{}, WHOLE], ids=["lora", "whole"])
@pytest.mark.parametrize(
    ("rows", "method"), [(triplets(), "embedding"), (scored(), "embedding"), (labelled(), "embedding"),
                         (pairs(), "reranker"), (labelled(), "reranker"), (scored(), "reranker")],
)  # fmt: skip
def test_evaluations_are_the_librarys_and_exports_are_what_was_trained(
    texts: Callable[..., Project], rows: list[Any], method: str, adapter: dict[str, Any]
) -> None:
    import sentence_transformers as library

    project = texts(rows, method, train={"max_steps": 5, "save_steps": 5, "eval_steps": 5}, adapter=adapter, eval={},
                    data={"eval_size": 6}, export=[{"format": "merged"}])  # fmt: skip
    project.forge("run", "job.toml")
    run = project.newest()
    found = run.evaluation()
    assert found is not None
    logged = [event for event in read_events(run.events) if event["kind"] == "eval"][-1]
    theirs = {
        "ndcg@10": ("cosine_ndcg@10", "ndcg@10"),
        "mrr@10": ("cosine_mrr@10", "mrr@10"),
        "spearman": ("spearman_cosine", "spearman"),
        "pearson": ("pearson_cosine", "pearson"),
        "average-precision": ("cosine_ap", "average_precision"),
    }
    compared = 0
    for name, measured in found["metrics"].items():
        for known in theirs.get(name, ()):
            if f"eval_{known}" in logged:
                compared += 1
                assert measured["tuned"]["value"] == pytest.approx(logged[f"eval_{known}"], abs=1e-5), name
        assert {"base", "tuned", "difference"} <= measured.keys()
    assert compared
    kind = library.CrossEncoder if method == "reranker" else library.SentenceTransformer
    weights = run.path / run.trained().weights
    own, export = (kind(str(folder), device="cpu") for folder in (weights, run.path / "exports" / "1-merged"))
    ask = (lambda model: model.predict([TEXTS])) if method == "reranker" else (lambda model: model.encode(TEXTS))
    assert ask(own) == pytest.approx(ask(export), abs=1e-5)
    assert "sentence-transformers" in (run.path / "exports" / "1-merged" / "README.md").read_text(encoding="utf-8")
    said = project.forge("chat", str(run.path), code=None)
    assert "the model answers nothing" in said


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [{}, WHOLE], ids=["lora", "whole"])
@pytest.mark.parametrize("method", ["embedding", "reranker"])
def test_every_checkpoint_goes_on_as_the_whole_training(
    texts: Callable[..., Project], method: str, adapter: dict[str, Any]
) -> None:
    rows = labelled(10) if method == "reranker" else scored(14)
    train = {"max_steps": 8, "save_steps": 2, "save_total_limit": 9, "eval_strategy": "epoch"}
    found = dict(parted(texts(rows, method, train=train, adapter=adapter)))
    assert found == {step: [] for step in (2, 4, 6, 8)}


@pytest.mark.slow
def test_a_folder_of_sentence_transformers_is_trained_as_it_is(texts: Callable[..., Project], tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    text = Transformer(str(make_bert(tmp_path / "bare")))
    modules = [text, Pooling(16, "cls"), Dense(16, 8), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "whole"), create_model_card=False)
    for adapter in ({}, WHOLE):
        project = texts(pairs(), model={"id": str(tmp_path / "whole")}, adapter=adapter, train={"max_steps": 2})
        done = trained(project)
        model = SentenceTransformer(str(done.folder.path / done.folder.trained().weights), device="cpu")
        assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Dense", "Normalize"]
        assert model[1].pooling_mode in ("cls", ("cls",), ["cls"])
        assert model.encode(TEXTS).shape == (2, 8)
        import shutil

        shutil.rmtree(project.folder)


@pytest.mark.slow
def test_a_model_that_writes_gives_its_last_token(texts: Callable[..., Project], tmp_path: Path) -> None:
    make_model(tmp_path / "llama")
    project = texts(pairs(), model={"id": str(tmp_path / "llama")}, train={"max_steps": 2})
    done = trained(project)
    assert any("pooling_mode = 'lasttoken'" in event["message"] for event in done.of_kind("note"))


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_stops_and_goes_on(texts: Callable[..., Project]) -> None:
    import os
    import signal

    from support.projects import step_now, wait_for

    project = texts(pairs(14), train={"max_steps": 3000, "save_steps": 5000, "logging_steps": 1})
    running = project.start("run", "job.toml")
    wait_for(lambda: list(project.runs.glob("job/*/events.jsonl")) and step_now(project.newest()) > 3)
    os.kill(running.pid, signal.SIGINT)
    running.communicate(timeout=60)
    assert running.returncode != 0
    stopped = [event for event in read_events(project.newest().events) if event["kind"] == "stopped"]
    assert stopped
    assert "is whole" in stopped[0]["message"]

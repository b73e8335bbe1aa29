"""Encoder-decoder models: evaluated and talked to as any other, and asked as they were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Prompt, Sampling
from forge.errors import UsageError
from support.evaluating import Evaluation, exported, generator_of
from support.projects import Finished, Project, json_of
from support.tiny import make_model
from support.tiny_seq2seq import make_bart, make_t5

if TYPE_CHECKING:
    from collections.abc import Callable

BANNED = list(range(5, 90))
ROWS = [{"prompt": f"Say {word}.", "completion": word} for word in ("red", "green", "blue", "one", "two", "three")] * 2
LONG = {"prompt": "Say blue, " + "please " * 60, "completion": "blue"}
MODELS: dict[str, Callable[[Path], Path]] = {"t5": make_t5, "bart": make_bart}


@pytest.fixture(scope="module", params=MODELS)
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Finished]:
    """A finished run: T5 with an adapter, BART with all weights, long rows cut."""
    folder = tmp_path_factory.mktemp(request.param)
    path = MODELS[request.param](folder / "model") / "generation_config.json"
    settings = json_of(path) | {"suppress_tokens": BANNED[::2], "bad_words_ids": [[token] for token in BANNED[1::2]]}
    path.write_text(json.dumps(settings), encoding="utf-8")
    made = Project(folder / "project", path.parent)
    for name, rows in (("rows", ROWS), ("held-out", [*ROWS[:5], LONG])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (made.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    made.write(
        model={"max_seq_length": 32},
        adapter={} if request.param == "t5" else {"type": "none", "r": None, "lora_alpha": None},
        data={"eval_path": "held-out.jsonl"},
        train={"max_steps": 30, "learning_rate": 0.02, "save_steps": 30},
        eval={"metrics": ["exact-match", "rouge"], "max_new_tokens": 8, "samples": 6},
        export=[{"format": "merged"}],
    )
    finished = made.perform()
    assert finished.code == 0, finished.printed
    return made, finished


@pytest.fixture(scope="module")
def found(done: tuple[Project, Finished]) -> dict[str, Any]:
    """Its evaluation."""
    return Evaluation(done[0], done[1].folder).found()


def plain(project: Project, finished: Finished, source: str) -> tuple[Any, Any]:
    """Return tokenizer and model as transformers and peft alone load them."""
    from peft import PeftModel
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    base, trained = project.folder / "model", finished.folder.trained()
    assert trained is not None
    weights = finished.folder.path / trained.weights
    tokenizer = AutoTokenizer.from_pretrained(base)
    if source == "tuned" and trained.kind == "full":
        return tokenizer, AutoModelForSeq2SeqLM.from_pretrained(weights)
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    return tokenizer, PeftModel.from_pretrained(model, weights) if source == "tuned" else model


@pytest.mark.parametrize("source", ["base", "tuned"])
def test_loss_and_answers_are_those_of_plain_transformers(
    done: tuple[Project, Finished], found: dict[str, Any], source: str
) -> None:
    import torch

    tokenizer, model = plain(*done, source)
    model.eval()
    rows = [json.loads(line) for line in (done[0].folder / "held-out.jsonl").read_text().splitlines()]
    texts, total, count = [], 0.0, 0
    for row in rows:
        inputs = tokenizer(row["prompt"], return_tensors="pt", truncation=True, max_length=32)
        labels = tokenizer(text_target=row["completion"], return_tensors="pt")["input_ids"]
        batch = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            total += model(**batch, labels=labels).loss.item() * labels.numel()
            ids = model.generate(**batch, max_new_tokens=8, do_sample=False)
        count += labels.numel()
        assert not set(ids[0].tolist()) & set(BANNED)
        texts.append(tokenizer.decode(ids[0], skip_special_tokens=True))
    assert found["metrics"]["loss"][source]["value"] == pytest.approx(total / count, abs=1e-5)
    shown = {sample["prompt"].strip(): sample["answers"][source] for sample in found["samples"]}
    assert shown == {row["prompt"].strip(): said for row, said in zip(rows, texts, strict=True)}


def test_training_is_seen_in_the_scores(found: dict[str, Any]) -> None:
    assert set(found["metrics"]) == {"loss", "perplexity", "exact-match", "rouge-1", "rouge-2", "rouge-L"}
    assert found["metrics"]["loss"]["difference"]["high"] < 0


def test_the_base_of_an_adapter_is_the_model_without_it(done: tuple[Project, Finished]) -> None:
    tuned = generator_of(done[1].folder)
    trained = done[1].folder.trained()
    assert trained is not None
    base = tuned.base()
    assert (base is None) is (trained.kind == "full")
    other = generator_of(done[1].folder, "base")
    prompts, sampling = [Prompt(text=row["prompt"]) for row in ROWS[:3]], Sampling(max_new_tokens=6)
    if base is not None:
        assert dict(base.complete(prompts, sampling)) == dict(other.complete(prompts, sampling))


def test_a_chat_asks_each_question_alone(done: tuple[Project, Finished]) -> None:
    generator: Any = generator_of(done[1].folder)
    assert "each question stands alone" in generator.advice
    asked = [{"role": "user", "content": ROWS[0]["prompt"]}]
    before = [{"role": "user", "content": "Say two."}, {"role": "assistant", "content": "two"}]
    alone, after = ("".join(generator.chat(each, Sampling(max_new_tokens=8))) for each in (asked, [*before, *asked]))
    assert alone == after
    whole = next(generator.complete([Prompt(text=ROWS[0]["prompt"])], Sampling(max_new_tokens=8)))[1][0]
    assert alone == whole.text
    assert whole.finished


def test_a_chat_refuses_what_training_would_have_cut(done: tuple[Project, Finished]) -> None:
    with pytest.raises(UsageError, match=r"the text has \d+ tokens: its rows had 32 at most"):
        next(generator_of(done[1].folder).chat([{"role": "user", "content": LONG["prompt"]}], Sampling()))
    picture = [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]
    with pytest.raises(UsageError, match="this model takes text only"):
        next(generator_of(done[1].folder).chat(picture, Sampling()))


def test_other_rows_are_asked_by_forge_eval(done: tuple[Project, Finished]) -> None:
    project, finished = done
    path = project.folder / "others.jsonl"
    path.write_text(json.dumps({"instruction": "Say it.", "input": "red", "output": "red"}) + "\n", encoding="utf-8")
    found = Evaluation(project, finished.folder).found('eval.path="others.jsonl"')
    assert found["samples"][0]["prompt"].startswith("Say it.")
    path.write_text(json.dumps({"text": "No question."}) + "\n", encoding="utf-8")
    wrong = Evaluation(project, finished.folder)('eval.path="others.jsonl"')
    assert wrong.code != 0
    assert "others.jsonl has rows of the format text" in wrong.error["what"]


def test_an_export_keeps_what_the_decoder_begins_with(done: tuple[Project, Finished]) -> None:
    folder = exported(done[1], 0).folder.path / "exports" / "1-merged"
    settings, config = json_of(folder / "generation_config.json"), json_of(done[0].folder / "model" / "config.json")
    assert settings["decoder_start_token_id"] == config["decoder_start_token_id"]
    trained = done[1].folder.trained()
    assert trained is not None
    report = json_of(folder / "export.json")["report"]
    assert trained.kind == "full" or report["error"] < 1e-4
    use(folder)


def test_the_card_says_how_to_load_the_model(done: tuple[Project, Finished]) -> None:
    trained = done[1].folder.trained()
    assert trained is not None
    use(done[1].folder.path / trained.weights)


def use(folder: Path) -> None:
    """Run what a model card says, and see that it gives the model."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: text2text-generation" in card
    code = card.partition("```python")[2].partition("```")[0].replace("path/to/this", str(folder))
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["model"].config.is_encoder_decoder


def test_a_saved_chat_is_a_row_to_train_on(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", make_t5(tmp_path / "t5"))
    talk = [
        {"role": role, "content": text} for role, text in (("system", "Short."), ("user", "Hi"), ("assistant", "Ho"))
    ]
    path = project.folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"messages": talk}) + "\n" for _ in range(4)), encoding="utf-8")
    project.write(train={"max_steps": 1, "save_steps": 1})
    assert project.perform().code == 0
    longer = json.dumps({"messages": [*talk, *talk[1:]]})
    path.write_text(longer + "\n", encoding="utf-8")
    done = project.perform()
    assert "an encoder-decoder model takes one text and answers with one" in str(done.error)


def test_nothing_is_longer_than_the_positions_that_a_model_has(tmp_path: Path) -> None:
    """By default rows may have 2048 tokens and answers 256; this BART has 64 positions."""
    project = Project(tmp_path / "project", make_bart(tmp_path / "bart"))
    rows = [{"prompt": "please " * 90, "completion": "one"} for _ in range(6)]
    path = project.folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"eval_size": 2, "on_long_row": "truncate"}
    tables: dict[str, Any] = {"data": data, "train": {"max_steps": 2, "save_steps": 2}}
    tables["eval"] = {"metrics": ["f1"]}
    project.write(model={"max_seq_length": 100}, **tables)
    said = project.forge("plan", "job.toml", code=2)
    assert "max_seq_length = 100 is beyond the model's 64 positions; write at most 64" in " ".join(said.split())
    project.write(model={"max_seq_length": None}, **tables)
    assert "model.max_seq_length = 64: the model has 64 positions" in project.forge("plan", "job.toml")
    done = project.perform()
    assert done.code == 0, done.printed
    assert done.of_kind("data")[0]["longest"] == 64
    found = Evaluation(project, done.folder).found()
    assert found["metrics"]["f1"]["tuned"]["n"] == 2


def test_relative_positions_are_no_limit(tmp_path: Path) -> None:
    """T5's config has ``n_positions``, which its layers do not look at."""
    project = Project(tmp_path / "project", make_t5(tmp_path / "t5"))
    row = {"prompt": "Hi?", "completion": "please " * 40}
    (project.folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 6, encoding="utf-8")
    project.write(model={"max_seq_length": 300}, train={"max_steps": 1, "save_steps": 1})
    done = project.perform()
    assert done.code == 0, done.printed
    rows = done.of_kind("data")[0]
    assert rows["truncated"] == 0
    assert rows["longest"] > 40, "the longer of the two texts"
    assert rows["longest"] * 6 == rows["supervised"] < rows["tokens"]


def test_an_answer_that_calls_tools_is_no_text(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", make_t5(tmp_path / "t5"))
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    (project.folder / "rows.jsonl").write_text(json.dumps({"messages": talk}) + "\n", encoding="utf-8")
    project.write(train={"max_steps": 1, "save_steps": 1})
    error = project.perform().error
    assert error["what"].endswith("has tools")
    assert "an encoder-decoder model calls none" in error["why"]


def test_texts_are_answered_together_whatever_room_the_decoder_has(done: tuple[Project, Finished]) -> None:
    generator: Any = generator_of(done[1].folder)
    calls, generate = [], generator._generate

    def seen(inputs: Any, *arguments: Any) -> Any:
        calls.append(len(inputs["input_ids"]))
        return generate(inputs, *arguments)

    generator._generate = seen
    prompts = [Prompt(text=row["prompt"]) for row in ROWS[:3]]
    assert len(dict(generator.complete(prompts, Sampling(max_new_tokens=100)))) == 3
    assert calls == [3]


def test_the_batches_of_a_loss_go_by_the_longer_text(done: tuple[Project, Finished]) -> None:
    generator: Any = generator_of(done[1].folder)
    shapes, sums = [], generator._sums

    def seen(logits: Any, labels: Any) -> Any:
        shapes.append(tuple(labels.shape))
        return sums(logits, labels)

    generator._sums = seen
    generator.losses([{"input_ids": [4, 2], "labels": [7] * length} for length in (60, 2, 60, 2)], batch_size=2)
    assert shapes == [(2, 60), (2, 2)]


@pytest.mark.parametrize("make", [make_t5, make_model], ids=["encoder-decoder", "decoder"])
def test_long_held_out_rows_are_dropped_where_the_job_says_so(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    project = Project(tmp_path / "project", make(tmp_path / "model"))
    for name, rows in (("rows", ROWS), ("held-out", [*ROWS[:5], LONG])):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (project.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    project.write(
        model={"max_seq_length": 32},
        data={"eval_path": "held-out.jsonl", "on_long_row": "drop"},
        train={"max_steps": 1, "save_steps": 1},
        eval={"max_new_tokens": 2},
    )
    done = project.perform()
    assert done.code == 0, done.printed
    found = Evaluation(project, done.folder).found()
    assert (found["rows"], found["report"]["bad"]) == (5, 1)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Hi\ud800", "completion": "a"}, "has half a character"),
        ({"prompt": "Hi", "completion": "a\0"}, "has a NUL character"),
        ({"prompt": "Hi <act>", "completion": "a"}, "has the token '<act>' with the id 400, and the model has 400"),
        ({"prompt": "Hi", "completion": "</s>"}, "is empty once it is rendered"),
    ],
)
def test_what_no_model_can_read_is_a_bad_row(tmp_path: Path, row: dict[str, str], words: str) -> None:
    from transformers import AutoTokenizer

    project = Project(tmp_path / "project", make_t5(tmp_path / "t5"))
    tokenizer = AutoTokenizer.from_pretrained(project.folder / "model")
    tokenizer.add_tokens(["<act>"])
    tokenizer.save_pretrained(project.folder / "model")
    (project.folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    project.write(train={"max_steps": 1, "save_steps": 1})
    assert f"rows.jsonl:1 {words}" in project.perform().error["what"]


def test_texts_that_are_cut_are_said_with_their_share(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", make_t5(tmp_path / "t5"))
    (project.folder / "rows.jsonl").write_text(json.dumps({**LONG, "completion": "five"}) + "\n", encoding="utf-8")
    project.write(model={"max_seq_length": 16}, train={"max_steps": 1, "save_steps": 1})
    assert "of all tokens of the training rows would be cut off" in project.perform().error["what"]
    project.write(model={"max_seq_length": 16}, train={"max_steps": 1, "save_steps": 1}, data={"on_long_row": "split"})
    with pytest.raises(UsageError, match="only plain texts become several rows"):
        project.perform()

"""Evaluations: what is asked, what is measured, and what is written down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Prompt, Sampling, Who
from forge.discovery.discover import discover
from forge.errors import ForgeError
from forge.machine.probe import probe
from forge.parent.after import finish
from support.evaluating import Evaluation, generator_of
from support.projects import Project, perform_in

if TYPE_CHECKING:
    from forge.disk.folder import RunFolder

MODELS = ("base", "tuned")


@pytest.fixture(scope="module")
def found(trained: tuple[Project, RunFolder]) -> dict[str, Any]:
    """One evaluation by every metric that needs no rewards."""
    names = ["exact-match", "f1", "rouge", "json", "./metrics.py:lengths", "./metrics.py:later"]
    return Evaluation(*trained).found(f"eval.metrics={json.dumps(names)}")


def test_base_and_tuned_are_measured_side_by_side_with_intervals(found: dict[str, Any]) -> None:
    assert list(found["models"]) == ["base", "tuned"]
    wanted = {"loss", "perplexity", "exact-match", "f1", "rouge-1", "rouge-2", "rouge-L", "json", "short", "characters"}
    assert set(found["metrics"]) == wanted | {"later"}
    for metric in found["metrics"].values():
        for model in MODELS:
            entry = metric[model]
            assert entry["n"] == 6
            assert entry["low"] <= entry["value"] <= entry["high"]
    assert found["metrics"]["loss"]["difference"]["high"] < 0, "training has lowered the loss on held-out rows"


def test_the_loss_is_that_of_the_tokens_that_training_learns_from(
    trained: tuple[Project, RunFolder], found: dict[str, Any]
) -> None:
    """Computed anew from the stored rows, one by one, with transformers alone."""
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    project, folder = trained
    model = AutoModelForCausalLM.from_pretrained(project.folder / "model")
    sums: dict[str, tuple[float, int]] = {}
    for name in MODELS:
        if name == "tuned":
            model = PeftModel.from_pretrained(model, folder.path / "adapter")
        total, count = 0.0, 0
        for row in Dataset.from_file(str(folder.path / "data" / "eval.arrow")):
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor([row["labels"]])
            asked = int((labels[:, 1:] != -100).sum())
            with torch.inference_mode():
                total += float(model(input_ids=ids, labels=labels).loss) * asked
            count += asked
        sums[name] = total, count
    for name, (total, count) in sums.items():
        assert found["metrics"]["loss"][name]["value"] == pytest.approx(total / count, rel=1e-5)
        assert found["metrics"]["perplexity"][name]["value"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_the_rows_asked_are_those_that_training_held_out(
    trained: tuple[Project, RunFolder], found: dict[str, Any]
) -> None:
    project, folder = trained
    origins = (folder.path / "data" / "eval.origins").read_text().split()
    rows = [json.loads(line)["messages"] for line in (project.folder / "rows.jsonl").read_text().splitlines()]
    assert found["rows"] == len(origins) == 6
    for sample in found["samples"]:
        assert sample["origin"] in origins
        question, answer = rows[int(sample["origin"].rpartition(":")[2]) - 1]
        assert (sample["prompt"], sample["reference"]) == (question["content"], answer["content"])
        assert set(sample["answers"]) == {"base", "tuned"}


def test_answers_are_greedy_and_those_of_plain_transformers(
    trained: tuple[Project, RunFolder], found: dict[str, Any]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    project, folder = trained
    tokenizer = AutoTokenizer.from_pretrained(project.folder / "model")
    model = AutoModelForCausalLM.from_pretrained(project.folder / "model")
    for name in MODELS:
        if name == "tuned":
            model = PeftModel.from_pretrained(model, folder.path / "adapter")
        for sample in found["samples"]:
            asked = [{"role": "user", "content": sample["prompt"]}]
            inputs = tokenizer.apply_chat_template(
                asked, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
            said = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            assert sample["answers"][name] == said


def test_the_weights_are_not_touched_and_the_card_tells_of_it(evaluate: Evaluation) -> None:
    done = evaluate()
    path = done.folder.path
    assert (path / "trained.json").read_bytes() == (evaluate.folder.path / "trained.json").read_bytes()
    done.folder.check_trained()
    card = (path / "README.md").read_text(encoding="utf-8")
    assert "## Evaluation" in card
    assert "On 6 held-out rows, greedy answers" in card
    assert "| metric | base | tuned | tuned - base | rows |" in card
    event = done.of_kind("evaluated")[-1]
    assert event["metrics"]["f1"]["tuned"]["n"] == 6
    assert event["samples"]
    assert "evaluate" in [each["stage"] for each in done.of_kind("stage")]


def test_the_base_model_is_loaded_once_for_both(evaluate: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    from forge_huggingface.generation import load

    seen: list[str] = []
    read = load.read_model
    monkeypatch.setattr(load, "read_model", lambda *given, **named: seen.append(given[2]) or read(*given, **named))
    evaluate.found()
    assert len(seen) == 1


def test_trained_biases_make_the_base_a_model_of_its_own(project: Project) -> None:
    project.write(data={"eval_size": 4}, eval={"max_new_tokens": 2}, adapter={"bias": "all"})
    done = project.perform()
    assert done.code == 0, done.printed
    both = Evaluation(project, done.folder).found()
    alone = Evaluation(project, done.folder).found(models=[Who.BASE])
    assert both["metrics"]["loss"]["base"] == alone["metrics"]["loss"]["base"]


def test_a_model_of_which_every_weight_was_trained_is_compared_with_its_base(project: Project) -> None:
    project.write(
        adapter={"type": "none", "r": None, "lora_alpha": None}, data={"eval_size": 4}, eval={"max_new_tokens": 2}
    )
    done = project.perform()
    assert done.code == 0, done.printed
    loss = Evaluation(project, done.folder).found()["metrics"]["loss"]
    assert loss["tuned"]["value"] < loss["base"]["value"]


def test_fewer_rows_are_drawn_by_the_seed(evaluate: Evaluation) -> None:
    first, again, other = (
        evaluate.found("eval.max_rows=3", f"eval.seed={seed}", "eval.samples=9") for seed in (1, 1, 5)
    )
    assert first["rows"] == 3
    assert first["report"]["read"] == 6
    assert [each["origin"] for each in first["samples"]] == [each["origin"] for each in again["samples"]]
    assert [each["origin"] for each in first["samples"]] != [each["origin"] for each in other["samples"]]


def test_batches_do_not_change_what_is_found(evaluate: Evaluation) -> None:
    one, all_ = (evaluate.found(f"eval.batch_size={size}", "eval.samples=6") for size in (1, 8))
    assert one["samples"] == all_["samples"]
    for model in MODELS:
        first, second = (found["metrics"]["loss"][model]["value"] for found in (one, all_))
        assert first == pytest.approx(second, rel=1e-5)


def test_other_rows_of_another_format_can_be_asked(evaluate: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "others.jsonl"
    levels = ["hard", "easy", "hard", "easy"]
    rows = [{"question": f"Name a {level} colour.", "answer": "Red", "level": level} for level in levels]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = evaluate.found(
        f"eval.path={json.dumps(str(path))}", 'eval.metrics=["./metrics.py:needs_level"]', "eval.base=false"
    )
    assert found["report"]["source"] == str(path)
    assert found["metrics"]["needs_level"]["tuned"]["value"] == 0.5
    assert list(found["models"]) == ["tuned"]
    assert "difference" not in found["metrics"]["loss"]


def test_plain_texts_have_a_loss_and_nothing_to_answer(evaluate: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "The sea is wide."}\n{"text": "The wind is cold in the morning."}\n')
    found = evaluate.found(f"eval.path={json.dumps(str(path))}", "eval.metrics=[]")
    assert found["metrics"]["loss"]["base"]["n"] == 2
    assert found["samples"] == []
    failed = evaluate(f"eval.path={json.dumps(str(path))}", 'eval.metrics=["f1"]')
    assert "has no rows to ask" in failed.error["what"]


def test_prompts_and_completions_as_plain_strings_begin_as_in_training(evaluate: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "completions.jsonl"
    path.write_text(json.dumps({"prompt": "The capital of France is", "completion": " Paris."}) + "\n")
    found = evaluate.found(f"eval.path={json.dumps(str(path))}")
    sample = found["samples"][0]
    assert (sample["prompt"], sample["reference"]) == ("The capital of France is", " Paris.")


def test_the_better_answer_of_a_pair_is_the_reference(evaluate: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "Name a colour.", "chosen": "Red", "rejected": "Dog"}) + "\n")
    found = evaluate.found(f"eval.path={json.dumps(str(path))}")
    assert found["samples"][0]["reference"] == "Red"
    assert found["metrics"]["loss"]["tuned"]["n"] == 1


def test_without_metrics_only_the_kept_rows_are_answered(evaluate: Evaluation) -> None:
    found = evaluate.found("eval.metrics=[]", "eval.samples=2")
    assert found["models"]["tuned"]["answers"] == len(found["samples"]) == 2
    assert set(found["metrics"]) == {"loss", "perplexity"}


# Drawing


def test_drawn_answers_are_repeatable_and_counted(trained: tuple[Project, RunFolder]) -> None:
    generator = generator_of(trained[1])
    prompts = [Prompt(text="The capital of"), Prompt(text="Count to five:")]
    drawn = Sampling(max_new_tokens=6, temperature=1.0, seed=7)
    first, again = (dict(generator.complete(prompts, drawn, count=3)) for _ in range(2))
    assert first == again
    assert all(len(answers) == 3 for answers in first.values())
    assert len({answer.text for answer in first[0]}) > 1
    other = dict(generator.complete(prompts, Sampling(max_new_tokens=6, temperature=1.0, seed=8), count=3))
    assert other != first


def test_a_presence_penalty_takes_back_what_was_said(trained: tuple[Project, RunFolder]) -> None:
    generator: Any = generator_of(trained[1])
    inputs = generator._encode([Prompt(text="The capital of")])
    width = inputs["input_ids"].shape[1]
    repeated, fresh = (
        generator._generate(inputs, Sampling(max_new_tokens=24, presence_penalty=penalty), 1)[0, width:].tolist()
        for penalty in (0.0, 1e6)
    )
    assert len(set(repeated)) < len(repeated)
    assert len(set(fresh)) == len(fresh), "with an endless penalty no token comes twice"


def test_a_presence_penalty_does_not_count_the_prompt() -> None:
    import torch

    from forge_huggingface.generation.steering import presence

    scores = presence(2.0, 3)(torch.tensor([[5, 6, 7, 8, 8], [1, 2, 3, 4, 5]]), torch.zeros(2, 10))
    assert scores.nonzero().tolist() == [[0, 8], [1, 4], [1, 5]]
    assert set(scores[scores != 0].tolist()) == {-2.0}


def test_pass_at_k_counts_answers_that_rewards_accept(evaluate: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    from forge_huggingface.functions.signature import of_function
    from forge_huggingface.rewards import load as rewards
    from forge_huggingface.rewards.reward import Reward

    def even(*, completions: list[Any], prompts: list[Any]) -> list[float]:
        assert all(said[0]["role"] == "assistant" for said in completions)
        assert prompts[0][-1]["role"] == "user"
        return [float(index % 2 == 0) for index in range(len(completions))]

    reward = Reward(name="even", weight=2.0, use="even", place="job.toml:1", function=even, signature=of_function(even))
    monkeypatch.setattr(rewards, "load", lambda *_: [reward])
    monkeypatch.setattr("forge_huggingface.evaluation_problems", lambda _: [])
    found = evaluate.found('eval.metrics=["pass@1", "pass@2"]', "eval.num_generations=4", "eval.temperature=1.0")
    assert found["metrics"]["pass@1"]["tuned"]["value"] == pytest.approx(0.5)
    assert found["metrics"]["pass@2"]["tuned"]["value"] == pytest.approx(1 - 1 / 6)
    assert found["report"]["num_generations"] == 4


def test_memory_that_is_short_halves_the_batches(
    trained: tuple[Project, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_huggingface.generation.generator import ModelGenerator

    generate, widths = ModelGenerator._generate, []

    def small(self: Any, inputs: Any, *given: Any, **named: Any) -> Any:
        widths.append(len(inputs["input_ids"]))
        if len(inputs["input_ids"]) > 2:
            raise RuntimeError("CUDA out of memory")
        return generate(self, inputs, *given, **named)

    monkeypatch.setattr(ModelGenerator, "_generate", small)
    generator = generator_of(trained[1])
    found = dict(generator.complete([Prompt(text=f"Count to {n}") for n in range(5)], Sampling(max_new_tokens=2)))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert widths == [5, 2, 2, 1]


# What can go wrong


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("broken", ("IndexError", "metrics.py:7", "row rows.jsonl:")),
        ("needs_level", ("needs the column level", "rows.jsonl:")),
        ("no_list", ("it returned float",)),
    ],
)
def test_a_function_that_fails_is_named_with_row_and_line(
    evaluate: Evaluation, metric: str, words: tuple[str, ...]
) -> None:
    error = evaluate(f'eval.metrics=["./metrics.py:{metric}"]').error
    assert f"./metrics.py:{metric} failed" in error["what"]
    for word in words:
        assert word in error["why"]


def test_a_function_is_tried_before_training(project: Project) -> None:
    project.write(data={"eval_size": 4}, eval={"metrics": ["./metrics.py:broken"]})
    run, folder = project.prepare()
    done = perform_in(run, folder)
    assert done.code == 2
    assert "the evaluation after training would fail" in done.error["why"]
    assert "metrics.py:7" in done.error["why"]
    assert not done.of_kind("loaded"), "no model has been loaded"


def test_rows_that_are_not_there_are_told_before_training(project: Project) -> None:
    project.write(eval={"path": "nowhere.jsonl"})
    done = project.perform()
    assert done.code == 2
    assert "nowhere.jsonl was not found" in done.error["why"]


def test_an_evaluation_that_fails_costs_neither_weights_nor_exports(project: Project) -> None:
    text = (project.folder / "metrics.py").read_text()
    once = "\n\ndef once(*, completions, references):\n    assert completions == references\n    return [1.0]\n"
    (project.folder / "metrics.py").write_text(text + once.replace("[1.0]", "[1.0 for _ in references]"))
    metrics = {"metrics": ["./metrics.py:once"], "max_new_tokens": 2, "base": False}
    project.write(data={"eval_size": 4}, eval=metrics, export=[{"format": "adapter"}])
    done = project.perform()
    assert done.code == 0, done.printed
    shown: list[Any] = []
    with pytest.raises(ForgeError) as caught:
        finish(done.folder, discover({}), probe(), shown.append)
    assert "trained and safe" in caught.value.what
    assert "AssertionError at metrics.py:" in str(caught.value)
    assert f"forge eval {done.folder.path}" in str(caught.value)
    assert any("the evaluation failed" in event.values.get("message", "") for event in shown)
    assert (done.folder.path / "exports" / "1-adapter" / "export.json").exists()
    assert done.folder.evaluation() is None


def test_rows_of_tokens_have_a_loss_and_nothing_to_answer(evaluate: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "ids.jsonl"
    path.write_text('{"input_ids": [300, 301, 302, 2]}\n{"input_ids": [300, 301, 302], "labels": [-100, 301, 302]}\n')
    found = evaluate.found(f"eval.path={json.dumps(str(path))}", "eval.metrics=[]")
    assert found["metrics"]["loss"]["base"]["n"] == 2
    assert found["samples"] == []


def test_held_out_rows_that_are_cut_are_said(evaluate: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    turns = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": "one, two, " * 90}]
    path.write_text(json.dumps({"messages": turns}) + "\n")
    done = evaluate(f"eval.path={json.dumps(str(path))}", "eval.metrics=[]")
    assert any("cut at max_seq_length: 1 row" in note["message"] for note in done.of_kind("note"))

"""Mistakes of ``[eval]``: told before anything is trained, with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import JobError, PlanError
from forge.job.job import dump_job, load_job
from forge.job.read import parse
from forge.machine.presets import PRESETS
from forge.model.facts import ModelFacts
from forge.planning.planner import make_plan
from support.evaluating import METRICS

FACTS = ModelFacts(id="m", source="unknown", task="text")


def told(folder: Path, *lines: str, data: str = 'eval_path = "e.jsonl"') -> str:
    """Return what planning says about a job whose ``[eval]`` begins in line 6, or nothing."""
    text = "\n".join(["[model]", 'id = "m"', "[data]", f'path = "d.jsonl"\n{data}', "[eval]", *lines]) + "\n"
    catalogue = discover({})
    try:
        make_plan(parse(text, "job.toml", folder, PluginKeys(catalogue)), catalogue, PRESETS["linux-cpu"], FACTS)
    except JobError as error:
        return str(error)
    return ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "metrics.py").write_text(METRICS)
    return tmp_path


def test_what_is_right_is_planned(folder: Path) -> None:
    assert not told(folder, 'metrics = ["exact-match", "f1", "rouge", "json", "./metrics.py:lengths"]')
    assert not told(folder, 'path = "other.jsonl"', data="max_rows = 3")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('metrics = ["exact_match"]', 'there is no metric "exact_match"; did you mean "exact-match"?'),
        ('metrics = ["bleurt"]', "there are: exact-match, f1, rouge, json, pass@k, file.py:function"),
        ('metrics = ["pass@0"]', 'there is no metric "pass@0"'),
        ('metrics = ["pass@1"]', "pass@1 needs something that says which answers pass; write [[train.reward]]"),
        ('metrics = ["./metrcs.py:lengths"]', "did you mean metrics.py?"),
        ('metrics = ["./metrics.py:length"]', "./metrics.py has no function length; did you mean lengths?"),
        ('metrics = ["./metrics.py"]', 'names no function of ./metrics.py; write "./metrics.py:lengths"'),
        ('metrics = ["./metrics.py:no_completions"]', "no_completions takes no completions"),
        ('metrics = ["nowhere.metrics:fn"]', "there is no module nowhere"),
        ('metrics = ["f1", "f1"]', "metrics names one of them twice"),
        ('metrics = ["pass@4"]', "greedy ones would all be alike"),
        ('metrics = ["pass@4"]\nnum_generations = 2', "num_generations is 2, and pass@4 needs 4"),
        ("tempereture = 1.0", "unknown key; did you mean temperature?"),
        ("temperature = -1.0", "must be at least 0"),
        ("max_new_tokens = 0", "must be at least 1"),
        ('sampling = "nucleus"', '"greedy" or "recommended"'),
    ],
)
def test_a_mistake_is_told_with_its_line(folder: Path, line: str, words: str) -> None:
    said = told(folder, line)
    assert words in said
    assert "job.toml:7: eval" in said or "job.toml:8: eval" in said


def test_no_held_out_rows_are_told(folder: Path) -> None:
    said = told(folder, 'metrics = ["f1"]', data="max_rows = 3")
    assert "job.toml:6: eval: there are no held-out rows to ask; write [data] eval_path, eval_split" in said


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    said = told(folder, 'metrics = ["f2", "./metrics.py:nothing", "pass@1"]', data="max_rows = 3")
    assert said.startswith("job.toml has 4 mistakes")


def test_an_evaluation_and_how_to_answer_do_not_change_what_is_trained(folder: Path) -> None:
    plain = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\neval_size = 2\n'
    with_eval = f'{plain}[eval]\nmetrics = ["f1"]\n[generation]\ntemperature = 0.5\n'
    first, second = (parse(text, "job.toml", folder, PluginKeys(discover({}))).job for text in (plain, with_eval))
    assert first.digest() == second.digest()
    assert load_job(dump_job(second)) == second
    assert second.to_toml()["generation"] == {"temperature": 0.5, "cuda_graph": True}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[model]\npresence_penalty = 0.5\n", "presence_penalty belongs to [eval] or [generation]"),
        ("[model]\nseed = 1\n", "seed belongs to [train]"),
        ("[evaluation]\nbase = true\n", "evaluation: is not a key of this table; write [eval]"),
    ],
)
def test_keys_of_these_tables_are_known_elsewhere(folder: Path, text: str, words: str) -> None:
    head = "" if text.startswith("[model]") else '[model]\nid = "m"\n'
    with pytest.raises(JobError) as caught:
        parse(f'{head}{text}[data]\npath = "d.jsonl"\n', "job.toml", folder, PluginKeys(discover({})))
    assert words in str(caught.value)


def test_a_model_that_gives_numbers_is_not_asked_for_answers(folder: Path) -> None:
    text = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\neval_size = 2\n[train]\nmethod = "reward"\n[eval]\n'
    catalogue = discover({})
    file = parse(text, "job.toml", folder, PluginKeys(catalogue))
    with pytest.raises(PlanError, match="gives numbers and no answers"):
        make_plan(file, catalogue, PRESETS["linux-cpu"], FACTS)


def test_the_rewards_of_the_job_say_which_answers_pass(folder: Path) -> None:
    from forge_huggingface.evaluation.judge import Judge
    from forge_huggingface.evaluation.questions import Question

    text = (
        '[model]\nid = "m"\n[data]\npath = "d.jsonl"\neval_size = 2\n[train]\nmethod = "grpo"\n'
        '[[train.reward]]\nuse = "regex"\nargs = { pattern = "^yes" }\n'
        '[eval]\nmetrics = ["pass@1", "pass@2"]\ntemperature = 1.0\n'
    )
    job = parse(text, "job.toml", folder, PluginKeys(discover({}))).job
    judge = Judge(job, None)  # type: ignore[arg-type]  # a run is only for the lines of messages
    asked = [{"role": "user", "content": "Is it?"}]
    questions = [Question(origin=f"d.jsonl:{number}", asked=asked) for number in (1, 2)]
    assert judge.count == 2
    found = judge.judge(questions, [["yes, it is", "no"], ["no", "well"]])
    assert found == {"pass@1": [0.5, 0.0], "pass@2": [1.0, 0.0]}

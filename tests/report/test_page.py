"""The page about a run: whole in every state, honest about what was measured, and harmless whatever it shows."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from forge.api import Estimate, Part, SpeedMeasured
from forge.cli import cli
from forge.disk.checkpoints import mark
from forge.errors import RunError, UsageError
from forge.text.memory import verdict
from forge_report.page import render, write_report
from forge_report.record import SAMPLES
from forge_report.verdict import healthy, learned
from support.pages import Page

if TYPE_CHECKING:
    from support.pages import Run

EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"' onmouseover=alert(1) \u202egnp.exe\x00\udce9"


def entry(value: float) -> dict[str, Any]:
    return {"value": value, "stderr": 0.01, "low": value - 0.05, "high": value + 0.05, "n": 50, "share": False}


def texts(findings: Any, level: str | None = None) -> str:
    return "\n".join(each.text for each in findings if level in {None, each.level})


# Every state that a run can be in.


def test_a_run_that_has_not_begun_shows_its_plan_and_how_to_run_it(run: Run) -> None:
    page = run.page
    assert page.titles == ["Did it learn?", "Is it healthy?", "Plan", "Model and machine", "Exports", "Repeat it"]
    assert "Nothing was trained yet" in page.words
    assert "forge resume" in page.words


def test_the_plan_is_shown_with_reasons_decisions_and_what_the_job_says(run: Run) -> None:
    words = run.page.words
    for decision in run.plan.decisions:
        assert decision.key in words
        assert decision.reason in words
    for each in run.plan.verdicts:
        assert each.reason in words
    assert re.search(r"train\.learning_rate\s*3e-4", words)


def test_a_finished_run_has_its_curves_rows_history_and_exports(run: Run) -> None:
    run.begin()
    for step in range(1, 11):
        run.step(step, 2 / step, grad_norm=0.5, learning_rate=1e-4, tokens_per_second=100.0, memory=2**30 + step)
        if step % 5 == 0:
            run.tell("eval", step=step, of=10, eval_loss=3 / step, eval_runtime=1.0)
            run.tell("checkpoint", step=step, path="x", bytes=2048, seconds=0.25)
    run.tell("done", task="train").trained()
    summary = {
        "read": 9,
        "rows": 8,
        "tokens": 99,
        "supervised": 50,
        "share": 0.5,
        "longest": 12,
        "truncated": 1,
        "dropped": 1,
        "dropped_bad": 1,
        "dropped_long": 0,
        "dropped_first": ["rows.jsonl:3 has no answer"],
        "eval": {"eval": {"rows": 2, "tokens": 20}},
    }
    run.file("data.json", {"digest": "d1", "summary": summary})
    files = {"model.safetensors": {"bytes": 1024, "sha256": "ab12"}}
    export = {"format": "merged", "url": None, "report": {"kl_mean": 2.5e-8, "top1": 1.0}, "files": files}
    run.file("exports/1-merged/export.json", export)
    path = run.folder.checkpoints / "checkpoint-10"
    path.mkdir(parents=True)
    (path / "weights").write_text("x")
    mark(path)
    page = run.page
    assert page.titles[2:] == ["Curves", "Plan", "Data", "Model and machine", "History", "Exports", "Repeat it"]
    for said in (
        "trained",
        "Held-out loss fell from 0.6 at step 5 to 0.3 at step 10 (-50 %).",
        "Gradient norm",
        "Learning rate",
        "Throughput",
        "Memory at the peak",
        "rows.jsonl:3 has no answer",
        "2.5e-8",
        "ab12",
        "5ea1",
        "2 checkpoints were written",
        "checkpoint-10 (",
        "1 of 9 rows were dropped (1 bad, 0 too long)",
        "forge export",
    ):
        assert said in page.words, said


def test_a_dry_run_tells_how_long_training_would_take(run: Run) -> None:
    run.begin().tell("dry-run", steps=40, seconds_per_step=3.0, memory=2**30).tell("done", task="dry-run")
    assert re.search(r"training would take\s*2:00 min", run.page.words)


def test_memory_is_told_as_estimated_and_as_measured(run: Run) -> None:
    plan = json.loads((run.folder.path / "plan.json").read_text())
    part = Part("weights", 2**30, "estimated")
    made = Estimate(parts=(part,), peak=2**30, process=2**31, room=2**33, device="cpu", batch="1 row")
    run.file("plan.json", {**plan, "estimate": made.to_json()}).begin()
    run.tell("dry-run", steps=1, estimate=made.to_json(), measured={"weights": 2**29, "peak": 2**31})
    words = run.page.words
    assert verdict(made) in words
    assert "512.0 MiB measured, 1.0 GiB estimated" in words


def test_what_the_time_went_into_is_shown(run: Run) -> None:
    run.begin()
    speed = SpeedMeasured(first=3.0, steps=10, seconds=5.0, tokens_per_second=200.0, padding=0.2, padded=1250)
    run.log.append(speed)
    words = run.page.words
    assert "Time and speed" in words
    assert "200 a second; 250 with padding, which is 20 %" in words
    assert "first step" in words


def test_a_failed_run_says_first_what_failed(run: Run) -> None:
    run.begin().step(1)
    error = {"type": "OutOfMemory", "what": "out of memory", "why": "8 GiB are too few", "do": "set `max_seq_length`"}
    run.tell("failed", error=error)
    assert texts(healthy(run.record), "bad") == (
        "Training at step 1 failed: out of memory: 8 GiB are too few; set `max_seq_length`"
    )
    assert "failed" in run.page.words


def test_a_worker_that_fails_before_its_first_stage_is_shown(run: Run) -> None:
    run.tell("failed", error={"what": "cannot import unsloth", "why": None, "do": None})
    assert [session.end for session in run.record.sessions] == ["failed"]
    assert "cannot import unsloth" in run.page.words


def test_a_killed_run_is_told_from_one_that_still_runs(run: Run) -> None:
    run.begin().step(1)
    assert "Training at step 1 ended without a word" in texts(healthy(run.record), "bad")
    with run.folder.own():
        assert "under way" in texts(healthy(run.record), "plain")
        assert "running" in run.page.words


def test_steps_that_were_trained_again_after_a_resume_count_once(run: Run) -> None:
    run.begin()
    for step in range(1, 8):
        run.step(step, 9.0)
    run.tell("note", message="going on from checkpoint-4").begin(4)
    for step in range(5, 11):
        run.step(step, 1.0)
    run.tell("done", task="train").trained()
    record = run.record
    assert record.steps["loss"].x == list(range(1, 11))
    assert record.steps["loss"].y == [9.0] * 4 + [1.0] * 6
    assert (record.resumes, record.again) == ([4], 3)
    assert [(session.start, session.step, session.end) for session in record.sessions] == [
        (0, 7, "no word"),
        (4, 10, "done"),
    ]
    assert "Training went on from step 4; 3 logged steps were trained again." in texts(healthy(record))
    assert not texts(healthy(record), "bad")
    assert "went on from step 4" in render(record)


def test_an_evaluation_and_exports_are_sessions_of_their_own(run: Run) -> None:
    run.begin().tell("done", task="train")
    run.tell("stage", stage="evaluate", state="started").tell("stage", stage="generate", state="started")
    run.tell("stage", stage="generate", state="finished", seconds=2.0).tell("done", task="eval")
    run.tell("stage", stage="export", state="started").tell("stopped", message="stopped before the export was whole")
    assert [(each.task, each.end) for each in run.record.sessions] == [
        ("training", "done"),
        ("evaluation", "done"),
        ("export", "stopped"),
    ]


# What cannot be drawn, read or trusted.


def test_what_is_not_finite_is_drawn_as_a_gap_and_told_as_a_problem(run: Run) -> None:
    run.begin()
    for step, loss in enumerate([1.0, math.nan, math.inf, 2.0], start=1):
        run.step(step, loss)
    with run.folder.events.open("a") as file:
        file.write(
            '{"kind": "step", "step": 5, "loss": NaN}\n{"kind": "step", "step": 6, "loss": 1' + "0" * 400 + "}\n"
        )
    assert "loss was NaN or infinite at 4 of 6 logged steps, first at 2" in texts(healthy(run.record), "bad")
    assert "loss was not finite at 4 of 6 logged steps: 2, 3, 5, 6." in run.page.words


def test_nothing_that_a_run_holds_becomes_markup(run: Run) -> None:
    run.tell("loaded", device=EVIL).tell("adapted", targets=[EVIL], type=EVIL)
    run.tell("warning", message=EVIL, do=EVIL).tell("note", message=EVIL)
    run.begin().step(1, **{EVIL: 1.0})
    run.tell("answers", step=1, answers=[{"prompt": EVIL, "completion": EVIL, "rewards": {EVIL: 1.0}, EVIL: EVIL}])
    run.tell("eval", step=1, **{f"eval_{EVIL}_loss": 1.0})
    run.tell("failed", error={"what": EVIL, "why": EVIL, "do": EVIL})
    evil = EVIL.replace("\udce9", "")
    source = {"path": evil, "format": evil, "columns": {evil: evil}}
    summary = {"rows": 1, evil: evil, "sources": [source], "dropped_first": [evil], "eval": {evil: {"rows": 1}}}
    run.file("data.json", {"digest": evil, "summary": summary})
    files = {evil: {"bytes": 1, "sha256": evil}}
    export = {"format": evil, "url": f"javascript:{evil}", "report": {evil: evil}, "files": files}
    run.file("exports/1-merged/export.json", export)
    samples = [{"prompt": evil, "answers": {evil: evil}}]
    measured = {"metrics": {evil: {evil: entry(1.0)}}, "models": {evil: {}}, "report": {evil: evil}}
    run.file("evaluation.json", {"rows": 1, "samples": samples, **measured})
    (run.folder.path / "job.lock.toml").write_text(evil)
    plan = json.loads((run.folder.path / "plan.json").read_text())
    for step in plan["steps"]:
        step |= {"plugin": evil, "label": evil, "impl": evil}
    plan |= {"notes": [evil], "overrides": [evil], "named": [evil]}
    plan["machine"]["versions"] = {evil: evil}
    plan["facts"]["id"] = evil
    run.file("plan.json", plan)
    page = run.page
    assert page.words.count("<script>alert(1)</script>") > 20
    assert "\u202e" not in page.words
    assert "\\u202egnp.exe\\u0000\\udce9" in page.words
    write_report(run.folder).read_text(encoding="utf-8")


def test_the_page_loads_nothing_and_forbids_it(run: Run) -> None:
    text = render(run.begin().step(1).record)
    assert "default-src 'none'" in text
    assert not re.search(r"https?://|url\(|@import", text)


def test_damaged_files_are_named_and_the_rest_is_shown(run: Run) -> None:
    run.begin().step(1).step(2)
    (run.folder.path / "data.json").write_text('{"digest": ')
    (run.folder.path / "plan.2.json").write_text("[")
    (run.folder.path / "exports" / "1-merged").mkdir(parents=True)
    with run.folder.events.open("a") as file:
        file.write('[1]\n{"kind": "step"}\n{"kind": "step", "step": "3", "loss": 1}\nhalf a li')
    told = texts(healthy(run.record), "warn")
    assert "data.json cannot be read: it is damaged" in told
    assert "plan.2.json cannot be read: it is damaged" in told
    assert "Export 1-merged is not whole" in told
    assert {"Curves", "Plan", "History"} <= set(run.page.titles)


def test_a_plan_of_another_version_is_shown_as_far_as_it_can_be(run: Run) -> None:
    plan = json.loads((run.folder.path / "plan.json").read_text())
    run.file("plan.json", {**plan, "schema": 99, "steps": 3}).begin().step(1)
    page = Page(render(run.record))
    assert "unknown" in page.words
    assert "This part cannot be shown, for a file of the run is not as forge" in page.words
    assert {"Curves", "Plan", "Repeat it"} <= set(page.titles)


# What the numbers say.


def test_a_training_loss_alone_does_not_count_as_learning(run: Run) -> None:
    run.begin()
    for step in range(1, 11):
        run.step(step, 1 / step)
    found = learned(run.record)
    assert not texts(found, "good")
    assert "do not tell learning from memorizing" in texts(found, "warn")


def test_a_held_out_loss_that_rises_again_is_told_with_what_keeps_the_best(run: Run) -> None:
    run.begin()
    for step, loss in ((2, 2.0), (4, 1.0), (6, 1.5)):
        run.tell("eval", step=step, eval_loss=loss)
    told = texts(learned(run.record), "warn")
    assert "It was lowest, 1, at step 4 and has risen since (+50 %); `load_best_model_at_end = true`" in told


def test_a_held_out_loss_that_rose_is_a_warning(run: Run) -> None:
    run.begin().tell("eval", step=1, eval_loss=1.0).tell("eval", step=2, eval_loss=2.0)
    assert "Held-out loss rose from 1 at step 1 to 2 at step 2 (+100 %)." in texts(learned(run.record), "warn")


def test_answers_that_were_cut_are_told_as_the_command_tells_them(run: Run) -> None:
    run.begin().step(1)
    found = {
        "rows": 4,
        "models": {"base": {"answers": 4, "finished": 0.5}, "tuned": {"answers": 4, "finished": 1.0}},
        "metrics": {},
        "samples": [],
        "report": {"sampling": {"max_new_tokens": 48}},
    }
    (run.folder.path / "evaluation.json").write_text(json.dumps(found))
    told = texts(healthy(run.record), "warn")
    assert "In the evaluation of base, 50% of the answers were cut at max_new_tokens (48)" in told
    assert "tuned" not in told


def test_with_rewards_the_reward_is_what_counts(run: Run) -> None:
    run.begin()
    for step in range(1, 31):
        run.step(step, 0.0, reward=step / 30, frac_reward_zero_std=0.9, **{"rewards/exact/mean": 0.5, "kl": 0.1})
    assert "Reward rose from 0.06667 to 0.9667 (means of the first and the last 3 logged steps)." in texts(
        learned(run.record), "good"
    )
    assert "Training loss" not in texts(learned(run.record))
    assert "did not differ in reward in 90% of the groups" in texts(healthy(run.record), "warn")
    words = run.page.words
    assert re.search(r"groups that differ\s*10%\s*was 10%", words)
    assert words.index("Reward by function") < words.index("KL to the reference")
    assert re.search(r"Curves\s*Reward", words)


def test_steps_without_a_reward_are_told_as_such_and_not_as_numbers_that_are_none(run: Run) -> None:
    run.begin()
    for step in range(1, 5):
        run.step(step, 0.0, reward=None if step > 1 else 0.5, **{"completions/clipped_ratio": step / 4})
    told = texts(healthy(run.record))
    assert "At 3 of 4 logged steps no answer had a reward, so nothing was learned there" in told
    assert "NaN" not in told
    assert re.search(r"answers cut\s*100%\s*was 25%", run.page.words)


def test_what_speaks_against_the_weights_is_the_first_thing_that_is_said(run: Run) -> None:
    run.begin().step(1, 2.0).step(2, 1.0)
    found = {"weights": "adapter", "warnings": ["nothing was learned: no weight changed"]}
    (run.folder.path / "trained.json").write_text(json.dumps(found), encoding="utf-8")
    first = learned(run.record)[0]
    assert (first.level, first.text) == ("bad", "Nothing was learned: no weight changed.")


@pytest.mark.parametrize(
    ("name", "values", "interval", "level"),
    [
        ("exact-match", (0.1, 0.9), (0.6, 0.9), "good"),
        ("exact-match", (0.9, 0.1), (-0.9, -0.6), "warn"),
        ("exact-match", (0.5, 0.6), (-0.1, 0.3), "plain"),
        ("loss", (2.0, 1.0), (-1.2, -0.8), "good"),
        ("loss", (1.0, 2.0), (0.8, 1.2), "warn"),
        ("./mine.py:score", (1.0, 2.0), (0.8, 1.2), "plain"),
    ],
)
def test_metrics_of_base_and_tuned_model_are_compared(
    run: Run, name: str, values: tuple[float, float], interval: tuple[float, float], level: str
) -> None:
    run.begin().step(1).step(2).tell("done", task="train")
    (base, tuned), (low, high) = values, interval
    run.file(
        "evaluation.json",
        {
            "rows": 50,
            "models": {"base": {"seconds": 2.0}, "tuned": {"seconds": 1.0}},
            "metrics": {
                name: {
                    "base": entry(base),
                    "tuned": entry(tuned),
                    "difference": {**entry(tuned - base), "low": low, "high": high},
                }
            },
            "samples": [
                {
                    "origin": "rows.jsonl:1",
                    "prompt": f"question {row}",
                    "reference": None,
                    "answers": {"base": "worse", "tuned": "better"},
                }
                for row in range(5)
            ],
            "report": {"sampling": "greedy"},
        },
    )
    assert name in texts(learned(run.record), level)
    page = run.page
    assert {"Metrics", "Before and after"} <= set(page.titles)
    assert "Measured on 50 held-out rows" in page.words
    assert "question 4" in page.words
    assert page.words.index("worse") < page.words.index("better")
    run.file("evaluations/other.json", json.loads((run.folder.path / "evaluation.json").read_text()))
    assert "other" in run.page.words


def test_the_first_and_the_last_answers_of_a_long_training_are_kept(run: Run) -> None:
    run.begin()
    for step in range(1, 101):
        run.tell("answers", step=step, answers=[{"prompt": "p", "completion": f"answer {step}", "rewards": {"f": 0.5}}])
    steps = [sample["step"] for sample in run.record.samples]
    half = SAMPLES // 2
    assert steps == [*range(1, half + 1), *range(101 - half, 101)]
    assert "Answers while training" in run.page.titles


def test_a_text_without_end_is_cut_and_that_is_said(run: Run) -> None:
    run.begin().tell("answers", step=1, answers=[{"completion": "x" * 50_000}])
    words = run.page.words
    assert "x" * 20_001 not in words
    assert "30,000 more characters" in words


def test_every_other_number_that_a_trainer_logs_gets_a_chart(run: Run) -> None:
    run.begin().step(1, **{"my/metric": 3.0}).step(2, **{"my/metric": 4.0})
    words = run.page.words
    assert "1 other logged values" in words
    assert "my/metric" in words


def test_gradient_clipping_is_counted(run: Run) -> None:
    run.begin().step(1, grad_norm=0.5).step(2, grad_norm=7.0)
    assert "Cut to max_grad_norm = 1 at 1 of 2 logged steps." in run.page.words


@pytest.mark.slow
def test_the_page_of_a_run_of_100_000_steps_stays_small(run: Run) -> None:
    run.begin(steps=100_000)
    line = {
        "time": 1.0,
        "kind": "step",
        "of": 100_000,
        "grad_norm": 0.5,
        "learning_rate": 1e-4,
        "entropy": 1.5,
        "mean_token_accuracy": 0.7,
        "num_tokens": 9.0,
        "epoch": 0.1,
        "memory": 2**31,
        "tokens_per_second": 99.5,
    }
    with run.folder.events.open("a") as file:
        for step in range(1, 100_001):
            file.write(json.dumps({**line, "step": step, "loss": 1 + math.sin(step)}) + "\n")
    text = render(run.record)
    assert len(text) < 500_000
    Page(text)


# The command.


def test_the_page_is_written_into_the_run_or_where_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    assert write_report(run.folder) == run.folder.path / "report.html"
    assert write_report(run.folder, tmp_path / "other.html") == tmp_path / "other.html"
    assert write_report(run.folder, tmp_path) == tmp_path / "report.html"
    with pytest.raises(RunError, match=r"cannot write .*nowhere.*name another file: --html FILE"):
        write_report(run.folder, tmp_path / "nowhere" / "page.html")


@pytest.mark.parametrize("file", [None, "page.html"])
def test_the_command_prints_where_the_page_is(run: Run, tmp_path: Path, file: str | None) -> None:
    arguments = ["runs", str(run.folder.path), "--html", *([str(tmp_path / file)] if file else [])]
    page = tmp_path / file if file else run.folder.path / "report.html"
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert (done.exit_code, done.output) == (0, f"{page}\n")
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    page.unlink()
    done = CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(done.output) == {"html": str(page)}
    assert page.exists()


def test_the_command_needs_a_run_for_a_page() -> None:
    with pytest.raises(UsageError, match="--html needs a run: none is named before it; write `forge runs RUN --html`"):
        CliRunner().invoke(cli, ["runs", "--html", "tale"], catch_exceptions=False)

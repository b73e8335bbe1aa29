"""What a run gives to its chat template: a date, variables, a system message, tools; resumed, repeated, asked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli

from forge.api import Task, Who
from forge.api.run import Run
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.disk.folder import RunFolder
from forge.errors import ForgeError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.machine.probe import probe
from forge.parent.after import plan_answers
from forge.worker.stages import Stages
from forge_huggingface.data.reader import Reader
from forge_huggingface.evaluation.questions import held_out
from forge_huggingface.export.compare import probes
from forge_huggingface.generation.load import load_processor, make_renderer
from forge_huggingface.rendering import clock
from forge_huggingface.rows import Conversation
from support.evaluating import generator_of
from support.projects import Project, cut_after, json_of, perform_in
from support.rows import ONLINE, pairs, prompts
from support.tiny import make_tokenizer

Rows = Callable[[Sequence[Any]], None]

CLOCK = (
    "{{ '<|im_start|>system\\nNow ' + strftime_now('%H:%M:%S.%f %d %b %Y') + '<|im_end|>\\n' }}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VARIABLES = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {{ mood }}\n{{ m.content }}</s>\n{% endfor %}"
    "{% if tools %}TOOLS {{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|im_start|>assistant {{ mood }}\n{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "weather"}}
TALK = [{"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Ho."}]}] * 4


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The moments at which runs begin, one after the other."""
    left = ["2026-11-28T11:54:57", "2026-11-29T00:00:01", "2026-11-30T00:00:01", "2026-12-01T00:00:01"]
    monkeypatch.setattr(clock, "now", lambda: left.pop(0))
    yield left
    clock.stop(CLOCK, None)


def dated(project: Project) -> None:
    """Give a project's model a template that writes the time."""
    (project.folder / "model" / "chat_template.jinja").write_text(CLOCK, encoding="utf-8")


def held(folder: RunFolder) -> Sequence[Any]:
    """Return the held-out rows of a finished run as an evaluation asks them."""
    before, trained = folder.plan(), folder.trained()
    assert trained is not None
    file = folder.job_file(PluginKeys(discover({})))
    plan = plan_answers(folder, file, Task.EVAL, [Who.TUNED], discover({}), probe())
    job, run = settle(load_job(plan.job), plan.decisions), Run(folder=folder.path, plan=plan)
    assert before.facts.path is not None
    renderer = make_renderer(job, run, load_processor(job, run, trained), Path(before.facts.path))
    return held_out(job, run, renderer).questions


def answering(folder: RunFolder) -> Any:
    """Return what answers in a chat."""
    return generator_of(folder)


def collated(project: Project) -> dict[str, Any]:
    run, folder = project.prepare()
    done = perform_in(run, folder)
    assert done.code == 0, done.printed
    return json_of(folder.path / "data.json")


def shown(project: Project, *arguments: str) -> Any:
    printed = project.forge("data", "job.toml", "--json", "--rows", "1", *arguments)
    return json.JSONDecoder().raw_decode(printed)[0]  # warnings follow, on the standard error


# The date


def test_a_run_has_one_date_also_when_it_goes_on_or_its_lock_is_run_on_another_day(
    project: Project, days: list[str]
) -> None:
    dated(project)
    done = project.perform()
    assert done.code == 0, done.printed
    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text(encoding="utf-8"))
    assert lock["data"]["date"] == "2026-11-28T11:54:57"
    said = [event["message"] for event in done.of_kind("warning")]
    assert (
        "the chat template of the model writes a date: 2026-11-28T11:54:57 stays now in this run and its lock" in said
    )
    before = json_of(done.folder.path / "data.json")
    assert before["summary"]["template"]["date"] == "2026-11-28T11:54:57"

    cut_after(done.folder, 2)
    again = perform_in(Run(folder=done.folder.path, plan=replace(done.folder.plan(), resume=True)), done.folder)
    assert again.code == 0, again.printed
    assert json_of(done.folder.path / "data.json") == before

    shutil.copy(done.folder.path / "job.lock.toml", project.folder / "job.toml")
    assert collated(project)["digest"] == before["digest"]
    assert len(days) == 3, "only the first run asked for the time"

    project.write()  # another run of the job, on another day
    assert collated(project)["digest"] != before["digest"]


@pytest.mark.usefixtures("days")
def test_evaluation_and_chat_are_asked_at_the_date_of_the_run(project: Project) -> None:
    dated(project)
    project.write(eval={"metrics": [], "max_new_tokens": 2}, data={"eval_size": 2})
    done = project.perform()
    assert done.code == 0, done.printed
    clock.stop(CLOCK, None)  # as in the process of another day
    generator = answering(done.folder)
    text = generator._prompt([{"role": "user", "content": "Hi."}]).text
    assert text.startswith("<|im_start|>system\nNow 11:54:57.000000 28 Nov 2026<|im_end|>\n")
    clock.stop(CLOCK, None)
    assert all("11:54:57.000000 28 Nov 2026" in question.prompt.text for question in held(done.folder))


@pytest.mark.slow
def test_rows_are_the_same_in_two_processes_at_the_date_of_the_job(project: Project) -> None:
    dated(project)
    first, second = (shown(project, "--set", "data.date=2024-02-29T01:02:03") for _ in range(2))
    assert first == second
    assert "Now 01:02:03.000000 29 Feb 2024" in first["rows"][0]["segments"][0]["text"]
    assert "template of the model at 2024-02-29T01:02:03" in project.forge(
        "data", "job.toml", "--set", 'data.date="2024-02-29T01:02:03"'
    )


@pytest.mark.parametrize("value", ["noon", "2024-02-29T01:02:03Z", "7"])
def test_a_date_that_is_none_is_told_with_one(project: Project, value: str) -> None:
    said = project.forge("data", "job.toml", "--set", f"data.date={value}", code=2)
    assert "data.date: must be a local date and time without an offset; write date = 2026-11-28T12:00:00" in said


def test_a_template_that_asks_for_no_time_leaves_none_in_the_lock(project: Project) -> None:
    done = project.perform()
    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text(encoding="utf-8"))
    assert "date" not in lock["data"]
    assert not [each for each in done.of_kind("warning") if "date" in each["message"]]


@pytest.mark.slow
def test_commands_of_other_moments_go_on_with_the_date_of_the_run(project: Project) -> None:
    dated(project)
    project.forge("run", "job.toml")
    folder = project.newest()
    digest = json_of(folder.path / "data.json")["digest"]
    cut_after(folder, 2)
    assert "going on from checkpoint-2" in project.forge("resume", str(folder.path))
    project.forge("data", str(folder.path / "job.lock.toml"))  # which refuses other rows than those of its digest
    project.forge("run", "job.toml")
    assert json_of(project.newest().path / "data.json")["digest"] != digest


@pytest.mark.usefixtures("days")
def test_trainers_that_render_prompts_themselves_have_the_date_and_the_variables_of_the_run(
    project: Project, rows: Rows
) -> None:
    from trl import GRPOTrainer

    (project.folder / "model" / "chat_template.jinja").write_text(CLOCK + "{{ mood }}", encoding="utf-8")
    rows(prompts(4))
    project.write(train={"method": "grpo", **ONLINE}, data={"chat_template_kwargs": {"mood": "glad"}})
    run, _ = project.prepare()
    stages = Stages(run, settle(load_job(run.plan.job), run.plan.decisions))
    data = stages.collate()
    assert stages.job.data.date == "2026-11-28T11:54:57"
    trainer: Any = object.__new__(GRPOTrainer)
    trainer.processing_class = trainer._tokenizer = data.processor
    trainer._is_vlm, trainer.environment_factories, trainer.tools, trainer.chat_template = False, None, None, None
    trainer.chat_template_kwargs = stages.job.train.options["chat_template_kwargs"]
    asked = [row["prompt"] for row in data.train]
    ids = [list(each) for each in trainer._tokenize_prompts(asked)[0]]
    assert data.processor.decode(ids[0]).startswith("<|im_start|>system\nNow 11:54:57.000000 28 Nov 2026<|im_end|>")
    assert data.processor.decode(ids[0]).endswith("glad")
    assert data.preview
    assert [row["input_ids"] for row in data.preview(data, 4)] == ids
    clock.stop(CLOCK + "{{ mood }}", None)


# Variables, a system message, tools


@pytest.mark.slow
def test_variables_system_message_and_tools_reach_training_evaluation_and_chat(project: Project, rows: Rows) -> None:
    (project.folder / "model" / "chat_template.jinja").write_text(VARIABLES, encoding="utf-8")
    own = {"messages": [{"role": "system", "content": "Own."}, *TALK[0]["messages"]], "tools": [{"name": "mine"}]}
    rows([*TALK, {**own, "chat_template_kwargs": {"mood": "glum"}}, *TALK])
    (project.folder / "tools.json").write_text(json.dumps([TOOL]), encoding="utf-8")
    project.write(
        data={
            "chat_template_kwargs": {"mood": "glad", "mod": 1},
            "system_prompt": "Be kind.",
            "tools": "tools.json",
            "eval_path": "rows.jsonl",
        },
        eval={"metrics": [], "max_new_tokens": 2},
    )
    done = project.perform()
    assert done.code == 0, done.printed
    said = [event["message"] for event in done.of_kind("warning")]
    assert "[data] chat_template_kwargs: the chat template of the model never reads mod" in said
    preview = shown(project, "--rows", "5")["rows"]
    texts = ["".join(segment["text"] for segment in row["segments"]) for row in preview]
    asked = "<|im_start|>system glad\nBe kind.</s>\n<|im_start|>user glad\nHi.</s>\n<|im_start|>assistant glad\n"
    assert texts[0].startswith(asked)
    assert 'TOOLS [{"type": "function", "function": {"name": "weather"}}]' in texts[0]
    assert texts[4].startswith("<|im_start|>system glum\nOwn.</s>\n<|im_start|>user glum\n")
    assert 'TOOLS [{"type": "function", "function": {"name": "mine"}}]' in texts[4]

    asked_rows = held(done.folder)
    tools = 'TOOLS [{"type": "function", "function": {"name": "weather"}}]'
    assert asked_rows[0].prompt.text == asked.replace(
        "<|im_start|>assistant glad\n", f"{tools}<|im_start|>assistant glad\n"
    )
    assert asked_rows[4].prompt.text.startswith("<|im_start|>system glum\nOwn.")
    assert asked_rows[0].asked[0] == {"role": "system", "content": "Be kind."}
    generator = answering(done.folder)
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]
    assert generator._prompt(talk).text == asked_rows[0].prompt.text
    lock = tomli.loads((done.folder.path / "job.lock.toml").read_text(encoding="utf-8"))
    assert lock["data"]["tools"] == str((project.folder / "tools.json").resolve())


@pytest.mark.slow
def test_pairs_and_prompts_get_the_system_message_too(project: Project, rows: Rows) -> None:
    rows(pairs(4))
    project.write(train={"method": "dpo"}, data={"system_prompt": "Be kind."})
    parts = shown(project)["rows"][0]["parts"]
    texts = ["".join(segment["text"] for segment in part["segments"]) for part in parts]
    assert all(text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n") for text in texts)
    rows(prompts(4))
    project.write(train={"method": "grpo", **ONLINE}, data={"system_prompt": "Be kind."})
    (segment,) = shown(project)["rows"][0]["segments"]
    assert segment["text"].startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n")


def test_flags_of_a_rows_messages_stay_with_their_messages(project: Project) -> None:
    run, _ = project.prepare()
    job = load_job(run.plan.job)
    job = job.model_copy(update={"data": job.data.model_copy(update={"system_prompt": "Be kind."})})
    # Neither renderer nor layout has a part in where a system message goes.
    reader = Reader(job, job.data.all_sources()[0], None, None)  # type: ignore[arg-type]
    row = Conversation(tuple(TALK[0]["messages"]), 1, turns=True, learned=(None, False))
    told = reader._instructed(row)
    assert isinstance(told, Conversation)
    assert (told.start, told.learned, told.messages[0]) == (
        2,
        (None, None, False),
        {"role": "system", "content": "Be kind."},
    )


def test_a_system_message_that_no_row_takes_is_told(project: Project, rows: Rows) -> None:
    rows([{"text": "The sea is wide."}] * 4)
    project.write(data={"system_prompt": "Be kind."}, train={"max_steps": 1, "save_steps": 1})
    said = [event["message"] for event in project.perform().of_kind("warning")]
    assert "[data] system_prompt went into no row: none is a conversation" in said


@pytest.mark.slow
def test_the_chat_begins_with_the_jobs_system_message_and_says_so(project: Project) -> None:
    project.write(data={"system_prompt": "Be kind."})
    done = project.perform()

    def chat(*more: str) -> str:
        command = [sys.executable, "-P", "-m", "forge", "chat", str(done.folder.path), "--max-new-tokens", "2", *more]
        return subprocess.run(command, input="Hi.\n", capture_output=True, text=True, check=True).stderr

    assert "system message of the job: Be kind." in chat()
    assert "system message" not in chat("--system", "Be rude.")


@pytest.mark.slow
def test_a_models_template_for_tools_is_used_told_and_saved(project: Project, rows: Rows) -> None:
    named = project.folder / "model" / "additional_chat_templates"
    named.mkdir()
    (named / "tool_use.jinja").write_text(VARIABLES, encoding="utf-8")
    rows([*TALK, {**TALK[0], "tools": [TOOL]}])
    project.write(train={"max_steps": 1, "save_steps": 1})
    said = project.forge("data", "job.toml", "--rows", "5")
    assert "template of the model (the one that it calls tool_use for rows with tools), loss on" in said
    assert 'TOOLS [{"type": "function", "function": {"name": "weather"}}]' in said
    assert said.count("TOOLS") == 1
    done = project.perform()
    assert done.code == 0, done.printed
    saved = done.folder.path / "adapter" / "additional_chat_templates" / "tool_use.jinja"
    assert saved.read_text(encoding="utf-8") == VARIABLES
    renderer = answering(done.folder).renderer
    assert renderer.template is not None
    assert renderer.template.tool_use == VARIABLES


def test_the_check_of_a_merged_model_asks_as_the_run_did(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(make_tokenizer(tmp_path / "t", template=VARIABLES))
    asked = probes(tokenizer, {"mood": "glad"})[-1]["input_ids"][0]
    assert tokenizer.decode(asked).endswith("<|im_start|>assistant glad\n")


# Refusals


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"chat_template_kwargs": {"messages": []}}, "data.chat_template_kwargs.messages: forge passes it"),
        ({"chat_template_kwargs": {"strftime_now": "x"}}, "write [data] date"),
        ({"tools": "none.json"}, "data.tools: [data] tools = none.json was not found"),
        ({"tools": [{"type": "function"}]}, "has an entry without a name"),
    ],
)
def test_what_cannot_be_given_is_told_while_planning(project: Project, data: Any, said: str) -> None:
    project.write(data=data)
    assert said in project.forge("plan", "job.toml", code=2)


def test_tools_for_prompts_that_the_trainer_renders_are_refused(project: Project, rows: Rows) -> None:
    rows(prompts(4))
    project.write(train={"method": "grpo", **ONLINE}, data={"tools": [TOOL]})
    assert "tells the template only of what can be called" in project.forge("plan", "job.toml", code=2)


def test_variables_of_prompts_are_the_same_in_data_and_in_train(project: Project, rows: Rows) -> None:
    rows(prompts(4))
    for table in ("data", "train"):
        project.write(**{"train": {"method": "grpo", **ONLINE}, table: {"chat_template_kwargs": {"mood": "glad"}}})
        if table == "train":
            more = {"method": "grpo", **ONLINE, "chat_template_kwargs": {"mood": "glad"}}
            project.write(train=more)
        run, _ = project.prepare()
        other = "train" if table == "data" else "data"
        assert run.plan.decided(f"{other}.chat_template_kwargs") == {"mood": "glad"}
    both = {"train": {"method": "grpo", **ONLINE, "chat_template_kwargs": {"mood": "sad"}}}
    project.write(**both, data={"chat_template_kwargs": {"mood": "glad"}})
    assert "[data] chat_template_kwargs says otherwise" in project.forge("plan", "job.toml", code=2)
    with pytest.raises(ForgeError):
        project.prepare()


@pytest.mark.slow
def test_a_row_that_gives_what_forge_passes_itself_is_a_bad_row(project: Project, rows: Rows) -> None:
    rows([{**TALK[0], "chat_template_kwargs": {"tools": []}}])
    said = project.forge("data", "job.toml", code=2)
    assert "rows.jsonl:1 has tools in chat_template_kwargs: forge passes it itself" in said

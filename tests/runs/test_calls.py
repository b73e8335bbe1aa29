"""Tools and environments: what the model calls while it is trained, what it is told, and what it learns from."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import ForgeError
from forge_huggingface.training.callbacks import plain
from support.calls import answer_with, call, furnish
from support.projects import json_of
from support.rows import ONLINE, prompts
from support.tiny import make_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from support.projects import Finished, Project

    Rows = Callable[[Sequence[Any]], None]

USE: dict[str, Any] = {
    **ONLINE,
    "reward": [{"use": "./said.py:said"}],
    "max_completion_length": 300,
    "max_steps": 1,
    "save_steps": 1,
}


@pytest.fixture
def acting(project: Project, rows: Rows) -> Callable[..., Finished]:
    """Train with tools, and answers that are written before."""
    furnish(project)
    rows(prompts(8))

    def run(train: dict[str, Any], **tables: Any) -> Finished:
        project.write(train={"method": "grpo", **USE, **train}, **{"model": {"max_seq_length": 1200}, **tables})
        return project.perform()

    return run


def messages(done: Finished) -> str:
    """Return the last answer as it is shown to people, from what a reward got."""
    assert done.code == 0, done.printed
    return plain(json_of(done.folder.path.parents[2] / "said.json")[1])


def test_a_call_is_answered_and_the_model_goes_on(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = answer_with(monkeypatch, call("double", n=4), "it is 8")
    done = acting({"tools": ["./tools.py:double"]})
    assert messages(done) == 'assistant: double({"n": 4})\ntool double: 8\nassistant: it is 8'
    assert len(given) == 2
    step = done.of_kind("step")[0]
    assert (step["tools/call_frequency"], step["tools/failure_frequency"], step["tools/unanswered"]) == (1, 0, 0)


def test_what_the_model_has_not_written_is_not_in_the_loss(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    from forge_huggingface.training.recipes.acting import Calling

    batches: list[Any] = []

    def kept(self: Any, inputs: Any) -> Any:
        batches.append((self, answered(self, inputs)))
        return batches[-1][1]

    answered = Calling._generate_and_score_completions
    monkeypatch.setattr(Calling, "_generate_and_score_completions", kept)
    answer_with(monkeypatch, call("double", n=4), "it is 8")
    assert acting({"tools": ["./tools.py:double"]}).code == 0
    trainer, batch = batches[0]
    mask = (batch["completion_mask"] * batch["tool_mask"]).bool()
    tokenizer = trainer.processing_class
    ids = batch["completion_ids"][0]
    assert tokenizer.decode(ids[mask[0]]) == f"{call('double', n=4)}</s>it is 8</s>"
    assert tokenizer.decode(ids[~mask[0]]) == "<|im_start|>tool\n8</s><|im_start|>assistant\n"
    assert int(batch["num_items_in_batch"]) == int(mask.sum())


def test_what_a_tool_raises_the_model_is_told_and_the_user_once(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, call("broken", n=4) + call("stop", n=1), "no")
    done = acting({"tools": ["./tools.py:broken", "./tools.py:stop"]})
    assert messages(done).splitlines()[1:] == [
        "tool broken: {'error': 'integer division or modulo by zero'}",
        "tool stop: {'error': 'SystemExit: 1'}",
        "assistant: no",
    ]
    told = [event["message"] for event in done.of_kind("warning") if "tool" in event["message"]]
    assert [message.partition(";")[0] for message in told] == [
        "the tool broken failed: ZeroDivisionError: integer division or modulo by zero at tools.py:19",
        "the tool stop failed: SystemExit: 1 at tools.py:28",
    ]
    assert done.of_kind("step")[0]["tools/failure_frequency"] == 1


def test_what_the_model_calls_wrongly_it_alone_is_told(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, call("double", m=4) + call("dubble", n=4) + call("later", n=7), "no")
    done = acting({"tools": ["./tools.py:double", "./tools.py:later"]})
    assert messages(done).splitlines()[1:] == [
        "tool double: {'error': \"missing a required argument: 'n'\"}",
        "tool dubble: {'error': 'Tool dubble not found.'}",
        "tool later: [7, 7]",
        "assistant: no",
    ]
    assert not [event for event in done.of_kind("warning") if "tool" in event["message"]]
    assert done.of_kind("step")[0]["tools/failure_frequency"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("turns", "train"),
    [
        ((call("double", n=4), call("double", n=8)), {"max_tool_calling_iterations": 1}),
        ((call("long", n=500),), {}),
    ],
)
def test_a_call_that_nobody_answers_is_counted(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, turns: tuple[str, ...], train: dict[str, Any]
) -> None:
    answer_with(monkeypatch, *turns)
    done = acting({"tools": ["./tools.py:double", "./tools.py:long"], **train})
    assert messages(done).endswith(")")
    assert done.of_kind("step")[0]["tools/unanswered"] == 1


def test_an_environment_begins_with_the_row_keeps_its_state_and_judges(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = answer_with(monkeypatch, call("add", n=4), call("add", n=3) + call("seen"), "seven")
    done = acting({"environment": "./tools.py:Counter"})
    assert messages(done).splitlines() == [
        'assistant: add({"n": 4})',
        "tool add: {'count': 4, 'kind': 'count'}",
        'assistant: add({"n": 3}) → seen({})',
        "tool add: {'count': 7, 'kind': 'count'}",
        "tool seen: {'count': 7, 'kind': 'count'}",
        "assistant: seven",
    ]
    (prompt, _) = json_of(done.folder.path.parents[2] / "said.json")
    assert prompt[-1]["content"].endswith(" the zero")
    assert done.of_kind("step")[0]["rewards/Counter/mean"] == 7
    assert len(given) == 3


def test_rows_name_their_environment(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, rows: Rows
) -> None:
    rows([{**row, "environment": ["loud", "quiet"][index % 2]} for index, row in enumerate(prompts(8))])
    answer_with(monkeypatch, call("add", n=1), "one")
    named = {"loud": "./tools.py:Counter", "quiet": "./tools.py:Silent"}
    done = acting({"environment": named, "max_steps": 2, "save_steps": 2, "num_completions_to_print": 8})
    assert done.code == 0, done.printed
    shown = ["zero" in each["prompt"] for event in done.of_kind("answers") for each in event["answers"]]
    assert {True, False} == set(shown)
    assert {"rewards/Counter/mean", "rewards/Silent/mean"} < done.of_kind("step")[0].keys()


def test_held_out_rows_are_judged_with_the_tools(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, call("double", n=4), "it is 8")
    train = {"tools": ["./tools.py:double"], "eval_strategy": "steps", "eval_steps": 1}
    done = acting({**train, "per_device_eval_batch_size": 4}, data={"eval_size": 2})
    assert done.code == 0, done.printed
    (found,) = done.of_kind("eval")
    assert (found["eval_tools/call_frequency"], found["eval_tools/unanswered"]) == (1, 0)


@pytest.mark.parametrize(
    ("train", "what"),
    [
        ({"environment": "./tools.py:Failing"}, "the environment ./tools.py:Failing failed in reset"),
        ({"environment": "./tools.py:Silent", "reward": [{"use": "./rewards.py:length", "name": "Silent"}]}, "two rew"),
        ({"environment": {"loud": "./tools.py:Counter"}}, "rows.jsonl:1 has no column environment"),
    ],
)
def test_an_environment_that_does_not_fit_is_told(
    acting: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, train: dict[str, Any], what: str
) -> None:
    answer_with(monkeypatch, "no")
    done = acting(train)
    assert done.code
    assert what in str(done.error)


def test_a_template_that_writes_no_calls_is_refused_before_the_model_is_loaded(project: Project, rows: Rows) -> None:
    furnish(project)
    (project.folder / "model" / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.role }} {{ message.content }}</s>{% endfor %}", encoding="utf-8"
    )
    rows(prompts(4))
    project.write(train={"method": "grpo", **USE, "tools": ["./tools.py:double"]})
    done = project.perform()
    assert done.error["what"] == "the model cannot be trained with tools"
    assert not done.of_kind("model")


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"tools": ["./tools.py:bare"]}, "train.tools.0: bare has no type hint for n"),
        ({"tools": ["./tools.py:bare"]}, "bare has a docstring that does not describe n under Args:"),
        ({"tools": ["./tools.py:doubled"]}, "has no function doubled; did you mean double?"),
        ({"tools": ["./tools.py:Counter"]}, "Counter is a class; name a function"),
        ({"tools": ["double"]}, '"double" names no function; write "./tools.py:function"'),
        ({"tools": ["./tools.py:double", "./tools.py:double"]}, "double is also the name of ./tools.py:double"),
        ({"environment": "./tools.py:double"}, "train.environment: double is a function; name a class"),
        ({"environment": {}}, "train.environment: it names none"),
        ({"environment": "./rooms.py:Room"}, "Room has no method reset; write def reset(self, **row)"),
        ({"environment": "./rooms.py:Made"}, "Made cannot be made without size"),
        ({"environment": "./rooms.py:Made"}, "Made.look has no docstring"),
        ({"max_tool_calling_iterations": 3}, "max_tool_calling_iterations has no effect"),
        ({"method": "rloo", "tools": ["./tools.py:double"]}, "tools is an argument of grpo"),
    ],
)
def test_a_wrong_tool_is_a_mistake_of_the_job(project: Project, train: dict[str, Any], words: str) -> None:
    furnish(project)
    (project.folder / "rooms.py").write_text(
        "class Room: ...\n\n\nclass Made:\n    def __init__(self, size): ...\n    def reset(self): ...\n"
        "    def look(self): ...\n",
        encoding="utf-8",
    )
    project.write(train={"method": "grpo", **USE, **train})
    with pytest.raises(ForgeError) as error:
        project.prepare()
    assert words in " ".join(str(error.value).split())


@pytest.mark.slow
def test_a_model_learns_to_ask_the_tool(project: Project, rows: Rows) -> None:
    """It has been taught to call in half of its answers and to guess in the others; only who calls is right."""
    from transformers.utils import get_json_schema

    from support.rewarding import loaded_from

    shutil.rmtree(project.folder / "model")
    make_model(project.folder / "model", hidden=64)
    furnish(project)
    schema = get_json_schema(loaded_from(project.folder / "tools.py").double)
    (project.folder / "tools.json").write_text(json.dumps([schema]), encoding="utf-8")  # which keeps its order
    asked = [{"role": "user", "content": f"double {n}"} for n in range(8)]
    taught: list[Any] = []
    for n, question in enumerate(asked):
        called = {"type": "function", "function": {"name": "double", "arguments": {"n": n}}}
        taught.append(
            [
                question,
                {"role": "assistant", "content": "", "tool_calls": [called]},
                {"role": "tool", "name": "double", "content": str(2 * n)},
                {"role": "assistant", "content": f"it is {2 * n}"},
            ]
        )
        taught.append([question, {"role": "assistant", "content": f"it is {2 * n + 1}"}])
    rows([{"messages": messages} for messages in taught])
    full = {"type": "none", "r": None, "lora_alpha": None}
    common: dict[str, Any] = {"adapter": full, "model": {"max_seq_length": 400}}
    project.write(
        data={"tools": "tools.json"},
        train={"max_steps": 200, "save_steps": 200, "per_device_train_batch_size": 16, "learning_rate": 3e-3},
        **common,
    )
    done = project.perform()
    assert done.code == 0, done.printed

    rows([{"prompt": [question], "right": f"it is {2 * n}"} for n, question in enumerate(asked)])
    (project.folder / "rewards.py").write_text(
        "def right(*, completions, right, **_):\n"
        "    return [float(said[-1]['content'].strip() == each) for said, each in zip(completions, right)]\n",
        encoding="utf-8",
    )
    common["model"] = {"id": str(done.folder.path / "model"), "max_seq_length": 400}
    train = {"method": "grpo", "tools": ["./tools.py:double"], "reward": [{"use": "./rewards.py:right"}]}
    train |= {"per_device_train_batch_size": 32, "num_generations": 8, "max_completion_length": 120, "beta": 0.0}
    project.write(train={**train, "max_steps": 80, "save_steps": 80, "learning_rate": 2e-4}, **common)
    done = project.perform()
    assert done.code == 0, done.printed
    steps = done.of_kind("step")
    before, after = (sum(step["reward"] for step in part) / 5 for part in (steps[:5], steps[-5:]))
    assert before < 0.5
    assert after > before + 0.2

"""Rows as public data sets keep them, through `forge data`: what each must give, to the letter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from forge_huggingface.data.conversion.calls import pruned

if TYPE_CHECKING:
    from support.projects import Project

TEMPLATE = """\
{%- if tools %}[tools]{{ tools | tojson }}
{% endif %}
{%- for message in messages %}[{{ message.role }}]{{ message.content }}
{%- for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}[assistant]{% endif %}"""

TOOL = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def shown(project: Project, method: str, sets: dict[str, list[dict[str, Any]]]) -> tuple[dict[str, list[str]], Any]:
    """Return what `forge data` shows of each set, with marks around what is learnt, and its sources."""
    (project.folder / "template.jinja").write_text(TEMPLATE)
    for name, rows in sets.items():
        (project.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"path": f"{name}.jsonl"} for name in sets]
    data = {"path": None, "sources": sources, "chat_template": "template.jinja"}
    project.write(data=data, model={"max_seq_length": 512}, train={"method": method})
    said = json.JSONDecoder().raw_decode(project.forge("data", "job.toml", "--rows", "99", "--json"))[
        0
    ]  # warnings follow it
    found: dict[str, list[str]] = {}
    for row in said["rows"]:
        for part in row.get("parts") or [row]:
            text = "".join(f"«{each['text']}»" if each["supervised"] else each["text"] for each in part["segments"])
            found.setdefault(row["origin"].partition(".")[0], []).append(text)
    return found, {source["path"].partition(".")[0]: source for source in said["summary"]["sources"]}


@pytest.mark.slow
def test_rows_of_conversations_instructions_and_questions(project: Project) -> None:
    hermes = [
        {"from": "system", "value": "You may call functions."},
        {"from": "human", "value": "Weather in Paris?"},
        {"from": "gpt", "value": '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'},
        {"from": "tool", "value": "<tool_response>\n20\n</tool_response>"},
        {"from": "gpt", "value": "20 degrees."},
    ]
    glaive = [
        {"from": "human", "value": "Weather in Paris?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Paris"}}'},
        {"from": "observation", "value": "20"},
        {"from": "gpt", "value": "20 degrees."},
    ]
    texts, sources = shown(
        project,
        "sft",
        {
            "dolly": [
                {"instruction": "Who?", "context": "Ann sings.", "response": "Ann.", "category": "closed_qa"},
                {"instruction": "Name a colour.", "context": "", "response": "Blue.", "category": "open_qa"},
            ],
            "tulu": [
                {
                    "id": "a_1",
                    "messages": [{"content": "Hi", "role": "user"}, {"content": "Hello", "role": "assistant"}],
                    "source": "ai2-adapt-dev/x",
                }
            ],
            "gsm8k": [{"question": "2 + 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}],
            "toolace": [
                {
                    "system": "You compose functions. Here is a list: [weather]",
                    "conversations": [
                        {"from": "user", "value": "Weather?"},
                        {"from": "assistant", "value": '[weather(city="Paris")]'},
                        {"from": "tool", "value": "[20]"},
                        {"from": "assistant", "value": "20 degrees."},
                    ],
                }
            ],
            "hermes": [
                {
                    "id": "1",
                    "conversations": hermes,
                    "tools": json.dumps([{"type": "function", "function": TOOL}]),
                    "category": "Weather",
                }
            ],
            "glaive": [{"conversations": glaive, "tools": json.dumps([TOOL])}],
        },
    )
    tools = '[tools][{"type": "function", "function": ' + json.dumps(TOOL) + "}]\n"
    called = '{"name": "weather", "arguments": {"city": "Paris"}}'
    end = "<|im_end|>\n"
    assert texts == {
        "dolly": [
            f"[user]Who?\n\nAnn sings.{end}[assistant]«Ann.{end}</s>»",
            f"[user]Name a colour.{end}[assistant]«Blue.{end}</s>»",
        ],
        "tulu": [f"[user]Hi{end}[assistant]«Hello{end}</s>»"],
        "gsm8k": [f"[user]2 + 2?{end}[assistant]«2 + 2 = <<2+2=4>>4\n#### 4{end}</s>»"],
        "toolace": [
            f"[system]You compose functions. Here is a list: [weather]{end}[user]Weather?{end}"
            f'[assistant]«[weather(city="Paris")]{end}»[tool][20]{end}[assistant]«20 degrees.{end}</s>»'
        ],
        "hermes": [
            f"{tools}[system]You may call functions.{end}[user]Weather in Paris?{end}"
            f"[assistant]«<tool_call>\n{called}\n</tool_call>{end}»"
            f"[tool]<tool_response>\n20\n</tool_response>{end}[assistant]«20 degrees.{end}</s>»"
        ],
        "glaive": [
            f"{tools}[user]Weather in Paris?{end}[assistant]«{called}{end}»"
            f"[tool]20{end}[assistant]«20 degrees.{end}</s>»"
        ],
    }
    assert {name: (source["format"], source["ignored"]) for name, source in sources.items()} == {
        "dolly": ("instruction", ["category"]),
        "tulu": ("messages", ["id", "source"]),
        "gsm8k": ("input-output", []),
        "toolace": ("sharegpt", []),
        "hermes": ("sharegpt", ["id", "category"]),
        "glaive": ("sharegpt", []),
    }


@pytest.mark.slow
def test_pairs(project: Project) -> None:
    asked = [{"content": "Hi", "role": "user"}]
    whole = {
        "chosen": [*asked, {"content": "Hello", "role": "assistant"}],
        "rejected": [*asked, {"content": "Go away", "role": "assistant"}],
    }
    texts, sources = shown(
        project,
        "dpo",
        {
            "ultrafeedback": [
                {
                    "prompt": "Hi",
                    "prompt_id": "f0",
                    **whole,
                    "messages": whole["chosen"],
                    "score_chosen": 8.5,
                    "score_rejected": 3.0,
                }
            ],
            "orca": [
                {"system": "", "question": "Hi", "chosen": "Hello", "rejected": "Go away"},
                {"system": "Be kind.", "question": "Hi", "chosen": "Hello", "rejected": "Go away"},
            ],
            "orpo-mix": [{"source": "Airoboros", **whole, "prompt": "Hi", "question": "Hi"}],
            "oasst": [{"lang": "en", "parent_id": "1", "prompt": "Hi", "chosen": " Hello", "rejected": " Go away"}],
        },
    )
    end = "<|im_end|>\n"
    sides = [f"[user]Hi{end}[assistant]«{answer}{end}</s>»" for answer in ("Hello", "Go away")]
    assert texts == {
        "ultrafeedback": sides,
        "orca": [*sides, *(f"[system]Be kind.{end}{side}" for side in sides)],
        "orpo-mix": sides,
        "oasst": ["Hi« Hello</s>»", "Hi« Go away</s>»"],
    }
    assert {name: source["ignored"] for name, source in sources.items()} == {
        "ultrafeedback": ["prompt_id", "messages", "score_chosen", "score_rejected"],
        "orca": [],
        "orpo-mix": ["source", "question"],
        "oasst": ["lang", "parent_id"],
    }


@pytest.mark.slow
def test_nulls_of_arrow_are_taken_out_of_a_parquet_file(project: Project) -> None:
    import pyarrow
    from pyarrow import parquet

    def row(name: str, key: str, value: Any) -> dict[str, Any]:
        call = {"name": name, "arguments": {key: value}}
        tool = {"name": name, "parameters": {"type": "object", "properties": {key: {"type": "x"}}}}
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        return {
            "messages": [*turns, {"role": "tool", "content": "1"}, {"role": "assistant", "content": "One."}],
            "tools": [tool],
        }

    table = pyarrow.Table.from_pylist([row("weather", "city", "Paris"), row("add", "first", 1)])
    kept = table.to_pylist()[0]
    assert kept != pruned(kept)
    parquet.write_table(table, project.folder / "calls.parquet")
    (project.folder / "template.jinja").write_text(TEMPLATE)
    project.write(data={"path": "calls.parquet", "chat_template": "template.jinja"}, model={"max_seq_length": 512})
    text = project.forge("data", "job.toml")
    assert 'weather", "arguments": {"city": "Paris"}}' in text
    assert 'add", "arguments": {"first": 1}}' in text
    assert '"properties": {"city": {"type": "x"}}' in text
    assert "null" not in text


@pytest.mark.slow
def test_a_run_says_which_columns_it_does_not_use(project: Project, rows: Any) -> None:
    rows(
        [{"instruction": "Hi", "output": "Hello", "category": "a"}, {"instruction": "Hi", "output": "Yes", "id": 1}] * 4
    )
    project.write(train={"max_steps": 1})
    text = project.forge("run", "job.toml")
    assert "rows.jsonl: instruction rows, by instruction, output; not used: category, id" in text

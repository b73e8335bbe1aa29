"""Rows of every layout: TRL's own ids, what is stored, what is refused, and what ``forge data`` shows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import DataError
from forge.job.decisions import settle
from forge.job.job import load_job
from forge.worker.stages import Stages
from support.projects import Project
from support.rows import ONLINE, pairs, prompts, ratings, said
from support.tiny import CHATML, make_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from forge.api import Data

    Collated = Callable[..., Data]

ENDING = CHATML.replace("<|im_end|>", "</s>")
"""A template whose answers end with the tokenizer's own end token, so that forge adds none."""
STRINGS = [
    {"prompt": "The sea is", "chosen": " wide.", "rejected": " green, five, green."},
    {"prompt": "Count to five: ", "chosen": "one, two", "rejected": "blue.</s>"},
]
IMPLICIT = [
    {"chosen": "The sea is wide.", "rejected": "The sea is green."},
    {"chosen": "Name a colour: red", "rejected": "Name a colour: five"},
]
HISTORY = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "Name a colour."},
    *said("red"),
    {"role": "user", "content": "Another?"},
]
TALKS = [{"prompt": HISTORY, "chosen": said("blue"), "rejected": said("five, six, seven")}, *pairs(3)]
WHOLE = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in TALKS]


@pytest.fixture
def collated(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Collated:
    """Collate rows under a method."""
    from transformers import AutoTokenizer

    folders = iter(range(99))

    def collate(
        method: str, rows: Sequence[Any], *, bos: bool = False, tokens: Sequence[str] = (), **tables: Any
    ) -> Data:
        folder = make_model(tmp_path_factory.mktemp("m") / "m", template=ENDING, layers=1, hidden=8, add_bos=bos)
        if tokens:  # of the tokenizer, and not of the model
            tokenizer = AutoTokenizer.from_pretrained(folder)
            tokenizer.add_tokens(list(tokens))
            tokenizer.save_pretrained(folder)
        project = Project(tmp_path / str(next(folders)), folder)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (project.folder / "rows.jsonl").write_text(text, encoding="utf-8")
        (project.folder / "rewards.py").write_text("def length(completions, **_): return [0.0]\n", encoding="utf-8")
        more = {**ONLINE} if method in {"grpo", "rloo"} else {}
        more |= {"teacher_model_name_or_path": "model", "max_completion_length": 8} if method == "distill" else {}
        train = {"method": method, **more, **tables.pop("train", {})}
        project.write(train=train, **tables)
        run, _ = project.prepare()
        return Stages(run, settle(load_job(run.plan.job), run.plan.decisions)).collate()

    return collate


def prepared(name: str, rows: Sequence[Any], tokenizer: Any, *, kl: bool = False) -> Any:
    """Return rows as the trainer of TRL of that name prepares them."""
    import trl
    from datasets import Dataset

    trainer = object.__new__(getattr(trl, name))  # its method reads the tokenizer alone
    trainer._tokenizer, trainer.calculate_KL = tokenizer, kl
    trainer.desirable_weight = trainer.undesirable_weight = 1.0
    arguments = SimpleNamespace(dataset_num_proc=None, max_length=None, per_device_train_batch_size=2)
    return trainer._prepare_dataset(Dataset.from_list(list(rows)), tokenizer, arguments, "train")


def columns(data: Any, *names: str) -> list[dict[str, Any]]:
    return [{name: row[name] for name in names} for row in data]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("rows", [TALKS, WHOLE, STRINGS, IMPLICIT], ids=["talks", "whole", "strings", "implicit"])
def test_pairs_are_the_rows_that_trl_prepares_for_dpo(collated: Collated, rows: list[Any], bos: bool) -> None:
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    data = collated("dpo", rows, bos=bos)
    assert columns(data.train, *names) == columns(prepared("DPOTrainer", rows, data.processor), *names)


@pytest.mark.parametrize("rows", [TALKS, STRINGS], ids=["talks", "strings"])
def test_rated_rows_are_those_that_trl_prepares_for_kto(collated: Collated, rows: list[Any]) -> None:
    rated = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]
    names = ("prompt_ids", "completion_ids", "label")
    data = collated("kto", rated)
    assert columns(data.train, *names) == columns(prepared("KTOTrainer", rated, data.processor), *names)


def test_a_prompt_meets_the_answer_that_trl_gives_it_for_the_divergence(collated: Collated) -> None:
    from forge_huggingface.training.recipes.kto import mixed

    data = collated("kto", ratings(7))
    theirs = prepared("KTOTrainer", ratings(7), data.processor, kl=True)
    names = ("prompt_ids", "completion_ids", "KL_completion_ids", "label")
    answers = list(data.train["completion_ids"])
    ours = mixed(data.train, 2, answers[:2])
    assert columns(ours.select(range(6)), *names) == columns(theirs.select(range(6)), *names)
    # The last group has one row. TRL gives it its own answer, and the divergence is then its own reward.
    assert theirs[6]["KL_completion_ids"] == theirs[6]["completion_ids"]
    assert ours[6]["KL_completion_ids"] == answers[0] != answers[6]
    assert ours.features["KL_completion_ids"] == ours.features["completion_ids"]
    before = Path(data.train.cache_files[0]["filename"])
    assert [Path(file["filename"]) for file in ours.cache_files] == [before.with_suffix(".mixed.arrow")]


@pytest.mark.parametrize("rows", [TALKS, WHOLE, STRINGS, IMPLICIT], ids=["talks", "whole", "strings", "implicit"])
def test_ranked_rows_are_those_that_trl_prepares_for_a_reward_model(collated: Collated, rows: list[Any]) -> None:
    names = ("chosen_ids", "rejected_ids")
    data = collated("reward", rows)
    assert columns(data.train, *names) == columns(prepared("RewardTrainer", rows, data.processor), *names)
    assert data.train["margin"] == [None] * len(rows)


@pytest.mark.parametrize("extra", [{}, {"chat_template_kwargs": {"thinking": True}}])
@pytest.mark.parametrize("rows", [prompts(3), [{"prompt": "The sea is"}, {"prompt": "Count to five:"}]])
def test_prompts_are_shown_with_the_ids_that_trl_will_make(collated: Collated, rows: list[Any], extra: Any) -> None:
    from trl import GRPOTrainer

    data = collated("grpo", rows, train=extra)
    trainer: Any = object.__new__(GRPOTrainer)
    trainer.processing_class = trainer._tokenizer = data.processor
    trainer._is_vlm, trainer.environment_factories, trainer.tools, trainer.chat_template = False, None, None, None
    trainer.chat_template_kwargs = extra.get("chat_template_kwargs", {})
    asked = [row["prompt"] for row in data.train]
    assert asked == [row["prompt"] for row in rows]
    assert data.preview
    shown = [row["input_ids"] for row in data.preview(data, len(rows))]
    assert shown == [list(ids) for ids in trainer._tokenize_prompts(asked)[0]]


def test_the_columns_beside_a_prompt_reach_the_trainer_by_their_names(collated: Collated) -> None:
    rows = [{"prompt": "a", "wanted": {"x": [1, None]}, "n": 1}, {"prompt": "b", "wanted": None, "n": 2, "new": "z"}]
    data = collated("rloo", rows)
    assert [{key: row[key] for key in ("prompt", "wanted", "n")} for row in data.train] == [
        {key: row[key] for key in ("prompt", "wanted", "n")} for row in rows
    ]
    assert data.train[0:2]["new"] == [None, "z"]
    assert data.preview
    assert data.preview(data, 1)[0]["columns"] == ["wanted", "n"]


CASES: dict[str, tuple[Any, set[str], str]] = {
    "dpo": (pairs, {"prompt_ids", "chosen_ids", "rejected_ids"}, "chosen"),
    "orpo": (pairs, {"prompt_ids", "chosen_ids", "rejected_ids"}, "chosen"),
    "cpo": (pairs, {"prompt_ids", "chosen_ids", "rejected_ids"}, "chosen"),
    "kto": (ratings, {"prompt_ids", "completion_ids", "label"}, "bad"),
    "reward": (pairs, {"chosen_ids", "rejected_ids", "margin"}, "chosen"),
}


@pytest.mark.parametrize("method", CASES)
def test_a_layout_stores_its_columns_and_shows_each_sequence(collated: Collated, method: str) -> None:
    make, names, first = CASES[method]
    data = collated(method, make(4))
    assert set(data.train.column_names) == names
    assert data.preview
    row = data.preview(data, 2)[0]
    parts = row.get("parts") or [row]
    assert row["origin"] == "rows.jsonl:1"
    assert (parts[0].get("name") or first) == first
    for part in parts:
        assert part["supervised"] == sum(label != -100 for label in part["labels"])
        assert [token for segment in part["segments"] for token in segment["ids"]] == part["input_ids"]
        assert part["segments"][-1]["supervised"]
        if method != "reward":  # the answer, and nothing of the question
            assert "Write one sentence" in part["segments"][0]["text"]
            assert not part["segments"][0]["supervised"]
            assert part["segments"][-1]["text"].endswith("</s>\n")
    assert row["length"] == max(part["length"] for part in parts)
    assert row["supervised"] == sum(part["supervised"] for part in parts)
    json.dumps(row)


@pytest.mark.parametrize(
    ("method", "make", "change"),
    [
        ("dpo", pairs, lambda row: {**row, "chosen": said("Something else.")}),
        ("dpo", pairs, lambda row: {**row, "rejected": said("Something else.")}),
        ("kto", ratings, lambda row: {**row, "label": not row["label"]}),
        ("reward", pairs, lambda row: {**row, "margin": 0.5}),
        ("grpo", prompts, lambda row: {**row, "wanted": "other"}),
        ("grpo", prompts, lambda row: {**row, "prompt": "other"}),
    ],
)
def test_the_digest_changes_with_a_row_and_with_nothing_else(
    collated: Collated, method: str, make: Any, change: Any
) -> None:
    rows = make(4)
    first = collated(method, rows).digest
    assert collated(method, rows).digest == first
    assert collated(method, [*rows[:-1], change(rows[-1])]).digest != first


LONG = " ".join(["green"] * 200)


@pytest.mark.parametrize(
    ("method", "row", "words"),
    [
        ("dpo", {**pairs(1)[0], "rejected": pairs(1)[0]["chosen"]}, "has the same answer as chosen and as rejected"),
        ("reward", {**pairs(1)[0], "rejected": pairs(1)[0]["chosen"]}, "has the same answer as chosen and as rejected"),
        ("dpo", {"chosen": WHOLE[0]["chosen"], "rejected": WHOLE[0]["chosen"]}, "has the same answer"),
        (
            "dpo",
            {"chosen": "The sea", "rejected": "The sea is wide"},
            "has an answer that is the beginning of the other",
        ),
        ("dpo", {**pairs(1)[0], "chosen": "green"}, "mixes a string and messages"),
        ("dpo", {**pairs(1)[0], "chosen": []}, "has no messages in 'chosen'"),
        (
            "dpo",
            {**pairs(1)[0], "prompt": [{"role": "user", "content": LONG}]},
            "nothing to train on: its answer begins after the first 128 tokens",
        ),
        ("kto", {**ratings(1)[0], "label": "good"}, "has no truth value in 'label': it is 'good'"),
        ("kto", {**ratings(1)[0], "label": 2}, "has no truth value in 'label': it is 2"),
        ("kto", {**ratings(1)[0], "label": None}, "has nothing in 'label'"),
        (
            "kto",
            {**ratings(1)[0], "prompt": [{"role": "user", "content": LONG}]},
            "nothing to train on: its answer begins after the first 128 tokens",
        ),
        ("reward", {**pairs(1)[0], "margin": "much"}, "has a margin that is not a number: it is a str"),
        ("reward", {**pairs(1)[0], "margin": True}, "has a margin that is not a number: it is a bool"),
        ("reward", {**pairs(1)[0], "rejected": said(LONG)}, "an answer that is cut cannot be judged"),
        ("grpo", {"prompt": [*HISTORY[:2], *said("red")]}, "ends with an assistant turn"),
        (
            "grpo",
            {"prompt": [{"role": "user", "content": LONG}]},
            "max_seq_length leaves 120 beside max_completion_length",
        ),
        ("grpo", {"prompt": "  "}, "has an empty text in 'prompt'"),
        ("distill", {"prompt": []}, "has nothing in 'prompt': the list is empty"),
    ],
)
def test_a_bad_row_is_named_with_the_reason(collated: Collated, method: str, row: Any, words: str) -> None:
    good = {"kto": ratings, "grpo": prompts, "distill": prompts}.get(method, pairs)(3)
    if "prompt" not in row:
        good = [{"chosen": WHOLE[1]["chosen"], "rejected": WHOLE[1]["rejected"]}]
        good = IMPLICIT if isinstance(row["chosen"], str) else good
    with pytest.raises(DataError, match=re.escape(words)) as caught:
        collated(method, [*good, row])
    assert f"rows.jsonl:{len(good) + 1} " in str(caught.value)
    kept = collated(method, [*good, row], data={"on_bad_row": "drop", "max_bad_rows": 1, "on_long_row": "drop"})
    assert len(kept.train) == len(good)


def test_a_margin_is_kept(collated: Collated) -> None:
    rows = [{**row, "margin": margin} for row, margin in zip(pairs(3), (1, 0.5, None), strict=True)]
    assert collated("reward", rows).train["margin"] == [1.0, 0.5, None]


def test_a_long_answer_of_a_pair_is_cut_at_its_end_and_counted(collated: Collated) -> None:
    rows = [*pairs(3), {**pairs(1)[0], "rejected": said(LONG)}]
    with pytest.raises(DataError, match="of all tokens of the training rows would be cut off"):
        collated("dpo", rows)
    data = collated("dpo", rows, data={"on_long_row": "truncate"})
    cut = data.train[3]
    assert len(cut["prompt_ids"]) + len(cut["rejected_ids"]) == 128
    whole = collated("dpo", rows, model={"max_seq_length": 2048}).train[3]
    assert (cut["prompt_ids"], cut["chosen_ids"]) == (whole["prompt_ids"], whole["chosen_ids"])
    assert cut["rejected_ids"] == whole["rejected_ids"][: len(cut["rejected_ids"])]
    lost = sum(len(whole[name]) for name in ("prompt_ids", "rejected_ids")) - 128
    assert (data.summary["truncated"], data.summary["cut_tokens"]) == (1, lost)
    assert data.summary["cut_share"] == round(lost / (data.summary["tokens"] + lost), 4)
    assert data.summary["eos"]["cut"] == 1


TAINTED = {
    "dpo": lambda text: {**pairs(1)[0], "rejected": said(text)},
    "reward": lambda text: {**pairs(1)[0], "chosen": said(text)},
    "kto": lambda text: {**ratings(1)[0], "completion": said(text)},
    "grpo": lambda text: {"prompt": [{"role": "user", "content": text}]},
    "sft": lambda text: {"messages": [{"role": "user", "content": text}, *said("red")]},
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a\ud800b", "has half a character in its text, \\ud800"),
        ("a\0b", "has a NUL character in its text"),
        ("Look <act>.", "has the token '<act>' with the id 401, and the model has 400 tokens"),
    ],
    ids=["half", "nul", "token"],
)
@pytest.mark.parametrize("method", TAINTED)
def test_what_no_model_can_read_is_a_bad_row_under_every_method(
    collated: Collated, method: str, text: str, words: str
) -> None:
    make = {"kto": ratings, "grpo": prompts, "sft": lambda _: [TAINTED["sft"]("A colour?")] * 3}.get(method, pairs)
    rows = [*make(3), TAINTED[method](text)]
    with pytest.raises(DataError, match=re.escape(f"rows.jsonl:4 {words}")):
        collated(method, rows, tokens=["<obs>", "<act>"])
    data = collated(method, rows, tokens=["<obs>", "<act>"], data={"on_bad_row": "drop", "max_bad_rows": 1})
    assert (len(data.train), data.summary["dropped_bad"]) == (3, 1)


def test_a_tokenizer_with_more_tokens_than_the_model_is_fine_where_no_row_has_them(collated: Collated) -> None:
    rows = [TAINTED["sft"]("A colour?")] * 3
    data = collated("sft", rows, tokens=["<obs>", "<act>"])
    assert list(data.train["input_ids"]) == list(collated("sft", rows).train["input_ids"])


def test_half_a_character_in_a_column_for_rewards_is_a_bad_row(collated: Collated) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1 has half a character"):
        collated("grpo", [{"prompt": "a", "wanted": {"x": ["\ud800"]}}])
    assert collated("grpo", [{"prompt": "a", "wanted": "\0"}]).train[0]["wanted"] == "\0"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + ENDING, "no system"),
        (ENDING.replace("message in messages", "message in messages if message.role != 'system'"), "loses the text"),
    ],
    ids=["refused", "lost"],
)
def test_a_prompt_that_the_template_does_not_write_is_a_bad_row(
    collated: Collated, tmp_path: Path, template: str, words: str
) -> None:
    (tmp_path / "given.jinja").write_text(template, encoding="utf-8")
    given: dict[str, Any] = {"chat_template": str(tmp_path / "given.jinja")}
    rows = [*prompts(3), {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]}]
    with pytest.raises(DataError, match=words):
        collated("grpo", rows, data=given)
    kept = collated("grpo", rows, data={**given, "on_bad_row": "drop", "max_bad_rows": 1})
    assert (kept.summary["rows"], kept.summary["dropped_bad"]) == (3, 1)

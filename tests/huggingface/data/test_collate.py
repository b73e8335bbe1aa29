"""The stage: counts, choices and refusals over whole sources."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from forge.api import Loaded
from forge.api.run import Run
from forge.errors import DataError, ModelError
from forge.job.job import Job
from forge.model.facts import ModelFacts
from forge_huggingface.data.collate import collate
from forge_huggingface.hub.snapshot import snapshot
from support.tiny import make_rows, make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from forge.api import Data, Event


class Case:
    """A job in a folder of its own; calling it collates."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.events: list[Event] = []
        self.run = self.handle("run")

    def handle(self, name: str, **facts: Any) -> Run:
        known = ModelFacts(**({"id": "tiny", "source": "folder", "path": str(self.model)} | facts))
        step = SimpleNamespace(words=("text", "tokens"))
        # For forge.api.plan.Plan, of which only this is read.
        stand_in: Any = SimpleNamespace(facts=known, machine=None, step=lambda _: step)
        return Run(folder=self.folder / name, plan=stand_in, sink=self.events.append)

    def job(self, data: dict[str, Any], train: dict[str, Any] | None = None, **model: Any) -> Job:
        job = Job.model_validate({"model": {"id": str(self.model)} | model, "data": data})
        table = job.train.model_copy(update=train or {})
        return job.model_copy(update={"folder": self.folder, "train": table})

    def __call__(
        self, *, train: dict[str, Any] | None = None, model: dict[str, Any] | None = None, **data: Any
    ) -> Data:
        return collate(self.job({"path": "rows.jsonl"} | data, train, **(model or {})), self.run)

    def warnings(self) -> list[str]:
        return [event.values["message"] for event in self.events if event.kind == "warning"]

    def write(self, rows: list[Any], name: str = "rows.jsonl") -> None:
        (self.folder / name).write_text("\n".join(json.dumps(row) if not isinstance(row, str) else row for row in rows))


def previewed(data: Data, count: int) -> list[dict[str, Any]]:
    """Return what ``forge data`` shows."""
    assert data.preview
    return data.preview(data, count)


@pytest.fixture
def case(tmp_path: Path, tiny_model: Path) -> Case:
    make_rows(tmp_path / "rows.jsonl", 16)
    return Case(tmp_path, tiny_model)


def chat(question: str, answer: str = "Paris") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_rows_come_back_as_tokens_from_a_mapped_file(case: Case) -> None:
    data = case()
    assert len(data.train) == 16
    assert data.layout == "tokens"
    assert set(data.train.column_names) == {"input_ids", "labels"}
    assert data.train.cache_files[0]["filename"].startswith(str(case.folder / "run" / "data"))
    assert data.eval == {}
    lengths = [len(ids) for ids in data.train["input_ids"]]
    assert [lengths[index] for index in data.longest] == sorted(lengths, reverse=True)
    (event,) = [event for event in case.events if event.kind == "data"]
    assert event.values["rows"] == 16
    assert event.values["tokens"] == sum(lengths)
    assert event.values["supervised"] == sum(label != -100 for row in data.train["labels"] for label in row)
    assert event.values["sources"][0]["format"] == "messages"
    assert event.values["digest"] == data.digest
    json.dumps(dict(event.values))


def test_the_digest_is_of_the_rows_and_of_nothing_else(case: Case) -> None:
    first = case().digest
    case.run = case.handle("again")
    assert case().digest == first
    assert case(digest=first).digest == first
    with pytest.raises(DataError, match="not those that the job names"):
        case(digest="0" * 64)
    assert case(train_on="all").digest != first
    assert case(eval_size=2).digest != first


def test_a_run_that_collates_again_gets_the_same_rows(case: Case) -> None:
    first = case(packing=True, eval_size=0.25)
    second = case(packing=True, eval_size=0.25)
    assert first.digest == second.digest
    assert first.train["input_ids"] == second.train["input_ids"]


def test_a_bad_row_ends_the_run_and_says_how_many_there_are(case: Case) -> None:
    case.write([chat("a"), "{", {"messages": []}, chat("b")])
    with pytest.raises(DataError) as caught:
        case()
    assert str(caught.value).startswith("rows.jsonl:2 is not JSON: ")
    assert "2 of all 4 rows are bad" in str(caught.value)


def test_dropped_rows_are_counted_and_named(case: Case) -> None:
    case.write([chat("a"), "{", {"messages": []}, chat("b")])
    data = case(on_bad_row="drop", max_bad_rows=2)
    assert len(data.train) == 2
    assert data.summary["dropped"] == 2
    assert data.summary["dropped_first"][0].startswith("rows.jsonl:2 is not JSON")
    with pytest.raises(DataError, match=r"max_bad_rows is 1; the first: rows\.jsonl:2"):
        case(on_bad_row="drop", max_bad_rows=1)
    with pytest.raises(DataError, match=r"2 of 4 rows are bad: max_bad_rows is 0\.25"):
        case(on_bad_row="drop", max_bad_rows=0.25)


def test_no_usable_row_is_an_error(case: Case) -> None:
    with pytest.raises(DataError, match=r"no usable rows in rows.jsonl"):
        case(on_bad_row="drop", max_bad_rows=1000, model={"max_seq_length": 8})
    with pytest.raises(DataError, match=r"rows.jsonl:1 has nothing to train on: its answer begins after the first 8"):
        case(model={"max_seq_length": 8})


def test_long_rows_are_cut_dropped_or_refused_as_the_job_says(case: Case) -> None:
    lengths = [len(ids) for ids in case().train["input_ids"]]
    limit = sorted(lengths)[8]
    model = {"max_seq_length": limit}
    over = sum(length > limit for length in lengths)
    assert case(model=model).summary["truncated"] == over
    assert case(model=model, on_long_row="drop").summary["dropped_long"] == over
    with pytest.raises(DataError, match="max_seq_length is"):
        case(model=model, on_long_row="error")


def texts(*counts: int) -> list[dict[str, Any]]:
    return [{"text": f"Number {index}: " + "the sea is wide, " * count} for index, count in enumerate(counts)]


def unpacked(packs: Any) -> list[tuple[list[int], list[int]]]:
    """Return the rows in packs."""
    rows = []
    for row in packs:
        assert sum(row["seq_lengths"]) == len(row["input_ids"]) <= 256
        start = 0
        for length in row["seq_lengths"]:
            rows.append((row["input_ids"][start : start + length], row["labels"][start : start + length]))
            start += length
    return rows


def test_long_texts_become_several_rows_and_lose_nothing(case: Case) -> None:
    case.write(texts(1, 40, 2, 90))
    whole = case(on_long_row="error", model={"max_seq_length": 4096})
    tokens = [token for row in whole.train for token in row["input_ids"]]
    assert "split" not in whole.summary
    for word in ("auto", "split"):
        data = case(on_long_row=word, model={"max_seq_length": 64})
        assert max(map(len, data.train["input_ids"])) == 64
        assert [token for row in data.train for token in row["input_ids"]] == tokens
        assert (data.summary["read"], data.summary["rows"]) == (4, len(data.train))
        assert (data.summary["split"], data.summary["pieces"]) == (2, len(data.train) - 2)
        assert (data.summary["truncated"], data.summary["tokens"]) == (0, len(tokens))
        assert sum(data.summary["eos"].values()) == 4
    origins = [row["origin"] for row in previewed(data, len(data.train))]
    assert origins[0] == "rows.jsonl:1"
    assert origins[1] == f"rows.jsonl:2 (1 of {sum(name.startswith('rows.jsonl:2 ') for name in origins)})"
    cut = case(on_long_row="truncate", model={"max_seq_length": 64})
    assert (len(cut.train), cut.summary["truncated"]) == (4, 2)
    lost = len(tokens) - cut.summary["tokens"]
    assert cut.summary["cut_tokens"] == lost
    assert cut.summary["cut_share"] == round(lost / len(tokens), 4)
    assert cut.summary["cut_share_of_rows"] == round(lost / (lost + 2 * 64), 4)


def test_a_split_text_is_one_row_to_count_to_hold_out_and_to_weigh(case: Case) -> None:
    case.write(texts(40, 40, 40, 40))
    model = {"max_seq_length": 64}
    one = len(case(max_rows=1, model=model).train)
    assert one > 2
    assert len(case(max_rows=3, model=model).train) == 3 * one
    assert len(list(case(max_rows=3, streaming=True, model=model).train)) == 3 * one
    assert len(case(weight=0.5, model=model).train) == 2 * one
    data = case(eval_size=1, model=model)
    assert (len(data.train), len(data.eval["eval"])) == (3 * one, one)
    held, trained = ((case.run.folder / "data" / f"{name}.origins").read_text() for name in ("eval", "train"))
    (origin,) = {line.split(" (")[0] for line in held.splitlines()}
    assert origin not in trained


def test_too_much_that_is_cut_is_an_error_unless_the_job_says_so(case: Case) -> None:
    case.write([chat("a"), chat("b", "green " * 60)])
    with pytest.raises(DataError) as caught:
        case(model={"max_seq_length": 64})
    assert caught.value.what.endswith("% of all tokens of the training rows would be cut off")
    assert "1 of 2 rows are longer than max_seq_length" in str(caught.value.why)
    assert 'on_long_row = "truncate"' in str(caught.value.do)
    with pytest.raises(DataError, match=r"of the first 2 training rows would be cut off"):
        case(model={"max_seq_length": 64}, streaming=True)
    assert case(model={"max_seq_length": 64}, on_long_row="truncate").summary["cut_share"] > 0.1
    case.write([*[chat(f"number {index}") for index in range(40)], chat("b", "green " * 30)])
    summary = case(model={"max_seq_length": 64}).summary
    assert summary["truncated"] == 1
    assert 0 < summary["cut_share"] < 0.1


def test_held_out_rows_that_are_cut_are_said_and_refuse_nothing(case: Case) -> None:
    case.write([chat("a", "red")])
    case.write([chat("b", "green " * 60)], "e.jsonl")
    summary = case(model={"max_seq_length": 64}, eval_path="e.jsonl").summary
    assert summary["eval"]["eval"]["truncated"] == 1
    assert summary["eval"]["eval"]["cut_share"] > 0.1
    assert "cut_share" not in summary


def test_what_a_stream_cuts_later_is_warned_of(case: Case) -> None:
    case.write([*[chat(f"number {index}") for index in range(64)], *[chat("b", "green " * 90)] * 400])
    data = case(model={"max_seq_length": 64}, streaming=True)
    assert not case.warnings()
    assert len(list(data.train)) == 464
    (message,) = case.warnings()
    assert message.endswith("of all tokens of the first 256 streamed rows were cut off")


@pytest.mark.slow
def test_packs_of_a_stream_hold_its_rows_and_come_back_the_same(case: Case) -> None:
    make_rows(case.folder / "rows.jsonl", 1200)
    single = case(streaming=True)
    data = case(streaming=True, packing=True, model={"max_seq_length": 256})
    packs = list(data.train)
    assert packs == list(data.train)
    assert packs[7:] == list(data.train.skip(7))
    assert sorted(unpacked(packs)) == sorted((row["input_ids"], row["labels"]) for row in single.train)
    assert data.summary["packed"] < data.summary["rows"] == 64
    assert 0.5 < data.summary["filled"] <= 1
    assert previewed(data, 1)[0]["seq_lengths"] == packs[0]["seq_lengths"]
    assert data.digest == case(streaming=True, packing=True, model={"max_seq_length": 256}).digest != single.digest


def test_rows_of_tokens_reach_the_trainer_as_they_are(case: Case) -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}, {"input_ids": [8, 9]}]
    case.write(rows)
    data = case()
    assert list(data.train["input_ids"]) == [[5, 6, 7], [8, 9]]
    assert list(data.train["labels"]) == [[-100, 6, 7], [8, 9]]
    case.write([*rows, {"input_ids": [5, 400]}])
    with pytest.raises(DataError, match=r"rows.jsonl:3 has the token id 400: the model's ids are 0 to 399"):
        case()


def test_the_models_own_limit_can_be_taken(case: Case) -> None:
    assert case(model={"max_seq_length": -1}).summary["max_seq_length"] == 512
    case.run = case.handle("other", context=64)
    assert case(model={"max_seq_length": -1}).summary["max_seq_length"] == 64


def test_weights_repeat_rows_and_draw_a_share_by_the_seed(case: Case) -> None:
    case.write([chat(f"other {index}") for index in range(8)], "b.jsonl")
    sources = [{"path": "rows.jsonl", "weight": 2.0}, {"path": "b.jsonl", "weight": 0.5}]
    data = collate(case.job({"sources": sources}), case.run)
    assert len(data.train) == 32 + 4
    assert data.summary["rows"] == 36
    again = collate(case.job({"sources": sources}), case.handle("b"))
    other = collate(case.job({"sources": sources}, {"seed": 7}), case.handle("c"))
    assert data.digest == again.digest != other.digest


def test_held_out_rows_are_not_trained_on(case: Case) -> None:
    data = case(eval_size=0.25)
    assert (len(data.train), len(data.eval["eval"])) == (12, 4)
    train = {tuple(ids) for ids in data.train["input_ids"]}
    assert not train & {tuple(ids) for ids in data.eval["eval"]["input_ids"]}
    assert not case.warnings()
    with pytest.raises(DataError, match="leaves nothing to train on"):
        case(eval_size=16)


def test_held_out_rows_that_are_trained_on_too_are_warned_of(case: Case) -> None:
    case.write([chat("new"), *map(json.loads, (case.folder / "rows.jsonl").read_text().splitlines()[:3])], "e.jsonl")
    data = case(eval_path="e.jsonl")
    assert len(data.eval["eval"]) == 4
    assert data.summary["eval"]["eval"]["rows"] == 4
    assert any("3 of the 4 different rows" in message for message in case.warnings())


def test_a_held_out_split_comes_from_the_same_folder(case: Case) -> None:
    (case.folder / "d").mkdir()
    make_rows(case.folder / "d" / "train.jsonl", 5)
    case.write([chat("x")], "d/test.jsonl")
    data = case(path="d", eval_split="test")
    assert (len(data.train), len(data.eval["eval"])) == (5, 1)


def test_max_rows_takes_the_first(case: Case) -> None:
    whole = case().train["input_ids"][:5]
    assert case(max_rows=5).train["input_ids"] == whole


def test_packed_rows_hold_what_the_single_ones_held(case: Case) -> None:
    single = case()
    data = case(packing=True, model={"max_seq_length": 256})
    assert data.summary["packed"] == len(data.train) < 16
    assert sorted(unpacked(data.train)) == sorted((row["input_ids"], row["labels"]) for row in single.train)


def test_rows_without_a_template_are_refused_with_names_of_templates(case: Case, tmp_path: Path) -> None:
    case.model = make_tokenizer(tmp_path / "bare", template=None)
    case.run = case.handle("bare")
    with pytest.raises(DataError, match=r"rows of the format messages need a chat template: .* alpaca, chatml"):
        case()
    case.write([{"question": "a", "answer": "b"}])
    with pytest.raises(DataError, match=r"rows of the format input-output need a chat template"):
        case()
    data = case(chat_template="alpaca")
    assert data.processor.chat_template is not None
    assert data.summary["template"] == {"name": "alpaca", "origin": "forge"}
    case.write([{"prompt": "a", "completion": "b"}])
    assert len(case().train) == 1
    with pytest.raises(DataError, match="no chat template 'vicuna': forge ships alpaca"):
        case(chat_template="vicuna")


def test_a_missing_pad_token_is_replaced_without_a_new_token(case: Case, tmp_path: Path) -> None:
    case.model = make_tokenizer(tmp_path / "nopad")
    config = json.loads((case.model / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (case.model / "tokenizer_config.json").write_text(json.dumps(config))
    case.run = case.handle("nopad")
    data = case()
    assert data.processor.pad_token == "<pad>"
    assert len(data.processor) == 400
    assert "found in the vocabulary" in data.summary["pad"]


def test_much_that_is_cut_is_warned_of(case: Case) -> None:
    case(model={"max_seq_length": 45}, on_long_row="truncate")
    assert any("are cut at max_seq_length" in message for message in case.warnings())


def test_streamed_rows_equal_the_others_and_begin_anew_the_same(case: Case) -> None:
    whole = case()
    data = case(streaming=True)
    rows = list(data.train)
    assert [row["input_ids"] for row in rows] == list(whole.train["input_ids"])
    assert rows == list(data.train)
    assert rows[5:] == list(data.train.skip(5))
    assert data.digest == case(streaming=True).digest
    assert data.summary["streaming"] is True


def test_streamed_sources_are_mixed_by_the_seed(case: Case) -> None:
    case.write([chat(f"other {index}") for index in range(8)], "b.jsonl")
    table = {"sources": [{"path": "rows.jsonl", "weight": 2.0}, {"path": "b.jsonl"}], "streaming": True}
    first = [row["input_ids"] for row in collate(case.job(table), case.run).train]
    assert len(first) == 40
    assert first == [row["input_ids"] for row in collate(case.job(table), case.run).train]
    assert first != [row["input_ids"] for row in collate(case.job(table, {"seed": 7}), case.run).train]


def test_a_stream_can_be_sent_to_a_loader_process(case: Case) -> None:
    from torch.utils.data import DataLoader

    data = case(streaming=True)
    loader = DataLoader(data.train, batch_size=None, num_workers=1, multiprocessing_context="fork")
    assert [row["input_ids"] for row in loader] == [row["input_ids"] for row in data.train]


def test_a_streamed_bad_row_ends_the_run(case: Case) -> None:
    case.write([chat("a"), "{"])
    with pytest.raises(DataError, match=r"rows.jsonl:2 is not JSON"):
        case(streaming=True)


def test_the_preview_shows_the_tokenised_rows(case: Case) -> None:
    data = case()
    (first, second) = previewed(data, 2)
    assert first["origin"] == "rows.jsonl:1"
    assert second["length"] == len(data.train[1]["input_ids"])
    assert [segment["supervised"] for segment in first["segments"]] == [False, True]
    assert first["segments"][1]["text"].endswith("<|im_end|>\n</s>")
    assert [token for segment in first["segments"] for token in segment["ids"]] == data.train[0]["input_ids"]
    json.dumps(first)
    assert " + " in previewed(case(packing=True), 1)[0]["origin"]
    assert previewed(case(streaming=True), 3)[2]["origin"] is None


def test_the_collator_is_made_for_the_model(case: Case) -> None:
    data = case()
    assert data.collator is not None
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa"))
    loaded = Loaded(model=model, traits=frozenset({"hf-model"}))
    batch = data.collator(loaded)([data.train[0], data.train[1]])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape


def test_collating_leaves_the_random_state_alone(case: Case) -> None:
    random.seed(1)
    before = random.getstate()
    case(eval_size=4)
    assert random.getstate() == before


def test_a_damaged_or_missing_model_is_a_model_error(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    case.model = tmp_path / "empty"
    case.run = case.handle("x")
    with pytest.raises(ModelError, match=r"the tokenizer of .* cannot be loaded"):
        case()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run = case.handle("y", source="hub", path=None)
    with pytest.raises(ModelError, match="cannot be had: there is no such folder here, the hub cannot be reached"):
        snapshot(case.job({"path": "x"}, id="org/none"), run, weights=False)


def test_files_that_are_not_read_are_warned_of_and_held_out_ones_are_not(case: Case) -> None:
    (case.folder / "d").mkdir()
    for name in ("train", "test", "dev"):
        case.write([{"text": f"{name} {number}"} for number in range(4)], f"d/{name}.jsonl")
    case(path="d", eval_split="test")
    assert [said for said in case.warnings() if "not read" in said] == [
        "not read of d: dev.jsonl (of split validation)"
    ]
    case.write([{"text": "more"}], "d/more.jsonl")
    with pytest.raises(
        DataError, match=r"which files of d are of split train cannot be told .* more\.jsonl named after"
    ):
        case(path="d", eval_split="test")


def test_a_text_file_is_a_row_of_plain_text(case: Case) -> None:
    for number in range(3):
        (case.folder / f"{number}.txt").write_text(f"Text number {number}.\n")
    (case.folder / "3.txt").write_text("")
    with pytest.raises(DataError, match=r"3\.txt:1 has no text: the file is empty, 1 of all 4 rows are bad"):
        case(path="*.txt")
    data = case(path="*.txt", on_bad_row="drop", max_bad_rows=1)
    assert (data.summary["rows"], data.summary["dropped_bad"]) == (3, 1)


def sources(case: Case, *, one: int = 10, two: int = 40, **keys: Any) -> list[dict[str, Any]]:
    """Write two files and return them as sources with the same share."""
    case.write([chat(f"one {index}") for index in range(one)], "one.jsonl")
    case.write([chat(f"two {index}") for index in range(two)], "two.jsonl")
    return [{"path": "one.jsonl", "share": 0.2, **keys}, {"path": "two.jsonl", "share": 0.3, **keys}]


def counted(data: Data) -> dict[str, int]:
    origins = [row["origin"].partition(":")[0] for row in previewed(data, len(data.train))]
    return {name: origins.count(name) for name in ("one.jsonl", "two.jsonl")}


def test_an_epoch_holds_the_shares_until_a_source_is_used_up_or_all_are(case: Case) -> None:
    both = sources(case)
    assert counted(case(path=None, sources=both)) == {"one.jsonl": 10, "two.jsonl": 15}
    data = case(path=None, sources=both, stopping_strategy="all_exhausted")
    assert counted(data) == {"one.jsonl": 27, "two.jsonl": 40}
    with pytest.raises(DataError, match=r"no rows of .*one.jsonl are left"):
        case(path=None, sources=both, eval_size=49, train={"options": {"seed": 1}})


def test_a_stream_ends_where_its_shares_do(case: Case) -> None:
    both = sources(case, one=40, two=200)
    rows = [row["input_ids"] for row in case(path=None, sources=both, streaming=True).train]
    assert 70 < len(rows) < 130, "40 rows are two fifths of a hundred"
    rows = [
        row["input_ids"]
        for row in case(path=None, sources=both, streaming=True, stopping_strategy="all_exhausted").train
    ]
    assert len({tuple(row) for row in rows}) == 240, "every row is there"
    assert 270 < len(rows) < 400, "200 rows are three fifths of 333"


def test_rows_of_a_source_are_drawn_or_the_first_ones_are_taken(case: Case) -> None:
    first, second = ({**each, "share": None} for each in sources(case))
    drawn = case(path=None, sources=[{**first, "max_rows": 3}, {**second, "draw_rows": 8}])
    origins = [row["origin"] for row in previewed(drawn, 11)]
    assert origins[:3] == ["one.jsonl:1", "one.jsonl:2", "one.jsonl:3"]
    assert origins[3:] != [f"two.jsonl:{number}" for number in range(1, 9)], "any rows, and not the first"
    assert len(origins) == len(set(origins)) == 11
    again = case(path=None, sources=[{**first, "max_rows": 3}, {**second, "draw_rows": 8}])
    assert again.digest == drawn.digest
    assert case(path="one.jsonl", draw_rows=11).summary["rows"] == 10
    assert "one.jsonl has 10 rows: all are taken" in case.warnings()

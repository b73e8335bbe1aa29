"""Folders: which of their files are read, and that every other one is named."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from forge.errors import DataError
from forge.job.data import Source
from forge.job.job import Job
from forge_huggingface.sources.sources import iterate, left_out

if TYPE_CHECKING:
    from pathlib import Path


def job(folder: Path) -> Job:
    return Job.model_validate({"model": {"id": "m"}, "data": {"path": "x"}}).model_copy(update={"folder": folder})


def lay(folder: Path, *files: str) -> Path:
    """Write a folder ``d`` of files, each with its own name as its only row."""
    for name in files:
        path = folder / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": name}))
    return folder / "d"


def texts(folder: Path, split: str | None = None, path: str = "d") -> list[str]:
    """Return the names of the files that are read."""
    found = iterate(job(folder), Source.model_validate({"path": path, "split": split}))
    return [row["text"] for _, row in found if isinstance(row, dict)]


def left(folder: Path, *sources: dict[str, Any]) -> list[str]:
    """Return what is told of the files that are not read."""
    return left_out(job(folder), [Source.model_validate({"path": "d"} | source) for source in sources or ({},)])


@pytest.mark.parametrize("split", [None, "train"])
@pytest.mark.parametrize(
    "files",
    [
        ["monday.jsonl", "tuesday.jsonl"],
        ["testimony.jsonl", "developer.jsonl", "trains.jsonl", "tests_passed.jsonl", "evaluate.jsonl"],
        ["de/a.jsonl", "en/b.jsonl"],
        ["trainData.jsonl", "größe.jsonl", "-x.jsonl", "a b.jsonl", "_a.jsonl", "UPPER.JSONL"],
        ["rows-00000-of-00002.jsonl", "rows-00001-of-00002.jsonl"],
    ],
)
def test_a_folder_that_names_no_split_is_read_whole(tmp_path: Path, files: list[str], split: str | None) -> None:
    lay(tmp_path, *files)
    assert sorted(texts(tmp_path, split)) == sorted(files)
    assert left(tmp_path) == []
    with pytest.raises(DataError, match="d has no split 'test': no file or folder in it is named after a split"):
        texts(tmp_path, "test")


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (["train.jsonl"], ["test.jsonl"]),
        (["Train.JSONL"], ["TEST.jsonl"]),
        (["train-a.jsonl", "train2.jsonl", "training_b.jsonl"], ["test1.jsonl", "testing.jsonl"]),
        (["cards_train.jsonl", "my train.jsonl"], ["cards.test.jsonl"]),
        (["data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"], ["data/test-00000-of-00001.jsonl"]),
        (["train/0.jsonl", "train/test_cases.jsonl"], ["test/0.jsonl", "test/train.jsonl"]),
        (["data/en/train.jsonl", "data/de/train.jsonl"], ["data/en/test.jsonl"]),
        (["en-train/a.jsonl"], ["en-test/a.jsonl"]),
    ],
)
def test_splits_are_told_by_words_in_names(tmp_path: Path, train: list[str], test: list[str]) -> None:
    lay(tmp_path, *train, *test)
    assert texts(tmp_path) == sorted(train)
    assert texts(tmp_path, "test") == texts(tmp_path, "Testing") == sorted(test)
    assert left(tmp_path) == [f"not read of d: {', '.join(sorted(test))} (of split test)"]
    assert left(tmp_path, {}, {"split": "test"}) == []
    with pytest.raises(DataError, match="no split 'validation': there are test, train; set split, as in"):
        texts(tmp_path, "validation")


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_split_goes_by_several_names(tmp_path: Path, name: str) -> None:
    lay(tmp_path, f"{name}.jsonl", "train.jsonl")
    for split in ("validation", "valid", "val", "dev"):
        assert texts(tmp_path, split) == [f"{name}.jsonl"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            ["monday.jsonl", "tuesday.jsonl", "test.jsonl"],
            "test.jsonl of split test; monday.jsonl, tuesday.jsonl named after no split; give all of them names",
        ),
        (["train.jsonl", "extra/more.jsonl"], "train.jsonl of split train; extra/more.jsonl named after no split"),
        (["train.jsonl", "train_eval.jsonl"], "train.jsonl of split train; train_eval.jsonl named after several"),
        (["validation-train-mix.jsonl"], "validation-train-mix.jsonl named after several splits"),
        (["train.jsonl", *(f"{n}.jsonl" for n in range(9))], "0.jsonl, 1.jsonl, .*, 4.jsonl and 4 more named after no"),
    ],
)
def test_what_names_do_not_tell_is_not_guessed(tmp_path: Path, files: list[str], said: str) -> None:
    lay(tmp_path, *files)
    with pytest.raises(
        DataError, match=f"which files of d are of split train cannot be told from their names: .*{said}"
    ):
        texts(tmp_path)
    with pytest.raises(DataError, match="cannot be told"):
        left(tmp_path)


def test_a_split_that_is_asked_for_is_taken_and_the_rest_named(tmp_path: Path) -> None:
    lay(tmp_path, "monday.jsonl", "test.jsonl", "train_eval.jsonl")
    assert texts(tmp_path, "test") == ["test.jsonl"]
    assert left(tmp_path, {"split": "test"}) == [
        "not read of d: monday.jsonl (named after no split); train_eval.jsonl (named after several splits)"
    ]


@pytest.mark.parametrize("name", ["test", "validation", "eval"])
def test_a_lone_split_that_is_not_for_training_is_not_trained_on(tmp_path: Path, name: str) -> None:
    lay(tmp_path, f"{name}.jsonl")
    for split in (None, "train"):
        with pytest.raises(DataError, match=f"no split 'train': there is {name}; set split, as in split = \"{name}\""):
            texts(tmp_path, split)
    assert texts(tmp_path, name) == [f"{name}.jsonl"]


def test_shards_of_splits_that_begin_alike_are_not_mixed(tmp_path: Path) -> None:
    names = [f"data/{name}-00000-of-00001.jsonl" for name in ("test_gen", "test_sft", "train_gen", "train_sft")]
    lay(tmp_path, *names)
    assert texts(tmp_path, "train_sft") == [names[3]]
    with pytest.raises(DataError, match="d has several splits for 'train': there are train_gen, train_sft; set split"):
        texts(tmp_path)


def test_files_that_hold_no_rows_are_named_but_for_those_that_never_do(tmp_path: Path) -> None:
    silent = [
        "README.md",
        "LICENSE",
        "_SUCCESS",
        "._train.jsonl",
        ".hidden/a.jsonl",
        "images/1.PNG",
        ".train.jsonl.crc",
    ]
    silent += ["__MACOSX/train.jsonl", "dataset_infos.json", "config.json"]
    lay(tmp_path, "train.jsonl", *silent, "train.xlsx", "sub/more.pdf", "notes.txt", "metadata.json")
    assert texts(tmp_path) == ["train.jsonl"]
    assert left(tmp_path) == [
        "not read of d: metadata.json (a record about rows by its name); "
        "sub/more.pdf, train.xlsx (of a kind that is not read); "
        "notes.txt (texts beside rows of another kind)"
    ]


def test_a_folder_of_texts_has_a_row_for_each(tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "sub/c.txt"):
        (tmp_path / "d" / name).write_text(name)
    assert texts(tmp_path) == ["a.txt", "b.txt", "sub/c.txt"]
    assert left(tmp_path) == []


def test_a_folder_without_rows_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(
        DataError, match=r"d holds no rows: there is no file in it that could be rows; files of rows are"
    ):
        texts(tmp_path)
    lay(tmp_path, "a.xlsx", "b.pdf", "README.md")
    with pytest.raises(DataError, match=r"d holds no rows: it has a\.xlsx, b\.pdf alone"):
        texts(tmp_path)


def test_an_empty_file_beside_others_is_an_error_that_names_it(tmp_path: Path) -> None:
    lay(tmp_path, "a.jsonl", "b.jsonl")
    (tmp_path / "d" / "b.jsonl").write_text("")
    with pytest.raises(DataError, match=r"d/b\.jsonl holds no rows"):
        texts(tmp_path)


def test_every_file_is_read_or_named_exactly_once(tmp_path: Path) -> None:
    files = ["train.jsonl", "train/a.jsonl", "x/test-1.json", "dev.txt", "metadata.json", "b.npy", "y/z/eval.csv"]
    files += ["more.jsonl", "valid_test.jsonl", "x/rows.jsonl.bz2", "no suffix"]
    lay(tmp_path, *files)
    read = {origin.rpartition(":")[0][2:] for origin, _ in iterate(job(tmp_path), Source(path="d", split="train"))}
    (said,) = left(tmp_path, {"split": "train"})
    assert read == {"train.jsonl", "train/a.jsonl"}
    assert [name for name in files if (name in read) == (said.count(name) == 1)] == []


# Links


def test_links_to_files_and_folders_are_followed_and_no_folder_is_read_twice(tmp_path: Path) -> None:
    lay(tmp_path, "a.jsonl", "2024/b.jsonl")
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "c.jsonl").write_text('{"text": "c"}')
    for name, to in (("latest", "2024"), ("round", "."), ("away", "../far"), ("d.jsonl", "../far/c.jsonl")):
        (tmp_path / "d" / name).symlink_to(to)
    found = [origin for origin, _ in iterate(job(tmp_path), Source(path="d"))]
    assert found == ["d/2024/b.jsonl:1", "d/a.jsonl:1", "d/away/c.jsonl:1", "d/d.jsonl:1"]
    assert sorted(texts(tmp_path, path="d/**/*.jsonl")) == ["2024/b.jsonl", "a.jsonl", "c", "c"]


@pytest.mark.parametrize("path", ["d", "d/*.jsonl", "d/b.jsonl"])
def test_a_link_to_nothing_is_an_error(tmp_path: Path, path: str) -> None:
    (lay(tmp_path, "a.jsonl") / "b.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError, match=r"is not whole: .*b.jsonl is a link to gone.jsonl, which is not there; fetch"):
        texts(tmp_path, path=path)


def test_a_link_to_a_folder_around_it_is_an_error(tmp_path: Path) -> None:
    (lay(tmp_path, "a.jsonl") / "up").symlink_to("..")
    with pytest.raises(DataError, match=r"d has no end: .*up is a link to a folder around it; remove the link"):
        texts(tmp_path)


def test_each_folder_is_listed_once_however_many_files_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "d"
    for part in range(10):
        (folder / f"train-{part}").mkdir(parents=True)
        for number in range(100):
            (folder / f"train-{part}" / f"{number}.txt").touch()
    listed: list[str] = []
    scan = os.scandir

    def counted(path: Any) -> Any:
        listed.append(os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", counted)
    assert left(tmp_path) == []
    assert sorted(listed) == sorted(map(str, [folder, *folder.iterdir()]))


# What `datasets` has saved


def dataset(count: int = 6) -> Any:
    from datasets import Dataset

    return Dataset.from_list([{"text": str(number), "n": number} for number in range(count)])


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows,
        lambda rows: rows.filter(lambda row: row["n"] % 2),
        lambda rows: rows.select([4, 1]),
        lambda rows: rows.shuffle(seed=3),
        lambda rows: rows.map(lambda row: {"text": row["text"] + "!"}),
        lambda rows: rows.train_test_split(2, seed=1)["test"],
    ],
)
@pytest.mark.parametrize("shards", [1, 2])
def test_a_saved_set_is_read_as_datasets_reads_it(tmp_path: Path, change: Any, shards: int) -> None:
    from datasets import load_from_disk

    change(dataset()).save_to_disk(tmp_path / "d", num_shards=shards)
    expected = list(load_from_disk(tmp_path / "d")["text"])
    assert texts(tmp_path) == expected
    assert left(tmp_path) == []


def test_caches_beside_a_saved_set_are_no_rows(tmp_path: Path) -> None:
    from datasets import load_from_disk

    dataset().save_to_disk(tmp_path / "d")
    loaded = load_from_disk(tmp_path / "d")
    loaded.map(lambda _: {"text": "cached"}).filter(lambda row: row["n"] > 1).shuffle(seed=1)
    assert list((tmp_path / "d").glob("cache-*.arrow"))
    assert texts(tmp_path) == texts(tmp_path, path="d/*.arrow") == list("012345")
    assert left(tmp_path) == []
    lay(tmp_path, "more.jsonl")
    assert left(tmp_path) == ["not read of d: more.jsonl (not in state.json)"]


def test_a_saved_dictionary_has_the_splits_that_it_names(tmp_path: Path) -> None:
    from datasets import DatasetDict

    parts = {"train": dataset(3), "train_sft": dataset(4), "Other": dataset(1), "test": dataset(2)}
    DatasetDict(parts).save_to_disk(tmp_path / "d")
    for split, rows in parts.items():
        assert len(texts(tmp_path, split)) == len(rows)
    assert len(texts(tmp_path)) == 3
    assert left(tmp_path, {}, {"split": "test"}) == [
        "not read of d: Other/data-00000-of-00001.arrow (of split other); "
        "train_sft/data-00000-of-00001.arrow (of split train_sft)"
    ]
    with pytest.raises(DataError, match="no split 'validation': there are other, test, train, train_sft"):
        texts(tmp_path, "validation")


def test_a_saved_dictionary_without_train_needs_a_split(tmp_path: Path) -> None:
    from datasets import DatasetDict

    DatasetDict(all=dataset(3)).save_to_disk(tmp_path / "d")
    with pytest.raises(DataError, match=r'no split \'train\': there is all; set split, as in split = "all"'):
        texts(tmp_path)
    assert len(texts(tmp_path, "all")) == 3


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_indices_data_files": [{"filename": "indices.arrow"}]}, "d is a selection .* after flatten_indices"),
        ({"_indices_files": [{"filename": "indices.arrow"}]}, "d is a selection .* after flatten_indices"),
        ({"_data_files": [{"filename": "data-1.arrow"}]}, "d is not whole: state.json names data-1.arrow"),
    ],
)
def test_a_saved_set_that_would_lose_rows_is_refused(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    dataset().save_to_disk(tmp_path / "d")
    path = tmp_path / "d" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | state))
    with pytest.raises(DataError, match=message):
        texts(tmp_path)
    path.write_text("{")
    with pytest.raises(DataError, match=r"state.json is damaged: .*; save the data set again"):
        texts(tmp_path)


def test_a_saved_dictionary_that_lacks_a_split_is_refused(tmp_path: Path) -> None:
    from datasets import DatasetDict

    DatasetDict(train=dataset(3)).save_to_disk(tmp_path / "d")
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(
        DataError, match=r"d is not whole: dataset_dict\.json names the split test, and there is no folder"
    ):
        texts(tmp_path)

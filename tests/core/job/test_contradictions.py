"""Contradictions between the core's own keys: all of them at once, each at a key that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.discovery.catalogue import Catalogue
from forge.discovery.keys import PluginKeys
from forge.errors import JobError, Mistake, Mistakes
from forge.job.check import JobCheck
from forge.job.job import dump_job, load_job
from forge.job.read import parse
from forge.job.table import Table


def told(text: str, catalogue: Catalogue) -> dict[tuple[str, str], int | None]:
    """Return the line of each mistake of a job, by its key and its first word."""
    with pytest.raises(JobError) as caught:
        parse(text, "job.toml", Path("/jobs"), PluginKeys(catalogue))
    return {(each.where, each.message.split()[0]): each.line for each in caught.value.problems}


def test_no_contradiction_hides_behind_another(catalogue: Catalogue) -> None:
    text = """\
[model]
id = "m"
load_in_4bit = true
load_in_8bit = true
max_seq_length = 3

[data]
path = "d.jsonl"
eval_size = 0.1
eval_split = "test"
streaming = true
[[data.sources]]
weight = 0.5

[eval]
metrics = ["f1", "f1", "pass@4"]
num_generations = 2
"""
    assert told(text, catalogue) == {
        ("model.load_in_4bit", "load_in_4bit"): 3,
        ("model.max_seq_length", "max_seq_length"): 5,
        ("data.path", "path"): 8,
        ("data.sources", "every"): 12,
        ("data.eval_split", "eval_split"): 10,
        ("data.eval_size", "eval_size"): 9,
        ("eval.metrics", "metrics"): 16,
        ("eval.num_generations", "num_generations"): 17,
    }


def test_an_adapter_is_told_of_both_pairs_of_parts_that_are_off(catalogue: Catalogue) -> None:
    names = ("vision_layers", "language_layers", "attention_modules", "mlp_modules")
    keys = "".join(f"finetune_{name} = false\n" for name in names)
    text = f'[model]\nid = "m"\n[data]\npath = "d"\n[adapter]\n{keys}'
    assert told(text, catalogue) == {
        ("adapter.finetune_vision_layers", "finetune_vision_layers"): 6,
        ("adapter.finetune_attention_modules", "finetune_attention_modules"): 8,
    }


def test_a_mistake_stands_at_the_first_of_its_keys_that_the_file_has_whatever_its_words_are() -> None:
    class Words(Table):
        one: int = 1
        two: int = 2

        def contradictions(self):  # type: ignore[no-untyped-def]
            yield Mistake("a sentence in which no key is named", ("one", "two"))
            yield Mistake("a sentence about one and two that is about the table")

    text = "[words]\n\ntwo = 3\n"
    check = JobCheck({"words": {"two": 3}}, text, PluginKeys(Catalogue(())))
    check.validate(Words, {"two": 3}, ("words",), check.unknown_core)
    assert [(each.where, each.line) for each in check.problems] == [("words.two", 3), ("words", 1)]


def test_mistakes_read_as_one_sentence_where_nobody_takes_them_apart() -> None:
    assert str(Mistakes(Mistake("this is wrong"), Mistake("that too", ("key",)))) == "this is wrong; also, that too"


def test_a_job_that_an_older_forge_has_checked_is_loaded_as_it_is(tmp_path: Path) -> None:
    data = {"model": {"id": "m"}, "data": {"path": "d", "max_bad_rows": 5}, "folder": str(tmp_path)}
    assert load_job(data).data.max_bad_rows == 5


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('path = "d"\nshare = 0.5', "there is one source"),
        ('[[data.sources]]\npath = "a"\nshare = 0.5\n[[data.sources]]\npath = "b"', "write it in all"),
        ('[[data.sources]]\npath = "a"\nshare = 1\nweight = 2', "keep one"),
        ('path = "d"\nstopping_strategy = "all_exhausted"', "no source has a share"),
        ('path = "d"\ndraw_rows = 5\nmax_rows = 5', "keep one"),
        ('path = "d"\ndraw_rows = 5\nstreaming = true', "streaming never sees them"),
        ('draw_rows = 5\n[[data.sources]]\npath = "a"', "belong into each"),
    ],
)
def test_shares_and_drawn_rows_that_say_nothing_or_two_things(keys: str, said: str, catalogue: Catalogue) -> None:
    with pytest.raises(JobError) as caught:
        parse(f'[model]\nid = "m"\n[data]\n{keys}\n', "job.toml", Path("/jobs"), PluginKeys(catalogue))
    assert said in str(caught.value)


def test_a_mixture_by_shares_is_no_contradiction_also_once_every_value_is_in_it(catalogue: Catalogue) -> None:
    both = '[[data.sources]]\npath = "a"\nshare = 1\n[[data.sources]]\npath = "b"\nshare = 3\n'
    keys = f'[model]\nid = "m"\n[data]\nmax_rows = 9\nstopping_strategy = "all_exhausted"\n{both}'
    job = parse(keys, "job.toml", Path("/jobs"), PluginKeys(catalogue)).job
    assert dump_job(load_job(dump_job(job))) == dump_job(job)

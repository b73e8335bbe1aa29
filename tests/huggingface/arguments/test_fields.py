"""What the trainers' sources say, read without importing them."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from forge_huggingface.arguments import fields

TESTED = ("trl 1.16.0, transformers 5.23.0", "trl 1.14.2, transformers 5.17.0")
needs_trl = pytest.mark.skipif(fields.read() is None, reason="trl is not installed")


def test_the_committed_table_holds_both_tested_sets_the_newest_first():
    assert tuple(fields.committed()) == TESTED
    assert fields.COMMITTED.stat().st_size < 120_000


@pytest.mark.skipif(fields.installed() not in TESTED, reason="another version than those in the table")
def test_the_committed_table_is_what_the_installed_versions_say():
    assert fields.committed()[fields.installed()] == fields.read()


@needs_trl
def test_reading_finds_what_the_dataclass_has():
    import trl

    found = fields.read()
    real = {field.name: field for field in dataclasses.fields(trl.SFTConfig)}
    assert list(found) == list(real), "every field, in the same order"
    for name, field in real.items():
        default = field.default_factory() if field.default is dataclasses.MISSING else field.default
        assert found[name].default == default, name
        annotation = str(field.type)
        if found[name].choices == () and "ParallelismConfig" not in annotation:
            for word in ("int", "float", "str", "bool", "dict"):
                assert word not in found[name].type or word in annotation.lower() or "Literal" in annotation, name


@needs_trl
def test_choices_are_the_members_of_the_enums():
    from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
    from transformers.training_args import OptimizerNames

    def values(enum) -> set[str]:
        return {member.value for member in enum}

    found = fields.read()
    assert set(found["optim"].choices) == values(OptimizerNames)
    assert set(found["lr_scheduler_type"].choices) == values(SchedulerType)
    assert set(found["eval_strategy"].choices) == values(IntervalStrategy)
    assert set(found["save_strategy"].choices) == values(SaveStrategy)
    assert set(found["hub_strategy"].choices) == values(HubStrategy)


def test_every_field_has_one_short_sentence_of_help():
    for table in fields.committed().values():
        for field in table.values():
            assert 0 < len(field.help) < 140, field.name
            assert "\n" not in field.help, field.name
            assert "%%" not in field.help, field.name


def test_the_class_that_declares_a_field_last_gives_its_default():
    table = fields.table()
    assert (table["learning_rate"].declared, table["learning_rate"].default) == ("SFTConfig", 2e-5)
    assert (table["logging_steps"].declared, table["logging_steps"].default) == ("_BaseConfig", 10)
    assert table["seed"].declared == "TrainingArguments"


def test_types_are_named_alike():
    known = {"bool", "int", "float", "str", "list[str]", "dict", "null"}
    for table in fields.committed().values():
        assert {name for field in table.values() for name in field.type.split("|")} <= known


def test_deprecated_fields_are_marked():
    table = fields.committed()[TESTED[0]]
    for name in ("pad_token", "gradient_checkpointing_kwargs", "local_rank"):
        assert table[name].deprecated, name
    assert not table["truncation_mode"].deprecated, "only one of its values is"


def test_a_config_that_trl_does_not_have_reads_as_none():
    assert fields.read("NoSuchConfig") is None


@needs_trl
@pytest.mark.parametrize("config", ["DPOConfig", "KTOConfig", "RewardConfig", "GRPOConfig", "RLOOConfig"])
def test_the_other_trainers_configs_can_be_read_too(config):
    import trl

    assert list(fields.read(config)) == [field.name for field in dataclasses.fields(getattr(trl, config))]


def test_without_trl_the_committed_table_serves(monkeypatch):
    monkeypatch.setattr(fields, "read", lambda *_: None)
    fields.table.cache_clear()
    try:
        assert fields.table() == fields.committed()[TESTED[0]]
    finally:
        fields.table.cache_clear()


@needs_trl
@pytest.mark.skipif(fields.installed() not in TESTED, reason="another version than those in the table")
def test_writing_the_table_again_changes_nothing(monkeypatch, tmp_path):
    copy = tmp_path / "fields.json"
    copy.write_bytes(fields.COMMITTED.read_bytes())
    before = fields.COMMITTED.read_text(encoding="utf-8")
    monkeypatch.setattr(fields, "COMMITTED", copy)
    assert fields.write() == fields.installed()
    assert copy.read_text(encoding="utf-8") == before


@needs_trl
def test_reading_imports_nothing_heavy_and_opens_each_source_once():
    program = """
import json, sys
import forge_huggingface.arguments.fields as fields
import forge_huggingface.arguments.options as options
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
fields.read()
reading = list(opened)
options.train_options("sft")
options.train_options("dpo")
heavy = {"torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy"}
sources = lambda paths: [path for path in paths if "/trl/" in path or "/transformers/" in path]
print(json.dumps([sorted(heavy & {name.partition(".")[0] for name in sys.modules}), sources(reading), sources(opened)]))
"""
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    heavy, reading, opened = json.loads(answer)
    assert heavy == []
    assert len(reading) <= 6
    assert len(set(opened)) == len(opened)
    assert opened[len(reading) :] == [path for path in opened if path.endswith("dpo_config.py")]

"""Job files: every mistake at once, each with its line and what to write instead; and what is right survives a lock."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomli
import tomli_w

from forge.api import Offer, Stage
from forge.discovery.catalogue import Catalogue, Plugin
from forge.discovery.keys import PluginKeys
from forge.errors import JobError, PluginError, Problem, UsageError
from forge.job.job import dump_job, load_job
from forge.job.read import change_of, parse, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from forge.job.read import JobFile
    from support.sites import Site

BASE = '[model]\nid = "m"\n[data]\npath = "d.jsonl"\n'


class Jobs:
    """Reads job texts with this checkout's plugins."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue

    def good(self, text: str, *overrides: str) -> JobFile:
        return parse(
            text, "job.toml", Path("/jobs"), PluginKeys(self.catalogue), [change_of(text) for text in overrides]
        )

    def bad(self, text: str, *overrides: str) -> dict[str, Problem]:
        """Return the problems of a text by their keys."""
        with pytest.raises(JobError) as caught:
            self.good(text, *overrides)
        found = {problem.where: problem for problem in caught.value.problems}
        assert len(found) == len(caught.value.problems)
        return found

    def one(self, text: str, *overrides: str) -> Problem:
        """Return the only problem of a text."""
        found = self.bad(text, *overrides)
        assert len(found) == 1, found
        return next(iter(found.values()))


@pytest.fixture(scope="module")
def jobs(catalogue: Catalogue) -> Jobs:
    return Jobs(catalogue)


def said(problem: Problem) -> str:
    return f"{problem.message}; {problem.do}" if problem.do else problem.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX")
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path, catalogue: Catalogue) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "loop.toml").symlink_to("loop.toml")
    for name, why in (("pipe.toml", "is no file"), ("loop.toml", "cannot be read"), ("a" * 300, "cannot be read")):
        with pytest.raises(UsageError, match=why):
            read(tmp_path / name, PluginKeys(catalogue))


def test_a_good_job_is_read_with_its_defaults(jobs: Jobs) -> None:
    file = jobs.good(BASE + '[train]\nlearning_rate = 5e-4\n[[export]]\nformat = "merged"\n')
    job = file.job
    assert (job.model.id, job.model.max_seq_length, job.adapter.type, job.adapter.r) == ("m", 2048, "lora", 16)
    assert (job.train.method, job.train.options["learning_rate"]) == ("sft", 5e-4)
    assert job.train.options["per_device_train_batch_size"] == 8
    assert [export.format for export in job.export] == ["merged"]
    assert job.folder == Path("/jobs")
    assert job.path("d.jsonl") == Path("/jobs/d.jsonl")
    assert {"model.id", "data.path", "train.learning_rate"} <= file.named
    assert "train.seed" not in file.named


MISTAKES = """\
name = "two words"
[model]
id = "m"
load_in_4bit = true
load_in_8bit = true
[adapter]
r = "sixteen"
[data]
path = "d.jsonl"
trian_on = "assistant"
learning_rate = 1e-4
[train]
epochs = 3
max_length = 512
[trainer]
seed = 1
[plugins.wandb]
project = "x"
"""
EXPECTED = {
    "name": (1, "may hold letters, digits"),
    "model.load_in_4bit": (4, "load_in_4bit and load_in_8bit contradict each other"),
    "adapter.r": (7, 'must be a whole number, not the string "sixteen"'),
    "data.trian_on": (10, "unknown key; did you mean train_on?"),
    "data.learning_rate": (11, "learning_rate belongs to [train]"),
    "train.epochs": (13, "write num_train_epochs"),
    "train.max_length": (14, "belongs to [model] max_seq_length"),
    "trainer": (15, "unknown table; did you mean train?"),
    "plugins.wandb": (17, "there is no plugin wandb; install it"),
}


def test_all_mistakes_are_told_at_once_each_with_its_line(jobs: Jobs) -> None:
    found = jobs.bad(MISTAKES)
    assert {key: problem.line for key, problem in found.items()} == {key: line for key, (line, _) in EXPECTED.items()}
    for key, (_, words) in EXPECTED.items():
        assert words in said(found[key]), (key, said(found[key]))


def test_the_command_tells_all_mistakes_and_exits_with_2(site: Site) -> None:
    (site.folder / "bad.toml").write_text(MISTAKES, encoding="utf-8")
    done = site.forge("plan", "bad.toml")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "bad.toml has 9 mistakes:" in done.stderr
    assert re.findall(r"^  bad\.toml:(\d+): ", done.stderr, re.MULTILINE) == [
        str(line) for line in sorted(line for line, _ in EXPECTED.values())
    ]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [("[model]\nid = \n", 2), ('a = 1\n\n[model\nid = "m"\n', 3), ("a = 1\na = 2\n", 2), ('x = "\n', 1)],
)
def test_what_is_not_toml_is_told_with_its_line(jobs: Jobs, text: str, line: int) -> None:
    problem = jobs.one(text)
    assert problem.message.startswith("not TOML: ")
    # What was never closed is noticed a line later, at the latest.
    assert problem.line in {line, line + 1}


@pytest.mark.parametrize(
    ("text", "where", "line", "words"),
    [
        ("[adapter]\nlora_alfa = 3", "adapter.lora_alfa", 6, "unknown key; did you mean lora_alpha?"),
        ("[train]\nlearning_rat = 1e-4", "train.learning_rat", 6, "did you mean learning_rate?"),
        ("max_seq_length = 9", "data.max_seq_length", 5, "max_seq_length belongs to [model]"),
        ("[model.x]\ny = 1", "model.x", 5, "unknown"),
        ("[adaptr]\nr = 8", "adaptr", 5, "unknown table; did you mean adapter?"),
        (
            "[zzz]\nr = 8",
            "zzz",
            5,
            "unknown table; known: adapter, data, eval, export, generation, launch, model, name, plugins, train, use",
        ),
        ("[use]\nbakend = 'x'", "use.bakend", 6, "did you mean backend?"),
        ("[use]\nwith = 'x'", "use.with", 6, 'must be a list, not the string "x"'),
        ("[adapter]\nr = true", "adapter.r", 6, "must be a whole number, not true"),
        ("[adapter]\nr = 8.0", "adapter.r", 6, "must be a whole number, not 8.0"),
        ("[adapter]\nr = 0", "adapter.r", 6, "must be at least 1, not 0"),
        ("[adapter]\nlora_dropout = 1.0", "adapter.lora_dropout", 6, "must be below 1"),
        ("[adapter]\nlora_dropout = nan", "adapter.lora_dropout", 6, "must be a finite number, not nan"),
        ("[adapter]\ntarget_modules = 5", "adapter.target_modules", 6, "must be a string or a list, not 5"),
        ("[adapter]\ntarget_modules = ['a', 5]", "adapter.target_modules.1", 6, "must be a string, not 5"),
        ("[adapter]\nbias = 'al'", "adapter.bias", 6, 'must be "none", "all" or "lora_only", not the string "al"'),
        ("[adapter]\nrank_pattern = {a = 'b'}", "adapter.rank_pattern.a", 6, "must be a whole number"),
        ("weight = inf", "data.weight", 5, "must be a finite number, not inf"),
        ("eval_size = '5 %'", "data.eval_size", 5, 'must be a number, not the string "5 %"'),
        ("eval_size = -1", "data.eval_size", 5, "must be above 0, not -1"),
        ("streaming = 'yes'", "data.streaming", 5, 'must be true or false, not the string "yes"'),
        ("[data.columns]\ntext = 1", "data.columns.text", 6, "must be a string, not 1"),
        ("[train]\nlearning_rate = '1e-4'", "train.learning_rate", 6, 'must be a number, not the string "1e-4"'),
        ("[train]\nmax_steps = true", "train.max_steps", 6, "must be a whole number, not true"),
        ("[train]\nmax_steps = -5", "train.max_steps", 6, "must be at least -1, not -5"),
        ("[train]\noptim = 'adamm'", "train.optim", 6, "must be "),
        ("[train]\noptions = {seed = 1}", "train.options", 6, "unknown key"),
        ("[train]\nmicro_batch_size = 4", "train.micro_batch_size", 6, "write per_device_train_batch_size"),
        ("[train]\nlr = 4", "train.lr", 6, "write learning_rate"),
        ("[train]\nr = 4", "train.r", 6, "belongs to [adapter] r"),
        ("[train]\nwarmup_ratio = 0.1", "train.warmup_ratio", 6, "write warmup_steps with a number below 1"),
        ("[train]\noutput_dir = 'x'", "train.output_dir", 6, "forge decides the run folder"),
        ("[train]\npush_to_hub = true", "train.push_to_hub", 6, "belong to [[export]] push_to_hub"),
        ("[train]\npacking = true", "train.packing", 6, "belongs to [data] packing"),
        ("[train]\nmethod = 'sftt'", "train.method", 6, 'no installed plugin knows method "sftt"; did you mean "sft"?'),
        ("[train]\nmethod = 'DPO'", "train.method", 6, 'no installed plugin knows method "DPO"; did you mean "dpo"?'),
        ("[train]\nmethod = 'zzz'", "train.method", 6, 'plugin knows method "zzz"; there are: classification, cpo, '),
        ("[train]\nnum_generations = 4", "train.num_generations", 6, "num_generations is an argument of grpo, rloo"),
        ("[train]\nmethod = 'dpo'\npacking = true", "train.packing", 7, "about sft, and there it belongs to"),
        ("[train]\nmethod = 3", "train.method", 6, "must be a string, not 3"),
        ("[adapter]\ntype = 'dora'", "adapter.type", 6, '"dora"; write type = "lora" and use_dora = true'),
        ("[[export]]\nformat = 'merge'", "export.0.format", 6, 'did you mean "merged"?'),
        ("[[export]]\nformat = 'push'", "export.0.format", 6, "there are: adapter, "),
        ("[[export]]\nformat='merged'\n[[export]]\nprivate=true", "export.1.format", 7, "is missing"),
        ("[[export]]\nformat='merged'\npublic=true", "export.0.public", 7, "unknown key"),
        ("[export]\nformat='merged'", "export", 5, "is one table; write [[export]] with two brackets"),
        ("[plugins.huggingfce]", "plugins.huggingfce", 5, "did you mean [plugins.huggingface]?"),
        ("[plugins.huggingface]\na = 1", "plugins.huggingface", 5, "has no settings; remove the table"),
        ("[plugins]\nhuggingface = 1", "plugins.huggingface", 6, "has no settings"),
        ("[adapter]\ntype = 'none'\nr = 8", "adapter.type", 6, "trains every weight, so r would do nothing"),
        ("[[data.sources]]\npath = 'x'", "data.path", 4, "two ways to say the same; keep one"),
        ("eval_path='x'\neval_size=5", "data.eval_path", 5, "eval_path and eval_size contradict each other"),
        ("streaming=true\neval_size=9", "data.eval_size", 6, "eval_size needs all rows"),
        ("[train]\nseed=1\nbf16=true\nfp16=true", "train.bf16", 7, "bf16 and fp16 contradict each other"),
    ],
)
def test_a_mistake_is_told_with_its_key_its_line_and_the_remedy(
    jobs: Jobs, text: str, where: str, line: int, words: str
) -> None:
    problem = jobs.one(f"{BASE}{text}\n")
    assert (problem.where, problem.line) == (where, line)
    assert words in said(problem)


@pytest.mark.parametrize(
    ("text", "where", "line", "words"),
    [
        ('[data]\npath = "d"\n', "model", 2, 'is missing; write [model] with id = "org/name"'),
        ("", "model", 1, "is missing"),
        ("", "data", 1, 'is missing; write [data] with path = "rows.jsonl"'),
        ('[model]\n[data]\npath = "d"\n', "model.id", 1, "is missing"),
        ('[model]\nid = ""\n[data]\npath = "d"\n', "model.id", 2, "must not be empty"),
        ('model = "m"\n[data]\npath = "d"\n', "model", 1, 'must be a table, not the string "m"'),
        ('[model]\nid = "m"\n[data]\ntrain_on = "all"\n', "data", 3, "there is no source of rows"),
        ('[model]\nid = "m"\n[[data.sources]]\nweight = 2\n', "data.sources", 3, "every [[data.sources]] needs a path"),
        ('[model]\nid = "m"\n[[data.sources]]\npath = "a"\npth = "b"\n', "data.sources.0.pth", 5, "did you mean path?"),
        ('folder = "/x"\n' + BASE, "folder", 1, "unknown key"),
        ('[model]\nid = "m"\nmax_seq_length = 4\n[data]\npath = "d"\n', "model.max_seq_length", 3, "at least 8"),
        (
            '[model]\nid = "m"\ndtype = "float32"\nload_in_16bit = true\n[data]\npath = "d"\n',
            "model.load_in_16bit",
            4,
            "contradicts",
        ),
    ],
)
def test_a_mistake_in_the_necessary_tables_is_told(jobs: Jobs, text: str, where: str, line: int, words: str) -> None:
    problem = jobs.bad(text)[where]
    assert problem.line == line
    assert words in said(problem)


def test_contradictions_that_one_validator_finds_have_a_line_each(jobs: Jobs) -> None:
    found = jobs.bad(BASE + "[train]\nmax_steps = 0\nbf16 = true\nfp16 = true\n")
    assert {key: problem.line for key, problem in found.items()} == {"train.max_steps": 6, "train.bf16": 7}


def test_the_keys_of_a_table_with_an_unknown_method_are_still_checked_but_not_refused_wholesale(jobs: Jobs) -> None:
    found = jobs.bad(BASE + '[train]\nmethod = "stf"\nlearning_rate = 1e-4\nlearning_rat = 1\n')
    assert set(found) == {"train.method", "train.learning_rat"}


def test_the_message_names_file_line_key_and_remedy(jobs: Jobs) -> None:
    with pytest.raises(JobError) as caught:
        jobs.good(BASE + "[train]\nlr = 1\n")
    assert str(caught.value) == (
        "job.toml has 1 mistake:\n  job.toml:6: train.lr: is not a key of this table; write learning_rate"
    )
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "read", "value"),
    [
        ("train.max_steps=10", lambda job: job.train.options["max_steps"], 10),
        ("train.learning_rate=1e-4", lambda job: job.train.options["learning_rate"], 1e-4),
        ("train.bf16=true", lambda job: job.train.options["bf16"], True),
        ("model.id=org/name", lambda job: job.model.id, "org/name"),
        ('model.id="org/name"', lambda job: job.model.id, "org/name"),
        ("model.id = 'a=b'", lambda job: job.model.id, "a=b"),
        ('adapter.target_modules=["q_proj", "v_proj"]', lambda job: job.adapter.target_modules, ["q_proj", "v_proj"]),
        ("data.columns={text='body'}", lambda job: job.data.columns, {"text": "body"}),
        ("data.columns.text=body", lambda job: job.data.columns, {"text": "body"}),
        ("export.0.format=merged", lambda job: job.export[0].format, "merged"),
        ("use.with=[]", lambda job: job.use.with_, []),
    ],
)
def test_set_changes_a_key_and_its_value_is_toml_or_else_text(jobs: Jobs, change: str, read: Any, value: Any) -> None:
    file = jobs.good(BASE, change)
    assert read(file.job) == value
    assert file.overrides == (change,)


def test_several_changes_apply_in_their_order(jobs: Jobs) -> None:
    job = jobs.good(BASE, "export.0.format=merged", "export.1.format=adapter", "export.0.format=adapter").job
    assert [export.format for export in job.export] == ["adapter", "adapter"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.max_steps", "it has no key and value; write --set train.max_steps=10"),
        ("=5", "it has no key and value"),
        ("train..x=5", "it has no key and value"),
        ("model.id.x=5", "model.id is no table"),
        ("export.1.format=merged", "export has no entry"),
    ],
)
def test_a_change_that_cannot_be_applied_is_refused(jobs: Jobs, change: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        jobs.good(BASE, change)


@pytest.mark.parametrize("change", ["export.x=5", "export.x.y=5", "export.7=5", "export.7.format=x"])
def test_an_entry_of_a_list_is_named_by_its_number(jobs: Jobs, change: str) -> None:
    with pytest.raises(UsageError, match=r"export has 1 entries, counted from 0"):
        jobs.good(BASE + '[[export]]\nformat = "merged"\n', change)


def test_a_mistake_in_a_change_is_not_blamed_on_a_line_of_the_file(jobs: Jobs) -> None:
    problem = jobs.one(BASE + "[train]\nmax_steps = 5\n", "train.max_steps=many")
    assert problem.line is None
    assert problem.message == 'must be a whole number, not the string "many" (from --set)'


def test_a_missing_file_names_the_nearest_one(tmp_path: Path, catalogue: Catalogue) -> None:
    (tmp_path / "quickstart.toml").write_text(BASE)
    (tmp_path / "other.toml").write_text(BASE)
    with pytest.raises(UsageError, match=r"there is no job file .*quickstrat\.toml; did you mean .*quickstart\.toml\?"):
        read(tmp_path / "quickstrat.toml", PluginKeys(catalogue))
    with pytest.raises(UsageError, match="make one with `forge init`"):
        read(tmp_path / "nowhere" / "job.toml", PluginKeys(catalogue))


def test_what_is_no_text_file_is_refused(tmp_path: Path, catalogue: Catalogue) -> None:
    with pytest.raises(UsageError, match="is a folder; name the job file in it"):
        read(tmp_path, PluginKeys(catalogue))
    (tmp_path / "job.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(UsageError, match="is not a text file: byte 8 is not UTF-8"):
        read(tmp_path / "job.toml", PluginKeys(catalogue))


RICH = """\
name = "rich"
[model]
id = "org/name"
revision = "main"
load_in_4bit = true
[adapter]
r = 8
target_modules = ["q_proj"]
rank_pattern = { q_proj = 4 }
init_lora_weights = "gaussian"
[data]
on_bad_row = "drop"
max_bad_rows = 3
[[data.sources]]
path = ["a.jsonl", "b.jsonl"]
weight = 2
[[data.sources]]
path = "org/rows"
columns = { text = "body" }
roles = { customer = "user" }
message_keys = { role = "speaker" }
prompt_prefix = "q: "
[[data.sources]]
path = "c.jsonl"
row_template = { prompt = "{q} {{}}", completion = "{a}" }
[train]
learning_rate = 5e-4
early_stopping_patience = 3
warmup_steps = 0.1
lr_scheduler_type = "cosine_with_min_lr"
lr_scheduler_kwargs = { min_lr_rate = 0.1 }
report_to = ["tensorboard"]
[[export]]
format = "merged"
[[export]]
format = "adapter"
push_to_hub = "user/name"
private = false
[use]
backend = "huggingface"
with = []
"""
NONE = BASE + 'eval_size = 0.1\n[adapter]\ntype = "none"\n'


@pytest.mark.parametrize("text", [BASE, RICH, NONE])
def test_a_job_in_a_plan_is_the_job_that_was_read(jobs: Jobs, text: str) -> None:
    job = jobs.good(text).job
    stored = json.loads(json.dumps(dump_job(job)))
    assert load_job(stored) == job
    assert load_job(stored).digest() == job.digest()


@pytest.mark.parametrize("text", [BASE, RICH, NONE])
def test_a_job_written_out_with_every_value_reads_as_the_same_job(jobs: Jobs, text: str) -> None:
    job = jobs.good(text).job
    written = tomli_w.dumps(job.to_toml())
    again = jobs.good(written).job
    assert dump_job(again) == dump_job(job)
    assert again.digest() == job.digest()
    tables = tomli.loads(written)
    assert tables["train"]["per_device_train_batch_size"] == 8
    assert ("r" in tables["adapter"]) == (job.adapter.type == "lora")


@pytest.mark.parametrize(
    "change",
    [
        "model.id=other",
        "model.max_seq_length=512",
        "adapter.r=8",
        "data.path=e.jsonl",
        "data.train_on=all",
        "train.learning_rate=1e-3",
        "train.seed=7",
    ],
)
def test_the_digest_changes_with_what_is_trained(jobs: Jobs, change: str) -> None:
    assert jobs.good(BASE, change).job.digest() != jobs.good(BASE).job.digest()


@pytest.mark.parametrize(
    "change", ["name=other", "export.0.format=merged", "use.backend=huggingface", "train.seed=42", "adapter.r=16"]
)
def test_the_digest_stays_where_nothing_else_is_trained(jobs: Jobs, change: str) -> None:
    assert jobs.good(BASE, change).job.digest() == jobs.good(BASE).job.digest()


def with_options(reference: str, folder: Path, text: str) -> Catalogue:
    """Return the catalogue of one plugin whose options are what a module says."""
    (folder / f"{reference.partition(':')[0]}.py").write_text(text)
    offers = [
        Offer(stage=Stage.TRAIN, impl="x:y", serves=frozenset({"sft"}), options=reference),
        Offer(stage=Stage.ADAPT, impl="x:y", serves=frozenset({"lora"}), config=reference),
    ]
    return Catalogue((Plugin(name="x", distribution="forge-x", version="2", offers=tuple(offers)),))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("forge_jobfile_test_a", "import forge_surely_not_there", "No module named"),
        ("forge_jobfile_test_b", "", "has no Options"),
        ("forge_jobfile_test_c", "Options = 3", "is no pydantic model"),
        ("forge_jobfile_test_d", "def Options(method): raise KeyError(method)", "KeyError: 'sft'"),
    ],
)
def test_options_that_cannot_be_had_name_plugin_distribution_and_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=re.escape(words)) as caught:
        parse(BASE, "job.toml", tmp_path, PluginKeys(with_options(f"{name}:Options", tmp_path, text)))
    assert "plugin x" in str(caught.value)


def test_a_plugins_own_table_and_its_keys_in_a_stage_are_checked_and_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "from pydantic import BaseModel\n"
        "class Options(BaseModel, extra='forbid', strict=True):\n    beta: float = 0.1\n    names: list[str] = []\n"
    )
    found = with_options("forge_jobfile_test_e:Options", tmp_path, text)
    job = parse(BASE + "[train]\nbeta = 0.2\n[plugins.x]\nnames = ['a']\n", "job.toml", tmp_path, PluginKeys(found)).job
    assert job.train.options == {"beta": 0.2, "names": []}
    assert job.plugins == {"x": {"beta": 0.1, "names": ["a"]}}
    problems: Sequence[Problem]
    with pytest.raises(JobError) as caught:
        parse(
            BASE + "[train]\nbeta = 'x'\n[plugins.x]\nbetta = 1\n[model.y]\n", "job.toml", tmp_path, PluginKeys(found)
        )
    problems = caught.value.problems
    assert [(p.where, p.line) for p in problems] == [("train.beta", 6), ("plugins.x.betta", 8), ("model.y", 9)]
    assert problems[1].do == "did you mean beta?"
    with pytest.raises(JobError) as caught:
        parse(BASE + "beta = 1\n", "job.toml", tmp_path, PluginKeys(found))
    assert caught.value.problems[0].do == "beta belongs to [train]"

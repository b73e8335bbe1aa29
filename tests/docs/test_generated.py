"""What the documentation says holds: generated tables, links, commands and job files in it."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
import tomli
import tomli_w

from forge.cli import COMMANDS, cli
from forge.discovery.catalogue import Catalogue
from forge.discovery.discover import discover
from forge.discovery.keys import PluginKeys
from forge.errors import JobError
from forge.job.read import parse

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
CODE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)
OTHERS = {"toml pyproject", "toml other-plugin", "toml config", "toml job"}
"""Blocks that are TOML and no job of this repository; a `toml job` names a file that its own test writes."""


class Block(NamedTuple):
    """A block of code in a page."""

    page: str
    line: int
    language: str
    text: str

    @property
    def label(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[tuple[str, str]]:
    return [(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in PAGES]


def blocks() -> list[Block]:
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, found[2].strip(), found[3])
        for page, text in pages()
        for found in CODE.finditer(text)
    ]


def prose(text: str) -> str:
    return CODE.sub("", text)


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return discover({})


def cog(*options: str) -> str:
    """Call cog on the pages as the tasks do; return what it printed."""
    call = [sys.executable, "-m", "cogapp", "-I", "docs", "--markers", "[[[cog ]]]--> [[[end]]]", *options]
    pages = [path.relative_to(ROOT).as_posix() for path in PAGES if path.is_relative_to(ROOT / "docs")]
    done = subprocess.run([*call, *pages], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_generated_parts_are_current() -> None:
    assert not cog("--check", "--diff"), "run: nox -s generate"


def test_generated_tables_do_not_depend_on_the_installed_trl() -> None:
    older = (
        "from forge_huggingface.arguments import fields, options; "
        "options.table = lambda config='SFTConfig': list(fields.committed(config).values())[-1]"
    )
    assert not cog("--check", "-p", older)


def test_every_function_that_makes_a_part_is_shown() -> None:
    shown = "".join(text for _, text in pages())
    made = [
        f"{path.stem}.{each.name}("
        for path in (ROOT / "docs" / "parts").glob("*.py")
        for each in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(each, ast.FunctionDef) and ast.unparse(each.returns or each) == "str" and not each.args.args
    ]
    assert len(made) > 40
    assert not [name for name in made if f"show({name}" not in shown and name != "markdown.row("]


def test_prose_is_wrapped_at_120_columns() -> None:
    long = [
        f"{page}: {line[:60]}"
        for page, text in pages()
        for line in re.sub(r"\[\[\[cog.*?\[\[\[end\]\]\]", "", prose(text), flags=re.DOTALL).splitlines()
        if len(line) > 120 and not line.startswith("|")
    ]
    assert not long


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.replace("`", ""))
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")


def test_every_relative_link_resolves() -> None:
    broken = []
    for page, text in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (ROOT / page).parent / name if name else ROOT / page
            if not path.exists():
                broken.append(f"{page}: {target}")
            elif anchor and path.suffix == ".md":
                headings = re.findall(r"^#+ (.+)$", prose(path.read_text(encoding="utf-8")), re.MULTILINE)
                if anchor not in map(slug, headings):
                    broken.append(f"{page}: {target} (no such heading)")
    assert not broken


def shell_commands(text: str) -> list[list[str]]:
    """Return the calls of forge in shell text, without variables before and redirections behind them."""
    found = []
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        for is_end, group in itertools.groupby(words, key=lambda word: word in {"&&", "||", "|", ";"}):
            call = [] if is_end else list(group)
            while call and (re.fullmatch(r"[A-Z_]+=.*", call[0]) or call[0] in {"time", "nice"}):
                call = call[1:]
            if call[:1] == ["forge"]:
                found.append(call[1:])
    return found


def shown_commands() -> list[tuple[str, list[str], bool]]:
    """Return the place, the words, and whether they stand in a block (and not in a sentence)."""
    found = []
    for block in blocks():
        if block.language in {"sh", "powershell"}:
            found += [(block.label, words, True) for words in shell_commands(block.text.replace("; ", " ; "))]
    for page, text in pages():
        for inline in re.findall(r"`([^`]+)`", prose(text)):
            if re.match(r"([A-Z_]+=\S* )*forge\s+[a-z-]", inline) and "…" not in inline:
                found += [(f"{page}: `{inline}`", words, False) for words in shell_commands(inline.replace("\n", " "))]
    return found


def test_every_command_shown_parses() -> None:
    wrong = []
    brought = {command.name for plugin in discover({"FORGE_PLUGINS": ""}).usable for command in plugin.commands}
    known = {*COMMANDS, *brought}
    shown = shown_commands()
    assert len(shown) > 30
    for place, words, whole in shown:
        if not words:  # `forge` alone prints its help
            continue
        if words[0] not in known and not words[0].startswith("-"):
            wrong.append(f"{place}: there is no command {words[0]}")
            continue
        try:
            with cli.make_context("forge", list(words)) as context:
                if words[0] in known:
                    command = cli.get_command(context, words[0])
                    if command is None:
                        wrong.append(f"{place}: there is no command {words[0]}")
                        continue
                    command.make_context(words[0], words[1:], parent=context)
        except click.exceptions.Exit:  # --help and --version
            continue
        except click.UsageError as error:
            if whole or not isinstance(error, click.MissingParameter):  # a sentence may leave out the job
                wrong.append(f"{place}: {error.format_message()}")
    assert not wrong


def completed(fragment: dict[str, Any]) -> dict[str, Any]:
    """Return a fragment of a job with what a job cannot do without."""
    job = {"model": {"id": "model"}, **fragment}
    data = dict(job.get("data", {}))
    if "sources" not in data:
        data.setdefault("path", "rows.jsonl")
    return {**job, "data": data}


@pytest.mark.parametrize("block", [b for b in blocks() if b.language.split()[:1] == ["toml"]], ids=lambda b: b.label)
def test_every_job_shown_is_valid(block: Block, catalogue: Catalogue) -> None:
    raw = tomli.loads(block.text)
    if block.language in OTHERS:
        return
    if block.language == "toml wrong":
        with pytest.raises(JobError) as caught:
            parse(block.text, "wrong.toml", ROOT, PluginKeys(catalogue))
        page = (ROOT / block.page).read_text(encoding="utf-8")
        assert f"```text\nerror: {caught.value}\n```" in page
        return
    assert block.language in {"toml", "toml fragment"}
    text = tomli_w.dumps(completed(raw)) if block.language == "toml fragment" else block.text
    parse(text, block.label, ROOT, PluginKeys(catalogue))


def test_the_examples_jobs_are_valid(catalogue: Catalogue) -> None:
    for path in (ROOT / "examples").glob("*/*.toml"):
        parse(path.read_text(encoding="utf-8"), path.name, path.parent, PluginKeys(catalogue))


def test_ci_installs_and_tests_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    install = re.search(r'pip install -c constraints\.txt (-e "[^"]+")', readme)
    assert install is not None
    assert f'pip install -c "$set" {install[1]}' in script
    assert "```sh\npytest\n```" in readme
    # With the first set all of them: no folder is named but under another one.
    assert ' tests" pytest "${tests[@]}"\n' in script
    assert "  tests=()\n  if [[ $set != constraints.txt ]]; then\n    tests=(" in script


def test_every_constraint_is_exact() -> None:
    for path in ROOT.glob("constraints*.txt"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
        assert lines == sorted(lines), path.name
        assert not [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)], path.name
        assert not [line for line in lines if line.startswith(("nvidia", "cuda", "triton"))], path.name

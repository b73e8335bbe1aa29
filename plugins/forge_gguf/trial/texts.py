"""What files are tried with: strings on which tokenizers differ, and six conversations."""

# ruff: noqa: RUF001 - letters that look alike are what tokenizers are tried with
from __future__ import annotations

import itertools
import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ROWS = 200
"""Rows of a run whose texts are tried."""

_LONGEST = 4000  # tokens of a row that are tried

_SCRIPTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Grüße aus Köln, ça va? Ærøskøbing, Łódź, naïve façade",
    "Привет, мир! Съешь ещё этих мягких французских булок",
    "Η γρήγορη καφέ αλεπού",
    "東京は日本の首都です。カタカナ",
    "我想在苹果公司工作，你呢？",
    "안녕하세요, 세계!",
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "ខ្ញុំចង់រៀន",
    "é à ü (combined)",
    "ＦＵＬＬ　ｗｉｄｔｈ",
    "ﬁne ligature ½ ² ³ ¼ №",
    "🙂🙃🦙 family: 👨‍👩‍👧‍👦 flag: 🇵🇪 tone: 👍🏽",
)
_NUMBERS = ("0", "7", "42", "123", "1234", "12345", "3.14159", "1,000,000", "2026-11-21", "0x1F", "1e-5", "12345 ²³¼")
_MARKS = (
    "!",
    "?!",
    "...",
    "......",
    "--",
    "---->",
    "''",
    '""',
    "```",
    "$#@",
    "(a)",
    "[b]",
    "{c}",
    "a/b\\c",
    "a_b",
    "x=y",
)
_SPACES = (" ", "  ", "   ", "    ", "\n", "\n\n", "\r\n", "\t", "\t\t", " \n", "\n ", " \t ", "\u00a0", "\u3000")
_WORDS = ("I'm", "they'll", "we've", "I'D", "it'S", "don't", "O'Neill", "camelCase", "SNAKE_CASE", "HTTPServer", "x1y2")
_CODE = (
    "def add(first, second):\n    return first + second\n",
    'for (int i = 0; i < 10; ++i) {\n\tprintf("%d\\n", i);\n}\n',
    "SELECT * FROM rows WHERE id >= 10;",
    '{"capital": "Lima", "region": "Americas", "currency": "PEN"}',
    "<p class='x'>Hi &amp; bye</p>",
    "# Title\n\n- one\n- two\n\n| a | b |\n|---|---|\n",
    "https://example.org/a?b=c&d=1#e",
)


def corpus(tokenizer: Any, variables: Mapping[str, Any] | None = None) -> list[str]:
    """Return strings on which tokenizers differ, the vocabulary's own added tokens among them; about four hundred.

    Args:
        tokenizer: Whose added tokens are tried, alone and inside text, and conversations by its template.
        variables: Those of ``[data] chat_template_kwargs``.
    """
    found = [*_SCRIPTS, *_NUMBERS, *_MARKS, *_WORDS, *_CODE]
    found += [f"a{space}b{space}" for space in _SPACES] + [f"{space}a" for space in _SPACES]
    found += [f"{one}{two}" for one, two in itertools.product(_SPACES[:8], repeat=2)]
    found += [f"{number} {mark}{word}" for number, mark, word in zip(_NUMBERS, _MARKS, _WORDS, strict=False)]
    found += [f"{word}{mark} {word.upper()}" for word, mark in itertools.product(_WORDS[:7], _MARKS[:8])]
    found += [f"{mark}{number}{mark}" for mark, number in itertools.product(_MARKS[:6], _NUMBERS[:9])]
    found += [f"{script[:12]}{number}" for script, number in itertools.product(_SCRIPTS, _NUMBERS[2:5])]
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if str(token).strip()]
    step = max(1, len(added) // 40)  # some vocabularies have thousands that nothing uses
    for token in dict.fromkeys([*added[:20], *added[::step], *tokenizer.all_special_tokens]):
        found += [token, f"say {token} now", f"{token}\n{token}"]
    found += [text for _, text in rendered(tokenizer, variables or {})]
    return list(dict.fromkeys(found))


def own_texts(tokenizer: Any, known: Iterable[Sequence[int]], variables: Mapping[str, Any]) -> list[str]:
    """Return what a run's file must read as training did: its rows, and a question as its template renders it.

    Args:
        tokenizer: The tokenizer.
        known: Rows of the run, as ids. Those that no text gives are left out: some were cut inside a letter.
        variables: Those of ``[data] chat_template_kwargs``.
    """
    seen = (text_of(tokenizer, list(ids[:_LONGEST])) for ids in known)
    asked = [text for _, text in rendered(tokenizer, variables)[:1]]
    return list(dict.fromkeys([*filter(None, seen), *asked]))


def text_of(tokenizer: Any, ids: list[int]) -> str | None:
    """Return the text that a tokenizer makes these ids of, or None.

    Decoding the whole is not always the way back: where a space is put behind each mark, it must be taken away there.
    """
    marks = set(tokenizer.added_tokens_decoder)
    pieces = [list(group) for _, group in itertools.groupby(ids, lambda index: index + 1 if index in marks else 0)]
    for text in ("".join(tokenizer.decode(piece) for piece in pieces), tokenizer.decode(ids)):
        if tokenizer(text, add_special_tokens=False)["input_ids"] == ids:
            return str(text)
    return None


CONVERSATIONS: tuple[tuple[dict[str, str], ...], ...] = (
    ({"role": "user", "content": "Name three colours."},),
    ({"role": "system", "content": "Answer in one word."}, {"role": "user", "content": "What is the capital of Peru?"}),
    (
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello. How can I help?"},
        {"role": "user", "content": "Count to five."},
    ),
    (
        {"role": "system", "content": "You are terse.\nYou never explain."},
        {"role": "user", "content": "Write a loop:\n\n```python\n    pass\n```"},
        {"role": "assistant", "content": "for i in range(10):\n    print(i)"},
        {"role": "user", "content": "Thanks, now in {braces} & <tags>."},
    ),
    ({"role": "user", "content": "Grüße 東京 🙂 – “quoted” ’tis"},),
    (
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "three"},
    ),
)
"""One turn, a system message, several turns, line breaks and code, other alphabets, many turns."""


def rendered(tokenizer: Any, variables: Mapping[str, Any]) -> list[tuple[tuple[dict[str, str], ...], str]]:
    """Return the conversations that the tokenizer's template takes, as transformers renders them for an answer.

    Templates may refuse a conversation, most often a system message; that is no fault.

    Args:
        tokenizer: The tokenizer.
        variables: Those of ``[data] chat_template_kwargs``.
    """
    import jinja2

    found: list[tuple[tuple[dict[str, str], ...], str]] = []
    for conversation in CONVERSATIONS if tokenizer.chat_template else ():
        try:
            text = tokenizer.apply_chat_template(
                list(conversation), tokenize=False, add_generation_prompt=True, **variables
            )
        except jinja2.TemplateError:
            continue
        found.append((conversation, text))
    return found


def rows(folder: Path, tokenizer: Any, variables: Mapping[str, Any], count: int = ROWS) -> list[list[int]]:
    """Return the ids of rows of a run, from all its length; held-out ones are at most half.

    None if the run's rows or pyarrow are not here.

    Args:
        folder: The run folder.
        tokenizer: The tokenizer, for rows that are stored as text.
        variables: Those of ``[data] chat_template_kwargs``.
        count: How many at most.
    """
    if find_spec("pyarrow") is None:
        return []
    import pyarrow

    found: list[list[int]] = []
    for name, share in (("eval.arrow", count // 2), ("rows.arrow", count)):
        path = folder / "data" / name
        if path.is_file():
            with pyarrow.memory_map(str(path)) as source:
                table = pyarrow.ipc.open_stream(source).read_all()
                step = -(-len(table) // max(share - len(found), 1)) or 1
                stored = [table.slice(index, 1).to_pylist()[0] for index in range(0, len(table), step)]
            for row in stored:
                if "prompt" in row:
                    row["prompt"] = json.loads(row["prompt"])
                found.append(ids_of(row, tokenizer, variables))
    return found


def ids_of(row: Mapping[str, Any], tokenizer: Any, variables: Mapping[str, Any]) -> list[int]:
    """Return the ids of a row of any method: of a pair the better answer, of one that is to be answered the prompt."""
    if "input_ids" in row:
        return list(row["input_ids"])
    if "prompt_ids" in row:
        return [*row["prompt_ids"], *(row["chosen_ids"] if "chosen_ids" in row else row["completion_ids"])]
    if "prompt" not in row:
        return list(row["chosen_ids"] if "chosen_ids" in row else row["chosen_input_ids"])
    if isinstance(row["prompt"], str):
        return list(tokenizer(row["prompt"])["input_ids"])
    told = {"add_generation_prompt": True, "return_dict": True, **variables}
    return list(tokenizer.apply_chat_template(row["prompt"], **told)["input_ids"])

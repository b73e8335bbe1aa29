"""What files are tried with: strings on which tokenizers differ, and six conversations."""

# ruff: noqa: RUF001 - letters that look alike are what tokenizers are tried with
from __future__ import annotations

import itertools
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


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


def corpus(tokenizer: Any, more: tuple[str, ...] = ()) -> list[str]:
    """Return strings on which tokenizers differ, the vocabulary's own added tokens among them; about four hundred.

    Args:
        tokenizer: Whose added tokens are tried, alone and inside text.
        more: Other strings, such as rows that were trained on.
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
    return list(dict.fromkeys([*found, *more]))


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

    found = []
    for conversation in CONVERSATIONS:
        try:
            text = tokenizer.apply_chat_template(
                list(conversation), tokenize=False, add_generation_prompt=True, **variables
            )
        except jinja2.TemplateError:
            continue
        found.append((conversation, text))
    return found


def rows(folder: Path, count: int) -> list[list[int]]:
    """Return the ids of rows of a run, held-out ones first; none if the run's rows or pyarrow are not here.

    Args:
        folder: The run folder.
        count: How many at most.
    """
    if find_spec("pyarrow") is None:
        return []
    import pyarrow

    found: list[list[int]] = []
    for name in ("eval.arrow", "rows.arrow"):
        path = folder / "data" / name
        if path.is_file() and len(found) < count:
            with pyarrow.memory_map(str(path)) as source:
                for batch in pyarrow.ipc.open_stream(source):
                    found += batch.column("input_ids").slice(0, count - len(found)).to_pylist()
                    if len(found) >= count:
                        break
    return found

"""Whether tokenizer, chat template and the model's settings speak of the same tokens: told before weights are loaded.

Files of several models are often put together: a template of another family, a tokenizer with other marks. Nothing
fails then. Answers do not end, or end at a word, or lose one, and nobody is told why.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from forge.api import Noted, Warned
from forge_huggingface.facts.folder import read_object
from forge_huggingface.rendering.tokenizers import stop_ids, top
from forge_huggingface.rows import BadRow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from forge_huggingface.rendering.render import Renderer
    from forge_huggingface.rendering.templates import Template


_FILES = ("config.json", "generation_config.json")
_MARK = re.compile(r"<[|\uff5c][^<>|\uff5c\s]{1,40}[|\uff5c]>|<(?:start|end)_of_turn>|</?s>|<[be]os>")
"""What templates write as a mark. ``[INST]`` is none: in Llama 2 it is several tokens, and meant so."""

_NO_WORD = re.compile(r"<.+>|\[.+\]|▁*")
"""How special tokens are called, and no word is."""

_PROBE = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"})


def disagreements(
    renderer: Renderer, template: Template | None, folder: Path, *, online: bool = False
) -> Iterator[Noted | Warned]:
    """Yield what does not fit together.

    Args:
        renderer: What the rows are rendered with.
        template: The chat template, studied; None if no row has one around it.
        folder: The model's folder.
        online: Whether the trainer has the model answer, for which it goes by the model's own settings.
    """
    yield from _settings(renderer, folder)
    yield from _padding(renderer.tokenizer)
    if template is not None:
        yield from _marks(template, renderer.tokenizer)
        yield from _beginning(template, renderer)
        yield from _end(renderer, folder, online=online)


def _settings(renderer: Renderer, folder: Path) -> Iterator[Warned]:
    """Compare what the model's settings say of the end of answers and of padding."""
    tokenizer = renderer.tokenizer
    for name in _FILES:
        path = folder / name
        config = read_object(path) if path.is_file() else {}
        for token in _ids(config.get("eos_token_id")):
            if token >= top(tokenizer):
                what = f"{name}: eos_token_id {token} is no token of the tokenizer"
                yield Warned(what, "take both files from one model, or mend it: no answer ends there")
            elif _is_word(tokenizer, token):
                what = f"{name}: eos_token_id {token} is {_name(tokenizer, token)!r}, a part of words in this tokenizer"
                yield Warned(what, "take both files from one model, or mend it: answers end wherever it is written")
    path = folder / _FILES[0]
    for token in _ids(read_object(path).get("pad_token_id") if path.is_file() else None):
        count = renderer.vocabulary
        if count is not None and token >= count:
            what = f"config.json: pad_token_id is {token}, and the model has {count} tokens"
            yield Warned(what, "set it to null, or to the tokenizer's: most models cannot be built with it")


def _padding(tokenizer: Any) -> Iterator[Warned]:
    token = tokenizer.pad_token_id
    if token is not None and _NO_WORD.fullmatch(str(tokenizer.pad_token)) is None:
        what = f"padding is by {tokenizer.pad_token!r}, which texts hold too: answers are shown without it"
        do = "remove pad_token from the model's tokenizer_config.json, or name a token there that no text holds"
        yield Warned(what, do)


def _marks(template: Template, tokenizer: Any) -> Iterator[Noted | Warned]:
    """Look for marks of the template that are no tokens."""
    try:
        text, _ = template.render(tokenizer, _PROBE, prompt=True)
    except BadRow:  # it wants another conversation
        return
    counts = {mark: count for mark in dict.fromkeys(_MARK.findall(text)) if (count := _pieces(tokenizer, mark)) > 1}
    if not counts:
        return
    listed = ", ".join(f"{mark} ({count} pieces)" for mark, count in counts.items())
    what = f"the chat template {template.name} writes marks that are no tokens here: {listed}"
    if template.origin == "model":
        yield Noted(what)
    else:
        yield Warned(what, "take a chat_template with marks of this model, or one without marks, as alpaca is")


def _beginning(template: Template, renderer: Renderer) -> Iterator[Warned]:
    """Tell of a template of the job that leaves out what the tokenizer puts before plain texts."""
    tokenizer = renderer.tokenizer
    if template.origin != "file" or not renderer.before:
        return
    begin = tokenizer.decode(renderer.before)
    try:
        text, _ = template.render(tokenizer, _PROBE, prompt=True)
    except BadRow:
        return
    if not text.startswith(begin):
        what = f"the chat template {template.name} begins without {begin}, which the tokenizer puts before plain texts"
        yield Warned(what, "begin it with {{ bos_token }}, if the model was trained so")


def _end(renderer: Renderer, folder: Path, *, online: bool) -> Iterator[Noted | Warned]:
    """Tell of tokens that end answers, and that whoever goes by the model's settings does not stop at."""
    known = stop_ids(folder)
    taught = {renderer.tokenizer.eos_token_id, renderer.turn_end} - {None}
    missing = sorted(taught - known) if known else []
    names = " and ".join(_name(renderer.tokenizer, token) for token in missing)
    what = f"answers end with {names}, where the model's own generation settings do not stop"
    if online and renderer.turn_end in missing:
        do = f"add {renderer.turn_end} to eos_token_id in the model's generation_config.json"
        yield Warned(f"{what}: while training, it goes on behind them", do)
    elif missing:
        yield Noted(f"{what}; chat, evaluation and exports stop there too")


def _ids(value: Any) -> list[int]:
    return [each for each in (value if isinstance(value, list) else [value]) if type(each) is int and each >= 0]


def _name(tokenizer: Any, token: int) -> str:
    return str(tokenizer.convert_ids_to_tokens(token))


def _is_word(tokenizer: Any, token: int) -> bool:
    """Whether a token is a part of texts, by its name too: a tokenizer calls special whatever it is told to end at."""
    name = tokenizer.convert_ids_to_tokens(token)
    if name is None or token in {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id}:
        return False
    return token not in tokenizer.added_tokens_decoder and _NO_WORD.fullmatch(str(name)) is None


def _pieces(tokenizer: Any, mark: str) -> int:
    """Return how many tokens a mark becomes."""
    ids, own = tokenizer(mark, add_special_tokens=False)["input_ids"], tokenizer.convert_tokens_to_ids(mark)
    return 1 if own in ids and own != tokenizer.unk_token_id else len(ids)

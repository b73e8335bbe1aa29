"""The small files of a model's folder, and whose fault it is when a library trips over them.

What is no JSON, or no UTF-8, is told by name while planning. Of the rest only the libraries know what is wrong, and
each has errors of its own: whatever they raise becomes one error that names the file.
"""

from __future__ import annotations

import errno
import json
import re
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ForgeError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from forge.api import UsageError


_CONFIG, _GENERATION, _TOKENIZER_CONFIG = "config.json", "generation_config.json", "tokenizer_config.json"
_OBJECTS = (
    _CONFIG,
    _GENERATION,
    _TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "adapter_config.json",
)
"""Small files that hold one JSON object."""

_TEMPLATES = ("chat_template.jinja", "additional_chat_templates/*.jinja")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model")

TOKENIZER = (*_VOCABULARIES, *_OBJECTS[2:5], *_OBJECTS[8:9], *_TEMPLATES, _CONFIG)
"""What a tokenizer is loaded from."""

PROCESSOR = (*TOKENIZER, *_OBJECTS[5:8])
"""What a processor is loaded from."""

MODEL = (_CONFIG, _GENERATION, "adapter_config.json", "model.safetensors.index.json", "*.safetensors")
"""What a model is loaded from."""

AGAIN = "copy or download it again"

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON writes half a character, or a whole one in two."""

_MACHINE = frozenset(
    getattr(errno, name, errno.EIO)
    for name in ("EIO", "EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EDQUOT", "EROFS", "ESTALE", "ENODEV", "ETIMEDOUT")
)
_OF_DEVICES = frozenset({"OutOfMemoryError", "AcceleratorError"})


def check(folder: Path) -> None:
    """Read the small files of a model's folder.

    Raises:
        ModelError: One is no JSON object, or no UTF-8, or cannot be read.
    """
    for name in _OBJECTS:
        path = folder / name
        if path.is_file():
            read_object(path)
        elif path.exists():  # a pipe has no end, and a folder no text
            raise damaged(path, "it is no plain file")
    for path in _existing(folder, _TEMPLATES):
        read_text(path)


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file holds. Raises :class:`ModelError` if it holds none."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise damaged(path, "its JSON is nested too deeply") from error
    except ValueError as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, "it is no JSON object")
    if _HALF.search(text) and not _is_text(value):
        raise damaged(path, "it holds half a character, a surrogate without its pair")
    return value


def _is_text(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def read_text(path: Path) -> str:
    """Return the text of a file. Raises :class:`ModelError` if it is no UTF-8, or cannot be read."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise damaged(path, f"it is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}") from error
    except OSError as error:
        if is_of_machine(error):
            raise
        raise ModelError(f"{path} cannot be read", error.strerror or str(error), "mend its permissions") from error


def damaged(path: Path, why: str) -> ModelError:
    """Return the error for a damaged file."""
    return ModelError(f"{path} is damaged", why, AGAIN)


def is_of_machine(error: BaseException) -> bool:
    """Tell whether an error is one of memory, disks or devices, whatever was read when it came."""
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return True
    return isinstance(error, MemoryError) or any(kind.__name__ in _OF_DEVICES for kind in type(error).__mro__)


@contextmanager
def reachable(folder: Path) -> Iterator[None]:
    """Say of a folder, or a file in it, that nobody lets forge read it; errors of the machine stay what they are."""
    try:
        yield
    except OSError as error:
        if is_of_machine(error):
            raise
        path = error.filename or folder
        raise ModelError(f"{path} cannot be read", error.strerror or str(error), "mend its permissions") from error


@contextmanager
def reading(
    what: str, folder: Path, names: Iterable[str], *, kind: type[UsageError] = ModelError, do: str | None = None
) -> Iterator[None]:
    """Turn whatever a library raises over the files of a model's folder into an error that names the file.

    Errors of the machine stay what they are, and so do forge's own.

    Args:
        what: What could not be done, as a phrase.
        folder: The folder.
        names: The files that are read, or patterns of their names.
        kind: The error's class.
        do: What to do about it; to get the file again unless it is said.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, ForgeError) or is_of_machine(error):
            raise
        # What is written in Rust panics with an exception that is none of Python's `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        traceback.print_exception(error)
        said = words(error)
        if "trust_remote_code" in str(error):
            why = "it brings its own Python code, which is not run unasked"
            do = "read it, then set [model] trust_remote_code = true"
        elif isinstance(error, ImportError):
            why = said
        else:
            files = [path for path in _existing(folder, names) if path.is_file()]
            found = next((blame for path in files if (blame := _blame(path, error)) is not None), None)
            if found is not None:
                why, do = f"{found[0]}: {found[1]}", do or AGAIN
            else:
                why = said
                do = do or f"see whether {_listed(path.name for path in files)} in {folder} {_are(files)} whole"
        raise kind(what, why, do) from error


def words(error: BaseException) -> str:
    """Return what an error says, as a phrase: its first line, and the next where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    said = f"{lines[0]} {lines[1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    said = said if len(said) <= 300 else f"{said[:299]}…"
    return f"{type(error).__name__}: {said}" if isinstance(error, LookupError) else said.rstrip(". ")


def _existing(folder: Path, names: Iterable[str]) -> list[Path]:
    return [path for name in names for path in sorted(folder.glob(name))]


def _blame(path: Path, error: BaseException) -> tuple[Path, str] | None:
    """Return a file and what is wrong with it, if it is this one that a library tripped over."""
    try:
        if path.suffix == ".json":
            read_object(path)
        elif path.suffix in (".jinja", ".txt"):
            read_text(path)
    except ModelError as bad:
        return path, str(bad.why)
    trial = _TRIALS.get(path.name)
    try:
        if trial is not None:
            trial(path)
    except BaseException as own:  # noqa: BLE001 - it is looked at for whose fault the error is that is told
        if not is_of_machine(own) and not isinstance(own, ImportError) and "trust_remote_code" not in str(own):
            return path, words(own)
    named = re.search(rf"(?<![\w-]){re.escape(path.name)}", str(error))
    return (path, words(error)) if named else None


def _try_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer

    Tokenizer.from_file(str(path))


def _try_config(path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.from_pretrained(str(path.parent), local_files_only=True)


def _try_generation(path: Path) -> None:
    from transformers import GenerationConfig

    GenerationConfig.from_pretrained(str(path.parent), local_files_only=True)


def _try_images(path: Path) -> None:
    from transformers import AutoImageProcessor

    AutoImageProcessor.from_pretrained(str(path.parent), local_files_only=True)


_TRIALS: Mapping[str, Callable[[Path], None]] = {
    "tokenizer.json": _try_tokenizer,
    _CONFIG: _try_config,
    _GENERATION: _try_generation,
    "preprocessor_config.json": _try_images,
}


def _listed(names: Iterable[str]) -> str:
    *first, last = [*dict.fromkeys(names)] or ["its files"]
    return f"{', '.join(first)} and {last}" if first else last


def _are(files: list[Path]) -> str:
    return "is" if len(files) == 1 else "are"


def keep_legacy(tokenizer: Any) -> None:
    """Make a tokenizer save what transformers 5 forgets: how Llama's puts spaces, without which it reads other ids.

    ``LlamaTokenizer`` takes ``legacy``, puts the space that begins a text behind each mark by it, and writes it into no
    file: Llama 2's and Mistral 7B's say ``true``, and what has been saved reads ``false``.
    """
    if isinstance(legacy := getattr(tokenizer, "legacy", None), bool):
        tokenizer.init_kwargs.setdefault("legacy", legacy)

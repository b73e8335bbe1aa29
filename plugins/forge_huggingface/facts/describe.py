"""What a model is, from files alone: a local folder, the download cache, or one small request to the hub."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, ModelFacts, alike
from forge_huggingface.facts import folder as files
from forge_huggingface.facts import grouped
from forge_huggingface.facts import lookup as hub
from forge_huggingface.facts import safetensors as weights
from forge_huggingface.facts import shape as shapes
from forge_huggingface.facts.stored import bits_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import ModelTask
    from forge_huggingface.facts.safetensors import Header


def describe(id: str, revision: str | None, folder: Path, offline: bool | None = None) -> ModelFacts:  # noqa: A002
    """Find out about a model: in a local folder, else in the download cache, else with one request to the hub.

    Args:
        id: A folder, or the name of a model on the hub.
        revision: Branch, tag or commit on the hub; a local folder has none.
        folder: Where relative paths start.
        offline: True to ask nobody; None to do as ``HF_HUB_OFFLINE`` says.

    Raises:
        ModelError: If the model is missing, gated, incomplete or damaged.
    """
    try:
        return _described(id, revision, folder, offline)
    except OSError as error:
        what = f"the model {id} cannot be read" if error.filename is None else f"{error.filename} cannot be read"
        raise ModelError(what, error.strerror or str(error), "see [model] id; its files must be readable") from error


def _described(id: str, revision: str | None, folder: Path, offline: bool | None) -> ModelFacts:  # noqa: A002
    path = folder / _expanded(id)
    if id.lower().endswith(".gguf"):
        why = "forge writes GGUF files and cannot train from one"
        raise ModelError(f"{id} is a GGUF file", why, "name the safetensors folder that it was made from")
    with files.reachable(path):
        if path.is_dir():
            return _from_folder(id, path)
    if path.is_file():
        why = "a model is a folder with config.json, weights and tokenizer"
        raise ModelError(f"{id} is a file", why, f"name its folder: {path.parent}")
    if path.is_symlink():
        raise ModelError(f"the model folder {id} is not there", f"the link {path} leads nowhere", "mend the link")
    if is_path(id):
        raise ModelError(f"the model folder {id} is not there", f"no folder {path}", _near(path))

    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", id):
        why = "it is neither a folder nor a name as the hub has them, `owner/name`"
        raise ModelError(f"{id!r} names no model", why, "check the spelling")

    snapshot = hub.cached(id, revision)
    if snapshot is not None:
        with files.reachable(snapshot):
            return _from_cache(id, snapshot)
    if hub.is_offline() if offline is None else offline:
        note = f"not in the cache ({hub.cache_folder()}), and offline; {_unseen(path)}"
        return ModelFacts(id=id, source="unknown", note=note)
    try:
        config, commit = hub.fetch_config(id, revision)
    except hub.Unreachable as error:
        return ModelFacts(id=id, source="unknown", note=f"{error}; {_unseen(path)}")
    note = "only config.json was read: the size is unknown until the download"
    return ModelFacts(id=id, source="hub", revision=commit, **_from_config(config, note))


def _unseen(path: Path) -> str:
    """Say of a model that nobody could be asked about that it is no folder here, and which it may be."""
    beside = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
    near = alike(path.name, [name for name in beside if (path.parent / name / "config.json").is_file()])
    hint = f" (did you mean {' or '.join(near)}?)" if near else ""
    return f"no folder here has its name{hint}; assumed text, not verified"


def _expanded(id: str) -> Path:  # noqa: A002
    """Return a path with ``~`` for the user's home; as it is where nobody can tell where that is."""
    try:
        return Path(id).expanduser()
    except RuntimeError as error:
        raise ModelError(
            f"the model folder {id} is not there", str(error), "write the whole path, or set HOME"
        ) from error


def is_path(text: str) -> bool:
    """Whether a text can only mean a folder: ids on the hub have at most one slash, and it is inside."""
    return text.startswith((".", "/", "~")) or text.endswith("/") or "\\" in text or ":" in text or text.count("/") > 1


def _near(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"{parent} is not there either; check the path, which starts at the job file's folder"
    names = [entry.name for entry in parent.iterdir() if entry.is_dir()]
    if near := alike(path.name, names):
        return "did you mean " + " or ".join(str(parent / name) for name in near)
    return "check the path, which starts at the job file's folder"


def _from_folder(name: str, path: Path) -> ModelFacts:
    if not (path / "config.json").is_file():
        raise _without_config(path)
    files.check(path)
    config, raw = _read_config(path)
    return _with_weights(ModelFacts(id=name, source="folder", **_from_config(config)), path, config, raw)


def _from_cache(name: str, snapshot: Path) -> ModelFacts:
    files.check(snapshot)
    config, raw = _read_config(snapshot)
    facts = ModelFacts(id=name, source="cache", revision=snapshot.name, **_from_config(config))
    try:
        return _with_weights(facts, snapshot, config, raw)
    except weights.MissingWeightsError:
        # Programs that only wanted the tokenizer or the config leave such a snapshot; the run downloads the rest.
        note = _join(facts.note, "the weights are not in the cache yet: the size is unknown until the download")
        return replace(facts, note=note, chat_template=_chat_template(snapshot))


def _with_weights(facts: ModelFacts, path: Path, config: Mapping[str, Any], raw: bytes) -> ModelFacts:
    refuse_adapter(path)
    headers = weights.read_folder(path)
    if facts.quantized is None:
        _refuse_other_vocabulary(path, config, headers)
    note, count, shape = facts.note, None, facts.shape
    if facts.quantized and _is_packed(config):
        note = _join(note, f"the number of parameters is unknown: {facts.quantized} packs several into one number")
    else:
        layers = grouped.unpacked(config, headers) if facts.quantized == grouped.MLX else headers
        count = weights.parameters(layers, tied=shapes.tie(config))
        shape = shape and shapes.from_headers(shape, layers, count)
    return replace(
        facts,
        path=str(path.resolve()) if facts.source == "folder" else str(path),
        parameters=count,
        weight_bytes=sum(header.size for header in headers),
        dtype=facts.dtype if facts.quantized and facts.dtype else weights.dtype(headers) or facts.dtype,
        # A cache without a tokenizer may get one later; a folder will not.
        chat_template=bool(_chat_template(path)) if facts.source == "folder" else _chat_template(path),
        digest=digest(path, raw, headers),
        shape=shape,
        note=note,
    )


def _refuse_other_vocabulary(path: Path, config: Mapping[str, Any], headers: tuple[Header, ...]) -> None:
    rows = {
        shape[0]
        for header in headers
        for name, shape in header.shapes.items()
        if name.endswith("embed_tokens.weight") and len(shape) == 2
    }
    said = shapes.vocabulary_of(config)
    if said is not None and len(rows) == 1 and said not in rows:
        why = f"vocab_size is {said}, and the embedding in the weights has {rows.pop()} rows"
        raise ModelError(f"{path / 'config.json'} does not fit its weights", why, "take both from one model")


def refuse_adapter(path: Path) -> None:
    """Refuse a folder with a whole model and an adapter: transformers would load both, and save the adapter alone.

    Raises:
        ModelError: It holds both.
    """
    if (path / "config.json").is_file() and (path / "adapter_config.json").is_file():
        raise ModelError(
            f"{path} holds a whole model and an adapter of peft",
            "it is not said whether the adapter is to be a part of what is trained",
            "move adapter_config.json and adapter_model.safetensors away to train the model without it, "
            "or merge the adapter and name what comes of it",
        )


def _join(*notes: str | None) -> str:
    return "; ".join(note for note in notes if note)


def _without_config(path: Path) -> ModelError:
    names = sorted(entry.name for entry in path.iterdir())
    if "adapter_config.json" in names:
        why, do = "it holds a peft adapter", "name the base model, or export the adapter merged and name that"
    elif "model_index.json" in names:
        why, do = (
            "it holds a diffusion pipeline, and forge trains models that write text",
            "take a tool for such models",
        )
    elif any(name.lower().endswith(".gguf") for name in names):
        why, do = "it holds GGUF files, which forge writes but cannot train from", "name a safetensors folder"
    else:
        found = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        why, do = f"found {found}" if names else "it is empty", "name a folder that save_pretrained wrote"
    return ModelError(f"{path} is no model folder: it has no config.json", why, do)


def _read_config(path: Path) -> tuple[dict[str, Any], bytes]:
    file = path / "config.json"
    config = files.read_object(file)
    if wrong := shapes.wrong_value(config):
        raise files.damaged(file, wrong)
    return config, file.read_bytes()


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    text = config.get("text_config")
    return text if isinstance(text, dict) else {}


def _from_config(config: Mapping[str, Any], note: str | None = None) -> dict[str, Any]:
    text = _text_config(config)
    both = (config, text)
    names = ("max_position_embeddings", "n_positions", "max_seq_len", "max_decoder_position_embeddings")
    lengths = [part.get(key) for key in names for part in both]
    types = [part.get(key) for part in both for key in ("dtype", "torch_dtype")]
    quantization = config.get("quantization_config")
    task = _task(config)
    if task == "unknown":
        note = _join(note, "config.json names no architecture; assumed text, not verified")
    quantized = grouped.name_of(config)
    if quantized is not None:
        note = _join(note, grouped.said(config))
    elif isinstance(quantization, dict):
        quantized = str(quantization.get("quant_method", "unknown"))
    return {
        "architectures": _architectures(config),
        "model_type": config.get("model_type"),
        "task": task,
        "dtype": next((kind for kind in types if isinstance(kind, str)), None),
        "quantized": quantized,
        "stored_bits": bits_of(quantization) if isinstance(quantization, dict) else None,
        "context": next((length for length in lengths if isinstance(length, int)), None),
        "shape": shapes.from_config(config),
        "note": note,
    }


_NO_SEQ2SEQ = ("EncoderModel", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering")
"""Classes of encoder-decoder families that write nothing."""


def _architectures(config: Mapping[str, Any]) -> tuple[str, ...]:
    names = config.get("architectures")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _task(config: Mapping[str, Any]) -> ModelTask:
    names = _architectures(config)
    if not names:
        return "unknown"
    sees = any(config.get(key) is not None for key in ("vision_config", "image_token_id", "image_token_index"))
    # CLIP has a vision_config too, but writes nothing.
    if sees and names[0].endswith(("ForConditionalGeneration", "ForCausalLM", "ForVision2Seq", "ForImageTextToText")):
        return "vision"
    if any(config.get(key) is not None for key in ("audio_config", "num_mel_bins", "vision_config", "encoder")):
        return "other"
    if config.get("is_encoder_decoder"):
        return "other" if names[0].endswith(_NO_SEQ2SEQ) else "seq2seq"
    if names[0].endswith(("ForCausalLM", "LMHeadModel", "ModelWithLMHead", "GenerationDecoder")):
        return "text"
    brought = config.get("auto_map")  # code of its own, as of ChatGLM, which calls its model ChatGLMModel
    return "text" if isinstance(brought, dict) and "AutoModelForCausalLM" in brought else "other"


def _is_packed(config: Mapping[str, Any]) -> bool:
    """Whether several weights share one stored number, so that shapes do not tell how many there are."""
    if (own := grouped.name_of(config)) is not None:
        return own != grouped.MLX
    quantization = config["quantization_config"]
    method = quantization.get("quant_method")
    if method == "bitsandbytes":
        return not quantization.get("load_in_8bit", quantization.get("_load_in_8bit", False))
    return method not in {"fp8", "fbgemm_fp8"}


def _chat_template(path: Path) -> bool | None:
    """Whether the folder has a chat template; None if its tokenizer is not there to tell."""
    if any((path / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    tokenizer = path / "tokenizer_config.json"
    return bool(files.read_object(tokenizer).get("chat_template")) if tokenizer.is_file() else None


SAMPLE = 64 * 1024


def digest(folder: Path, config: bytes, headers: tuple[Header, ...]) -> str:
    """Hash what makes the model this one, without reading gigabytes: of the weights, both ends of each file."""
    total = hashlib.sha256(len(config).to_bytes(8, "little") + config)
    for header in headers:
        total.update(f"{header.name}\0{header.size}\0{len(header.raw)}\0".encode() + header.raw)
        with (folder / header.name).open("rb") as file:
            file.seek(8 + len(header.raw))
            total.update(file.read(SAMPLE))
            file.seek(max(0, header.size - SAMPLE))
            total.update(file.read(SAMPLE))
    return total.hexdigest()

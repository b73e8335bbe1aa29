"""What a GGUF export starts from: the files of a run, put together."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ExportError
from forge_gguf.file import architectures, mixtures, pretokenizer
from forge_gguf.file.quants import KINDS, Shape
from forge_gguf.file.vocabulary import Vocabulary, vocabulary
from forge_gguf.file.weights import Weights
from forge_gguf.file.writer import general
from forge_gguf.trial.texts import CONVERSATIONS, corpus, own_texts, rows
from forge_huggingface.generation.plain import trained_on_plain_text
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rendering import tokenizers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from forge.api import Job, Run, Trained
    from forge_gguf.file.architectures import Tensor
    from forge_gguf.file.mixtures import Config
    from forge_gguf.file.quants import Kind


# llama.cpp takes files of such names for something else than a model (common/download.cpp, common/preset.cpp).
_READ = re.compile(r"mmproj|imatrix|mtp-|eagle3-|dflash-|dspark-|-\d{5}-of-\d{5}", re.IGNORECASE)
_LONGEST_NAME = 120  # bytes; a file's name has room for 255, with its type and ".part"


@dataclass(frozen=True, slots=True)
class Source:
    """A trained model, described for a file.

    Attributes:
        name: What the files are called after.
        base: The folder with the (base) model.
        adapter: The folder with the adapter, if one was trained.
        config: The model's config, as plain data.
        tokenizer: The tokenizer that it was trained with.
        weights: Its tensors.
        tensors: Those of the file.
        vocabulary: Its tokenizer, for the file.
        texts: Strings on which tokenizers differ, that the file's is tried with.
        own: What the run's rows and conversations read: here the file's must be right.
        rows: Rows of ids that its logits are compared on.
        variables: What the run's rows told its chat template: ``[data] chat_template_kwargs``.
        plain: Whether it was trained on plain text, with no chat template around it.
    """

    name: str
    base: Path
    adapter: Path | None
    config: Config
    tokenizer: Any
    weights: Weights
    tensors: tuple[Tensor, ...]
    vocabulary: Vocabulary
    texts: tuple[str, ...]
    own: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    variables: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False

    @property
    def shape(self) -> Shape:
        """What a mixture needs to know of the model."""
        layers, heads = self.config["num_hidden_layers"], self.config["num_attention_heads"]
        # llama.cpp's type "70B": Llama 2 and 3 and Qwen 2 with 80 layers (src/models/)
        wide = layers == 80 and heads != self.config.get("num_key_value_heads")
        wide = wide and self.config["architectures"][0] in {
            "LlamaForCausalLM",
            "MistralForCausalLM",
            "Qwen2ForCausalLM",
        }
        tied = not any(tensor.name == "output.weight" for tensor in self.tensors)
        return Shape(layers, tied, wide, mixtures.experts_of(self.config))

    def keys(self, kind: Kind) -> dict[str, Any]:
        """Return all keys of a file of a type."""
        return header(kind, self.config, self.vocabulary, self.name)

    def fingerprint(self, trained: Path) -> str:
        """Return a sha256 over what a file is made from: what training left, the base, the tokenizer.

        Args:
            trained: ``trained.json``, which holds the hashes of the weights and the digest of the base.
        """
        meaning = hashlib.sha256(json.dumps(self.keys(KINDS["f16"]), sort_keys=True).encode())
        recorded = json.loads(trained.read_text(encoding="utf-8"))
        meaning.update(json.dumps([recorded["files"], recorded["base"]], sort_keys=True).encode())
        return meaning.hexdigest()


def source_of(job: Job, run: Run, trained: Trained) -> Source:
    """Put together what a run left.

    Raises:
        ExportError: The model or its tokenizer cannot be written.
        ModelError: The base model is not there any more.
    """
    from transformers import AutoConfig

    weights_at = run.folder / trained.weights
    adapter = weights_at if trained.kind == "adapter" else None
    base = snapshot(job, run, weights=True) if adapter else weights_at
    config = AutoConfig.from_pretrained(base, local_files_only=True).to_dict()
    if why := architectures.problem(config):
        raise ExportError("the model cannot be written as GGUF", why, "name a llama.cpp tree: converter = FOLDER")
    tokenizer = tokenizers.load(job, run.folder / trained.processor)
    variables = job.data.variables
    weights = Weights(base, adapter)
    tensors = tuple(architectures.tensors(config, weights))
    embedding = next(tensor for tensor in tensors if tensor.name == "token_embd.weight")
    words = vocabulary(tokenizer, embedding.shape[0], stop_ids(base), variables)
    known = rows(run.folder, tokenizer, variables)
    texts, own = tuple(corpus(tokenizer, variables)), tuple(own_texts(tokenizer, known, variables))
    words = pretokenizer.fitted(tokenizer, words.begun(known), texts, own)
    return Source(
        name=name_of(job, run),
        base=base,
        adapter=adapter,
        config={**config, "vocab_size": embedding.shape[0]},
        tokenizer=tokenizer,
        weights=weights,
        tensors=tensors,
        vocabulary=words,
        texts=texts,
        own=own,
        rows=tuple(samples(tokenizer, known, variables)),
        variables=variables,
        plain=trained_on_plain_text(run.folder),
    )


def header(kind: Kind, config: Config, words: Vocabulary, name: str) -> dict[str, Any]:
    """Return all keys of a model's file: of the small one before training and of the trained one after it."""
    architecture = architectures.BUILTIN[config["architectures"][0]].name
    return general(kind, architecture, name) | architectures.keys(config) | words.keys()


def name_of(job: Job, run: Run) -> str:
    """Return what a run's files are called after: its name, without what programs read out of a file's name."""
    name = re.sub(r"[^\w.-]+", "-", job.name or run.folder.parent.name).strip("-.")
    while found := _READ.search(name):
        name = f"{name[: found.end() - 1]}_{name[found.end() - 1 :]}"
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore") or "model"


def stop_ids(folder: Path) -> tuple[int, ...]:
    """Return the ids at which the model's own generation settings stop."""
    from forge_huggingface.rendering.tokenizers import stop_ids as found

    return tuple(sorted(found(folder)))


def samples(
    tokenizer: Any, known: list[list[int]], variables: Mapping[str, Any], length: int = 48, count: int = 3
) -> list[tuple[int, ...]]:
    """Return rows for the comparison of logits: some of the run's own, a plain text, and a conversation."""
    found = [tuple(ids[:length]) for ids in known[:count]]
    text = "The harbour is quiet in the morning. def add(first, second): return first + second  # 12 + 30 = 42"
    found.append(tuple(tokenizer(text)["input_ids"][:length]))
    if tokenizer.chat_template:
        asked = list(CONVERSATIONS[2])
        made = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True, **variables)
        found.append(tuple(made["input_ids"][:length]))
    return [ids for ids in found if len(ids) > 1]

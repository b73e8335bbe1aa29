"""Before training: would the export work? A small random model of the same kind goes the whole way.

The real tokenizer, the real config with two layers and small matrices: written, loaded, tokenised, rendered, compared.
What stops here would have stopped after hours of training.
"""

from __future__ import annotations

import shutil
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import BackendImportError, ExportError, Finding
from forge_gguf.file import architectures, mixtures, pretokenizer, quants
from forge_gguf.file.quants import KINDS, Shape
from forge_gguf.file.vocabulary import vocabulary
from forge_gguf.file.weights import Weights
from forge_gguf.file.writer import layout, size, write
from forge_gguf.llama import upstream
from forge_gguf.llama.runtime import Generator
from forge_gguf.rules import SCRIPT
from forge_gguf.source import header, name_of, samples, stop_ids
from forge_gguf.trial import verify
from forge_gguf.trial.reference import Reference, fits
from forge_gguf.trial.texts import ROWS, corpus, ids_of, own_texts
from forge_gguf.trial.texts import rows as rows_of
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.rendering import tokenizers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from forge.api import Data, Job, Run
    from forge_gguf.file.mixtures import Config


OTHER = f'take format = "merged"; llama.cpp\'s {SCRIPT} MERGED makes a GGUF file of it, which reads texts so too'
"""What to do where a file would differ on what the run trains on."""


def preflight(job: Job, run: Run, data: Data) -> Iterable[Finding]:
    """Yield what stands against the GGUF exports of a job, and what its files will come to."""
    tables = [table for table in job.export if table.format == "gguf"]
    if upstream.needed(job, run.plan.facts):
        yield Finding("note", "GGUF files are made by llama.cpp's converter, and tried after training only")
        return
    from transformers import AutoConfig

    folder = snapshot(job, run, weights=True)
    config = AutoConfig.from_pretrained(folder, local_files_only=True).to_dict()
    if why := architectures.problem(config):
        yield Finding("error", f"GGUF export cannot work for this model: {why}", "name a llama.cpp tree: converter")
        return
    try:
        quants.library()
        yield from _files(job, run, folder, config, [name for table in tables for name in _types(table.options)])
        yield from dry_run(job, run, folder, config, data)
    except (ExportError, BackendImportError) as error:
        what = f"{error.what}: {error.why}" if error.why else error.what
        yield Finding("error", f"GGUF export cannot work: {what}", error.do or "remove the export")


def _types(options: Any) -> list[str]:
    return [] if options.get("adapter") else list(options["types"])


def _files(job: Job, run: Run, folder: Path, config: Config, names: Sequence[str]) -> Iterable[Finding]:
    """Check names of tensors, sizes, the disk and the memory for the real model."""
    weights = Weights(folder)
    tensors = architectures.tensors(config, weights)
    heads = not any(tensor.name == "output.weight" for tensor in tensors)
    shape = Shape(config["num_hidden_layers"], heads, experts=mixtures.experts_of(config))
    needed = 0
    for name in dict.fromkeys(names):
        kind = KINDS[name]
        bits, narrowed, matrices = quants.bits_per_weight(kind, [(t.name, t.shape) for t in tensors], shape)
        total = size(tensors, kind, shape)
        needed += total
        said = f"{name} will be {total / 2**20:,.0f} MiB, {bits:.1f} bits per weight"
        if narrowed:
            width = config["hidden_size"]
            said += (
                f": {narrowed} of {matrices} matrices fall back to wider types, because {width} is no multiple of 256"
            )
        yield Finding("note", said)
    free = shutil.disk_usage(run.folder).free
    if needed > free:
        have = f"{needed / 2**30:.1f} GiB for GGUF files, and {free / 2**30:.1f} are free in {run.folder}"
        yield Finding("error", f"the disk is too small: {have}", "free some space, or take fewer types")
    if names and not fits(weights.count(), wide=False):
        yield Finding(
            "warning",
            "this machine's memory is too small to compare the finished files with the whole trained model",
            "only their first layers will be compared; export on a larger machine for the rest",
        )
    if job.model.bits:
        yield Finding("note", f"trained on the {job.model.bits} base; GGUF files are made from its whole weights")


def small(config: Config) -> Config:
    """Return a config of the same kind with two layers and small matrices.

    Heads keep their size and each its share of key and value heads, since rotations depend on them. Of a mixture each
    token sees all experts: where random ones are chosen from, rounding chooses others now and then.
    """
    heads = config["num_attention_heads"]
    groups = heads // (config.get("num_key_value_heads") or heads)
    dimension = architectures.head_dim(config)
    count = groups if groups > 1 else 2
    changed: Config = {
        **config,
        "num_hidden_layers": 2,
        "num_attention_heads": count,
        "num_key_value_heads": count // groups if groups > 1 else 2,
        "hidden_size": dimension * count,
        "intermediate_size": 2 * dimension * count,
        "moe_intermediate_size": 2 * dimension * count if config.get("moe_intermediate_size") else None,
        "head_dim": dimension,
        "query_pre_attn_scalar": dimension if config.get("query_pre_attn_scalar") else None,
    }
    for name in ("num_experts", "num_local_experts"):
        if config.get(name):
            changed[name] = max(2, config["num_experts_per_tok"])
    for name in ("layer_types", "no_rope_layers"):
        if config.get(name):
            changed[name] = list(config[name])[:2]
    return {key: value for key, value in changed.items() if value is not None or key in config}


def dry_run(job: Job, run: Run, folder: Path, config: Config, data: Data) -> Iterable[Finding]:
    """Send a small random model the whole way: write, load, tokenise, render, compare.

    It has the trained model's header, all but the sizes, and a tokenizer that was saved and read again, as the trained
    model's will be.

    Args:
        job: The job.
        run: The run.
        folder: The base model's folder, for its generation settings.
        config: Its config.
        data: The rows and the tokenizer of the run.
    """
    kind, variables = KINDS["f16"], job.data.variables
    trained_with = getattr(data.processor, "tokenizer", data.processor)
    with tempfile.TemporaryDirectory(prefix="forge-gguf-") as scratch:
        model, saved, path = Path(scratch, "model"), Path(scratch, "tokenizer"), Path(scratch, "model.gguf")
        trained_with.save_pretrained(saved)
        tokenizer = tokenizers.load(job, saved)
        rows = known(run, data, tokenizer, variables)
        texts, own = corpus(tokenizer, variables), own_texts(tokenizer, rows, variables)
        if changed := [text for text in own if trained_with(text)["input_ids"] != tokenizer(text)["input_ids"]]:
            said = f"transformers splits {len(changed)} of {len(own)} rows in another way"
            yield Finding("error", f"{said} once the tokenizer is saved: {pretokenizer.short(changed[0])} first", OTHER)
        described = random_model(small(config), model)
        weights = Weights(model)
        tensors = architectures.tensors(described, weights)
        words = vocabulary(tokenizer, config["vocab_size"], stop_ids(folder), variables)
        words = pretokenizer.fitted(tokenizer, words.begun(rows), texts, own)
        keys = header(kind, described, words, name_of(job, run))
        tied = not any(tensor.name == "output.weight" for tensor in tensors)
        shape = Shape(2, tied, experts=mixtures.experts_of(described))
        write(path, keys, tensors, weights, kind, shape)
        asked = samples(tokenizer, rows, variables, length=24, count=1)
        with Reference(model, None) as trained:
            chances = [trained.chances(ids) for ids in asked]
        gates = [verify.check_keys(path, keys, layout(tensors, kind, shape), weights)]
        with Generator(path, context=64, exact=True) as generator:
            gates.append(verify.check_tokens(generator, tokenizer, texts, words.stops, own, bare=words.bare))
            gates.append(verify.check_template(generator, tokenizer, variables))
            gates.append(verify.check_logits(generator, asked, chances, kind))
    for gate in gates:
        if gate.state != "pass":
            failed = gate.state == "fail"
            said = f"a small random model of this kind, written as GGUF, differs ({gate.name}): {gate.message}"
            yield Finding("error", said, OTHER) if failed else Finding("warning", said)
    stops = ", ".join(repr(words.tokens[index]) for index in words.stops)
    name = architectures.BUILTIN[described["architectures"][0]].name
    yield Finding(
        "note",
        f"a small random {name} went the whole way to GGUF; texts are split as {words.pre!r}, answers end at {stops}",
    )


def known(run: Run, data: Data, tokenizer: Any, variables: Mapping[str, Any]) -> list[list[int]]:
    """Return rows of the run, the same as after training; of a stream the first ones."""
    if found := rows_of(run.folder, tokenizer, variables):
        return found
    return [ids_of(row, tokenizer, variables) for row in islice(data.train, ROWS)]


def random_model(config: Config, folder: Path) -> Config:
    """Write a random model, and return its config as transformers reads it back.

    Its matrices are a few times larger than at the start of a training, so that its logits differ enough to tell a
    wrong rotation or order from rounding.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    wish = AutoConfig.for_model(config["model_type"], **{k: v for k, v in config.items() if k != "model_type"})
    before = torch.random.get_rng_state()
    torch.manual_seed(0)
    try:
        model = AutoModelForCausalLM.from_config(wish, dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5) if name.endswith("norm.weight") else parameter.normal_(0, 0.1)
                else:
                    parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)
        model.save_pretrained(folder)
    finally:
        torch.random.set_rng_state(before)
    return dict(AutoConfig.from_pretrained(folder, local_files_only=True).to_dict())

"""LOAD and ADAPT: a model of sentence-transformers, or one made of a bare encoder or decoder, and what of it trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Adapted, Data, Loaded, ModelError, ModelLoaded, Noted, Warned, first_line
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.model.adapt import (
    adapted_names,
    check_names,
    describe,
    linear_modules,
    lora_config,
    target_modules,
)
from forge_huggingface.model.device import planned_device
from forge_sentence_transformers import TRAITS
from forge_sentence_transformers.shapes import EMBEDDING, RERANKER

if TYPE_CHECKING:
    from forge.api import Job, Run

HEADS = ("classifier", "score", "classification_head")
"""What transformers calls the head of a model that gives one number: it is trained whole, beside LoRA."""

_POOLERS = ("pooler", "pre_classifier", "head", "dense")
"""What may stand before such a head, new as it is."""


def load(job: Job, run: Run, data: Data) -> Loaded:
    """Load the base model onto the device that the plan is for.

    Raises:
        ModelError: Weights are missing or damaged, or the model is not of the kind that the method trains.
    """
    from transformers import set_seed

    folder = snapshot(job, run, weights=True)
    set_seed(job.train.options["seed"])  # a reranker's head may start at random
    model, notes = build(job, run, folder)
    limit = data.summary["max_seq_length"]
    model.max_seq_length = min(limit, model.max_seq_length or limit)
    if model.max_seq_length < min(limit, data.summary["longest"]):
        what = f"texts are cut at {model.max_seq_length} tokens, as the model's own settings say"
        run.emit(Warned(what, "a longer max_seq_length is not for this model"))
    for note in notes:
        run.emit(Noted(note))
    values = {
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.transformers_model.config._attn_implementation,  # noqa: SLF001 - there is no public name
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    run.emit(ModelLoaded.from_values(values))
    return Loaded(model=model, traits=TRAITS)


def build(job: Job, run: Run, folder: Path, trained: Path | None = None) -> tuple[Any, list[str]]:
    """Return the model in a folder, and what was decided of it that its files do not say.

    Args:
        job: The job.
        run: The run.
        folder: The folder.
        trained: The folder with what the run trained, which says all.

    Raises:
        ModelError: It cannot be had.
    """
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    given: dict[str, Any] = {
        "device": planned_device(job, run),
        "trust_remote_code": job.model.trust_remote_code,
        "local_files_only": True,
        "model_kwargs": {
            "dtype": getattr(torch, job.model.dtype),
            "attn_implementation": job.model.attn_implementation,
            "use_safetensors": True,
        },
    }
    whole = (folder / "modules.json").is_file()
    try:
        if job.train.method == RERANKER:
            model = CrossEncoder(str(folder), **given)
        elif whole:
            model = SentenceTransformer(str(folder), **given)
        else:
            model = _pooled(job, folder, given)
    except Exception as error:  # sentence-transformers' and transformers' own have no class in common
        what = f'sentence-transformers cannot load {job.model.id} for method = "{job.train.method}"'
        raise ModelError(what, first_line(error), "see the log, and [model] id") from error
    if job.train.method == EMBEDDING and not whole:
        mode = model[1].pooling_mode
        return model, [f"the model does not say how tokens become one vector: pooling_mode = {_said(mode)!r}"]
    if job.train.method == EMBEDDING and folder != trained and job.train.options["pooling_mode"] != "auto":
        what = "[train] pooling_mode is for models that do not say it, and this one's modules.json does"
        raise ModelError(what, f"it has {', '.join(type(module).__name__ for module in model)}", "remove the key")
    return model, _of_head(model) if job.train.method == RERANKER else []


def _said(mode: Any) -> str:
    return mode if isinstance(mode, str) else ", ".join(mode)


def _pooled(job: Job, folder: Path, given: dict[str, Any]) -> Any:
    """Return a bare encoder or decoder with a pooling behind it."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    own = {"trust_remote_code": given["trust_remote_code"], "local_files_only": True}
    text = Transformer(
        str(folder),
        model_kwargs={**own, **given["model_kwargs"]},
        processor_kwargs={**own},
        config_kwargs={**own},
    )
    if text.tokenizer.pad_token is None:  # as in rows: a decoder's tokenizer may have none
        text.tokenizer.pad_token = text.tokenizer.eos_token
    mode = job.train.options["pooling_mode"]
    if mode == "auto":
        writes = any(name.endswith("ForCausalLM") for name in text.config.architectures or ())
        mode = "lasttoken" if writes else "mean"
    return SentenceTransformer(modules=[text, Pooling(text.get_embedding_dimension(), mode)], device=given["device"])


def _of_head(model: Any) -> list[str]:
    """Return what is to be told of how a reranker makes its number. Raises :class:`ModelError` if it makes several."""
    if model.num_labels != 1:
        raise ModelError(
            f"the model gives {model.num_labels} numbers",
            "a reranker gives one: how well a document answers a query",
            "take a model of one label, or the bare encoder that it was made from",
        )
    last = type(list(model)[-1]).__name__
    if last == "LogitScore":
        return ['a model that writes is taken for a reranker by how likely it finds "yes" beside "no"']
    names = model.transformers_model.config.architectures or ()
    if not any(name.endswith("ForSequenceClassification") for name in names):
        return ["the model has no head for a number: a new one starts at random, and is trained whole"]
    return []


def adapt(job: Job, run: Run, loaded: Loaded) -> Loaded:
    """Make the model trainable, as ``[adapter]`` says.

    Raises:
        ModelError: A name in ``[adapter]`` fits no module.
    """
    model = loaded.model
    if job.adapter.type == "none":
        model.requires_grad_(requires_grad=True)
        targets = ["all weights"]
    else:
        targets = add_lora(model, job)
    run.emit(Adapted.from_values(describe(model, job.adapter.type, targets)))
    return Loaded(model=model, traits=loaded.traits)


def add_lora(model: Any, job: Job) -> list[str]:
    """Put LoRA into the transformer of a model, and return the names of the modules that it adapts."""
    from transformers import set_seed

    whole = model.transformers_model
    check_names(whole, job.adapter)
    config = lora_config(whole, job.adapter, target_modules(whole, job.adapter))
    config.exclude_modules = [*(config.exclude_modules or ()), *_outside(whole, job)] or None
    config.task_type = "SEQ_CLS" if job.train.method == RERANKER else "FEATURE_EXTRACTION"
    heads = [name for name, _ in whole.named_children() if name in HEADS + _POOLERS] if _is_new(whole) else []
    if heads:
        config.modules_to_save = sorted({*(config.modules_to_save or ()), *heads})
    set_seed(job.train.options["seed"])
    model.requires_grad_(requires_grad=False)
    model.add_adapter(config)
    return adapted_names(whole)


def _is_new(whole: Any) -> bool:
    return type(whole).__name__.endswith("ForSequenceClassification")


def _outside(whole: Any, job: Job) -> list[str]:
    """Return the linear layers that ``auto`` leaves out though they are called as others are: poolers and heads."""
    if job.adapter.target_modules != "auto":
        return []
    return [name for name in linear_modules(whole) if not any(part.isdigit() for part in name.split("."))]


def read(job: Job, run: Run, weights: Path | None) -> Any:
    """Return the base model, or with a run's weights the trained one, ready to be asked.

    Args:
        job: The job.
        run: The run.
        weights: The run's adapter or model; None for the base model.
    """
    from transformers import set_seed

    set_seed(job.train.options["seed"])  # the same new head as in the training
    if weights is not None and not (weights / "adapter_config.json").is_file():
        model, _ = build(job, run, weights, weights)
        return model.eval()
    model, _ = build(job, run, snapshot(job, run, weights=True))
    if weights is None:
        return model.eval()
    take_adapter(model, weights)
    return model.eval()


def take_adapter(model: Any, weights: Path) -> None:
    """Put a trained adapter into the transformer of a model, merged into its weights."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(model.transformers_model, str(weights)).merge_and_unload()
    model[0].model = merged

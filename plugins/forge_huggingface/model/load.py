"""LOAD: the base model, from a local folder of safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Data, Loaded, ModelError, ModelLoaded, Noted, Stage, Warned
from forge_huggingface.facts.folder import MODEL, reading
from forge_huggingface.heads.heads import POOLED, head_modules, is_head, settings, task_of
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.model.device import planned_device, reading_device
from forge_huggingface.rules.attention import NAME

if TYPE_CHECKING:
    from forge.api import Job, Run


def load(job: Job, run: Run, data: Data) -> Loaded:
    """Load the base model onto the device that the plan is for, or into main memory where a GPU will hold a part only.

    Raises:
        ModelError: Weights are missing, damaged or of another shape; the device is not there.
    """
    import torch
    from transformers import set_seed

    folder = snapshot(job, run, weights=True)
    device, planned = reading_device(job, run), planned_device(job, run)
    if device != planned:
        what = "a GPU has no room for all weights beside its part: each process reads them into main memory first"
        run.emit(Noted(what))
    task = task_of(run.plan.step(Stage.LOAD).words)
    if task:
        set_seed(job.train.options.get("seed", 42))  # the head starts at random
    model = read_model(job, run, str(folder), device, task=task, **settings(task, data.summary))
    where = f"{planned} {torch.cuda.get_device_name(planned)}" if planned.startswith("cuda") else planned
    if device != planned:
        where = f"main memory, for {where}"
    values = {
        "device": where,
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": model.config._attn_implementation,  # noqa: SLF001 - transformers has no public name for it
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    if job.model.bits and (left := model.config.quantization_config.llm_int8_skip_modules):
        values["unquantised"] = left
    run.emit(ModelLoaded.from_values(values))
    name_experts(model.config)
    return Loaded(model=model, traits=frozenset({"hf-model"}))


def name_experts(config: Any) -> None:
    """Let a mixture's configuration be asked for ``num_experts``, where its family calls them otherwise.

    TRL's losses that never hold all logits ask all families so for the loss of the router (TRL 1.14 and 1.16,
    ``trainer/utils.py``); half of them, such as Granite's and DeepSeek's, say ``num_local_experts``. The name is one to
    read by only: nothing is written into a ``config.json``.
    """
    text = config.get_text_config()
    kind = type(text)
    if not hasattr(text, "num_experts") and hasattr(text, "num_local_experts"):
        kind.attribute_map = {**kind.attribute_map, "num_experts": "num_local_experts"}


def read_model(
    job: Job, run: Run, folder: str, device: str, *, task: str = "", fresh: bool = True, **changes: Any
) -> Any:
    """Read a model from a folder, and refuse one that would come out partly random, a new head apart.

    Args:
        job: The job, whose ``[model]`` says how.
        run: The run.
        folder: The folder with config and safetensors.
        device: torch's name of the device.
        task: The task to load it for; the model's own if it is empty.
        fresh: Whether a head for the task may start at random; not so of a model that has been trained.
        changes: Other arguments for ``from_pretrained``.
    """
    import torch

    table = job.model
    if table.attn_implementation == NAME:
        from forge_huggingface.kernels.attention import register  # imports transformers

        register()
    arguments: dict[str, Any] = {
        "dtype": getattr(torch, table.dtype),
        "attn_implementation": table.attn_implementation,
        "device_map": {"": device} if device != "cpu" else None,
        "trust_remote_code": table.trust_remote_code,
        "use_safetensors": True,
        "local_files_only": True,
        "quantization_config": widening(job, run) or quantization(job, unquantised(job, run, folder, task)),
        **changes,
    }
    if job.model.bits:
        arguments["device_map"] = {"": device}
    task = task or run.plan.facts.task
    if task in POOLED:
        arguments["ignore_mismatched_sizes"] = True  # a head for other labels is left out: see below
    with reading(f"cannot load {table.id}", Path(folder), MODEL):
        try:
            model, report = model_class(task).from_pretrained(folder, output_loading_info=True, **arguments)
        except ValueError as error:
            left_open = run.plan.decided("model.attn_implementation") is not None
            if "attention" not in str(error).lower() or arguments["attn_implementation"] == "eager" or not left_open:
                raise
            run.emit(Warned(f"{table.id} has no {table.attn_implementation} attention; taking eager"))
            changes = {**changes, "attn_implementation": "eager"}
            return read_model(job, run, folder, device, task=task, fresh=fresh, **changes)
    prefix = model.base_model_prefix

    def free(name: str) -> bool:
        return fresh and task in POOLED and is_head(name, prefix)

    if unused := sorted(name for name in report["unexpected_keys"] if not free(name)):
        named = f"{', '.join(unused[:3])}{' …' if len(unused) > 3 else ''}"
        what = f"{len(unused)} weights of {table.id} are not used, since its config.json has no place for them: {named}"
        run.emit(Warned(what, "see whether config.json and weights are of one model"))
    if missing := sorted(name for name in report["missing_keys"] if not free(name)):
        raise ModelError(
            f"{table.id} lacks {len(missing)} weights",
            f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''} would start at random",
            "get the whole model, or a config.json that fits its weights",
        )
    mismatched = sorted(report.get("mismatched_keys") or ())
    if other := [each for each in mismatched if not free(each[0])]:
        raise ModelError(f"{table.id} has weights of another shape than its config.json says", str(other[:3]))
    if mismatched:
        run.emit(Noted(f"the head of {table.id} is for other labels and was left out: a new one starts at random"))
    return model


def model_class(task: str) -> Any:
    """Return transformers' class for a task, as in :class:`~forge.api.ModelFacts`."""
    import transformers

    names = {"vision": "ImageTextToText", "seq2seq": "Seq2SeqLM", **dict.fromkeys(POOLED, "SequenceClassification")}
    return getattr(transformers, f"AutoModelFor{names.get(task, 'CausalLM')}")


def unquantised(job: Job, run: Run, folder: str, task: str = "") -> list[str] | None:
    """Return what 4 and 8 bit leave out of a model, or None to leave it to transformers.

    Of one with a head that starts at random it is the head, which is to be trained: transformers leaves out the last
    module, which need not be it. Of a vision model it is all but its language model: a vision tower is small beside it
    and loses more by rounding, so Unsloth rounds none of it; and only the same weights train alike on both backends.
    """
    vision = run.plan.facts.task == "vision"
    if job.model.bits is None or not (vision or task in POOLED):
        return None
    import torch
    from transformers import AutoConfig

    table = job.model
    with reading(f"cannot load {table.id}", Path(folder), MODEL):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=table.trust_remote_code, local_files_only=True)
        with torch.device("meta"):
            kind = model_class(task if task in POOLED else "vision")
            model = kind.from_config(config, trust_remote_code=table.trust_remote_code)
    if task in POOLED:
        base = model.base_model_prefix
        return [f"{base}.{name}" if name == "pooler" else name for name in head_modules(model)]
    decoder = model.get_decoder()
    language = next((name for name, module in model.named_modules() if module is decoder), "")
    if not language:  # the whole model is its own decoder: there is nothing beside it
        return None
    above = {language[:index] for index, letter in enumerate(language) if letter == "."}
    found = set()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and not name.startswith(f"{language}."):
            parts = name.split(".")
            names = (".".join(parts[:count]) for count in range(1, len(parts) + 1))
            found.add(next(each for each in names if each not in above))
    return sorted(found)


def widening(job: Job, run: Run) -> Any:
    """Return transformers' setting to load quantised weights as 16 bit ones, or None where they stay as they are."""
    if not job.model.dequantize:
        return None
    from transformers import FineGrainedFP8Config, Mxfp4Config

    return (Mxfp4Config if run.plan.facts.quantized == "mxfp4" else FineGrainedFP8Config)(dequantize=True)


def quantization(job: Job, kept: list[str] | None = None) -> Any:
    """Return bitsandbytes' settings for the job, with the modules that it leaves alone, or None."""
    if job.model.bits is None:
        return None
    import torch
    from transformers import BitsAndBytesConfig

    if job.model.bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(  # as in QLoRA (arXiv 2305.14314): NF4, double quantisation
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, job.model.dtype),
        llm_int8_skip_modules=kept,
    )

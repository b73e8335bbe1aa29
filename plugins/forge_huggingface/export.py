"""EXPORT: the adapter as peft reads it, or the whole model with the adapter merged in; on request, to the hub.

A merged model counts only after it was read back from the disk and gave the adapter model's logits. Everything starts
from the files of the run, so an export can be made on another machine, later, without what trained the model.
"""

from __future__ import annotations

import functools
import gc
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Event, Exported, ExportError, ModelError, Trained
from forge.files import files_below
from forge.folder import RunFolder
from forge_huggingface.card import model_card
from forge_huggingface.generation.sampling import complete_config, recommended
from forge_huggingface.hub import snapshot
from forge_huggingface.push import push

if TYPE_CHECKING:
    from forge.job import ExportTable, Job
    from forge.run import RunHandle

# How far the merged model's logits may be from the adapter model's: the root mean square of the difference over that of
# the logits themselves (each row centred), by the type of the merged weights. Rounding alone gives about 1e-6 in
# float32 and 1e-2 in bfloat16; a wrong scale or a forgotten layer gives far more. A ratio, because a divergence alone
# is small for any change of a model that is unsure.
LIMITS: Mapping[str, float] = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


def export(job: Job, run: RunHandle, trained: Trained, export: ExportTable, out: Path) -> Exported:
    """Write one export into ``out``; the core uploads it, if the job says so, once it is in its place.

    Raises:
        ExportError: The merged model is not the trained one, or the upload failed.
        ModelError: The base model is not there any more.
    """
    weights = run.folder / trained.weights
    report: dict[str, Any] = {}
    if export.format == "adapter":
        if trained.kind != "adapter":
            raise ExportError("there is no adapter to export", "the whole model was trained", "take format merged")
        shutil.copytree(weights, out, dirs_exist_ok=True)
    elif trained.kind == "full":
        shutil.copytree(weights, out, dirs_exist_ok=True)
        report = {"note": "the whole model was trained; there was nothing to merge"}
    else:
        report = merge(job, run, trained, out)
    if trained.task != "reward":  # which answers nothing
        report["generation_config"] = generation_defaults(job, run, out)
    card = model_card(job, run.plan, trained, export.format, RunFolder(run.folder).evaluation())
    (out / "README.md").write_text(card, encoding="utf-8")
    name = export.push_to_hub
    upload = functools.partial(push, name=name, private=export.private) if name else None
    return Exported(files=tuple(path.as_posix() for path in files_below(out)), report=report, upload=upload)


def generation_defaults(job: Job, run: RunHandle, out: Path) -> dict[str, Any]:
    """Write how the model is meant to answer into the export's ``generation_config.json``, and return a report.

    What the model's own says is kept; the job's ``[generation]`` goes over it, its family's recommendation below it.
    """
    own = out if (out / "generation_config.json").is_file() else snapshot(job, run, weights=False)
    if own != out and (own / "generation_config.json").is_file():  # an adapter has none of its own
        shutil.copy(own / "generation_config.json", out / "generation_config.json")
    template = out / "chat_template.jinja"
    text = template.read_text(encoding="utf-8") if template.is_file() else None
    return complete_config(out, recommended(job, out, run.plan.facts.model_type, text))


def merge(job: Job, run: RunHandle, trained: Trained, out: Path) -> dict[str, Any]:
    """Merge an adapter into its base, write the model, read it back, and compare the logits.

    The base is read in 16 or 32 bit even if training saw it in 4 or 8: merging into rounded weights would round the
    adapter away.

    Returns:
        The comparison: relative error of the logits and its limit, mean and largest KL divergence in nats, share of
        equal top tokens, positions compared. Of a reward model, the error of its numbers.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoProcessor, AutoTokenizer

    from forge_huggingface.load import model_class

    adapter, vision = run.folder / trained.weights, trained.task == "vision"
    kind = model_class(trained.task)
    base_folder = snapshot(job, run, weights=True)
    processor = (AutoProcessor if vision else AutoTokenizer).from_pretrained(
        adapter, local_files_only=True, trust_remote_code=job.model.trust_remote_code
    )
    dtype = torch.float32 if job.model.dtype == "float32" else stored_dtype(base_folder, job)
    prompts = image_probes(processor) if vision else probes(processor)
    base = read(kind, base_folder, dtype, job, **({"num_labels": 1} if trained.task == "reward" else {}))
    if trained.task == "reward":  # it reads its number at the last token that is no padding
        base.config.get_text_config().pad_token_id = processor.pad_token_id
    model = PeftModel.from_pretrained(base, adapter)
    model.eval()
    before = logits(model, prompts)
    merged = model.merge_and_unload(safe_merge=True)
    merged.config.get_text_config().use_cache = True
    merged.save_pretrained(out, safe_serialization=True)
    processor.save_pretrained(out)
    del model, merged, base
    gc.collect()
    again = read(kind, out, dtype, job)
    again.eval()
    report = (compare_numbers if trained.task == "reward" else compare)(before, logits(again, prompts))
    name = str(dtype).removeprefix("torch.")
    report |= {"dtype": name, "limit": LIMITS[name]}
    if job.model.bits:
        report["note"] = f"trained on the {job.model.bits} base, merged into its {name} weights"
    found = f"logits {report['error']:.1e} from the adapter model's"
    if "top1" in report:
        found += f", {report['top1']:.1%} equal top tokens"
    run.emit(Event("note", {"message": f"merged model read back from disk: {found}"}))
    if not report["error"] <= LIMITS[name]:  # so that NaN fails too
        raise ExportError(
            "the merged model is not the trained one",
            f"its logits are {report['error']:.1e} from the adapter model's (relative), more than {LIMITS[name]:.0e}",
            "the adapter is safe and can be used; please report this with the run's log",
        )
    return report


def read(kind: Any, folder: Path, dtype: Any, job: Job, **settings: Any) -> Any:
    """Read a model on the CPU, where memory is, in a plain type."""
    try:
        return kind.from_pretrained(
            folder,
            dtype=dtype,
            trust_remote_code=job.model.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
            **settings,
        )
    except OSError as error:
        raise ModelError(
            f"cannot read the model in {folder}",
            str(error).splitlines()[0],
            "the export needs the base model's weights",
        ) from error


def stored_dtype(folder: Path, job: Job) -> Any:
    """Return the type that a model's config declares for its weights, float32 if it says nothing."""
    import torch
    from transformers import AutoConfig

    trust = job.model.trust_remote_code
    declared = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust).dtype
    return declared if declared in {torch.float16, torch.bfloat16, torch.float32} else torch.float32


def probes(tokenizer: Any) -> list[dict[str, Any]]:
    """Return three short inputs: a chat where there is a template, a sentence, and a row of mixed tokens."""
    import torch

    texts = ["The quick brown fox jumps over the lazy dog.", "def add(a, b):\n    return a + b\n"]
    found = [tokenizer(text)["input_ids"] for text in texts]
    if tokenizer.chat_template:
        found.append(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "Name three colours."}], add_generation_prompt=True, return_dict=True
            )["input_ids"]
        )
    else:
        found.append([index % len(tokenizer) for index in range(7, 7 * 24, 7)])
    return [{"input_ids": torch.tensor([ids])} for ids in found if ids]


def image_probes(processor: Any) -> list[dict[str, Any]]:
    """Return inputs with and without an image, as the processor makes them."""
    from PIL import Image

    image = Image.linear_gradient("L").resize((112, 84)).convert("RGB")
    pictured = {"text": [f"A picture: {processor.image_token} of what?"], "images": [[image]]}
    found = [processor(return_tensors="pt", **each) for each in (pictured, {"text": ["The quick brown fox jumps."]})]
    return [dict(each) for each in found]


def logits(model: Any, prompts: list[dict[str, Any]]) -> list[Any]:
    """Return the logits of every position of every prompt, float32, shape (tokens, vocabulary).

    An encoder-decoder model gets the first tokens of the prompt for its answer. A reward model gives shape (1,).
    """
    import torch

    found = []
    with torch.inference_mode():
        for inputs in prompts:
            answer = {"decoder_input_ids": inputs["input_ids"][:, :8]} if model.config.is_encoder_decoder else {}
            found.append(model(**inputs, **answer).logits[0].float())
    return found


def compare_numbers(before: list[Any], after: list[Any]) -> dict[str, Any]:
    """Compare the numbers of a reward model: the largest difference, against the largest number."""
    import torch

    first, second = torch.cat(before), torch.cat(after)
    return {"error": float((first - second).abs().max() / first.abs().max()), "positions": first.shape[0]}


def compare(before: list[Any], after: list[Any]) -> dict[str, Any]:
    """Compare two lists of logits of shape (tokens, vocabulary).

    Returns:
        ``error``: root mean square of the difference over that of ``before``, rows centred. ``kl_mean``, ``kl_max``:
        Kullback-Leibler divergence of ``after`` from ``before`` per position, in nats. ``top1``: share of positions
        with the same best token. ``positions``: how many.
    """
    import torch

    first, second = torch.cat(before), torch.cat(after)
    centred = [rows - rows.mean(-1, keepdim=True) for rows in (first, second)]
    error = (centred[0] - centred[1]).square().mean().sqrt() / centred[0].square().mean().sqrt()
    p, q = first.log_softmax(-1), second.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1)
    return {
        "error": float(error),
        "kl_mean": float(divergence.mean().clamp(min=0)),
        "kl_max": float(divergence.max()),
        "top1": float((first.argmax(-1) == second.argmax(-1)).float().mean()),
        "positions": first.shape[0],
    }

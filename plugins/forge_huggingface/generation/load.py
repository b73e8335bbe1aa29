"""GENERATE: the trained weights, or the base model, in memory and ready to answer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import ModelError, Noted, RunError, UsageError, Who
from forge_huggingface.data.labelled import LabelledRows
from forge_huggingface.facts.folder import reading
from forge_huggingface.generation.generator import ModelGenerator, Settings
from forge_huggingface.generation.labels import LabelGenerator
from forge_huggingface.generation.plain import SAID, trained_on_plain_text
from forge_huggingface.generation.sampling import fixed, recommended
from forge_huggingface.generation.seq2seq import Seq2SeqGenerator
from forge_huggingface.heads.heads import CLASSIFICATION, settings, summary_of
from forge_huggingface.hub.snapshot import snapshot
from forge_huggingface.methods import METHODS
from forge_huggingface.model.device import planned_device
from forge_huggingface.model.load import read_model
from forge_huggingface.rendering import tokenizers
from forge_huggingface.rendering.render import Renderer
from forge_huggingface.rendering.templates import of_job, own
from forge_huggingface.rules.placement import beyond, positions
from forge_huggingface.vision import processors
from forge_huggingface.vision.render import ImageRenderer

if TYPE_CHECKING:
    from forge.api import Job, Run, Trained


def generate(job: Job, run: Run, trained: Trained, source: Who) -> ModelGenerator | LabelGenerator:
    """Load a model as training had it: in the same bits, its adapter beside it and not merged into rounded weights.

    The base model is asked through the run's tokenizer and chat template too, so that both see the same prompt.

    Raises:
        ModelError: The base model is not there any more, or cannot be read.
    """
    from transformers import GenerationConfig

    weights = run.folder / trained.weights
    tuned = source == Who.TUNED
    whole = tuned and trained.kind == "full"
    folder = weights if whole else snapshot(job, run, weights=True)
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"there is no model in {folder}", "its config.json is missing", "name its folder: --set model.id=FOLDER"
        )
    processor = load_processor(job, run, trained)
    renderer = make_renderer(job, run, processor, folder)
    if trained.task == CLASSIFICATION:
        return classifier(job, run, trained, folder, renderer, tuned=tuned)
    model = read_model(job, run, str(folder), planned_device(job, run), **narrower(job, run))
    own, file = fixed(model), model.generation_config
    # What the model's own file says is asked for by name (`sampling`), and must not slip in where it is not wanted.
    model.generation_config = GenerationConfig()
    if tuned and trained.kind == "adapter":
        model = add_adapter(model, weights)
    model.eval()
    text = renderer.template.text if renderer.template is not None else None
    found = recommended(job, folder, run.plan.facts.model_type, text)
    facts = run.plan.facts
    texts = facts.task == "seq2seq"
    plain = not texts and trained_on_plain_text(run.folder)
    advice = f"{found.advice}; {SAID}" if plain else found.advice
    chosen = Settings(
        stops=renderer.stops if plain else renderer.ends,
        sampling=found.sampling(),
        advice=f"{found.advice}; each question stands alone" if texts else advice,
        context=facts.context,
        positions=positions(facts),
        fixed=own,
        file=file,
        graph=job.generation.cuda_graph,
        # Trained biases are written into the base model's own, so without its adapter it is not the base model.
        plain=plain,
        shares_base=trained.kind == "adapter" and tuned and job.adapter.bias == "none",
    )
    return (Seq2SeqGenerator if texts else ModelGenerator)(model, processor, renderer, chosen, run)


def narrower(job: Job, run: Run) -> dict[str, Any]:
    """Return how a model is read otherwise than it was trained: in 16 bit where 32 do not fit on one GPU.

    Several GPUs have trained it, a part on each, and one answers.
    """
    if not beyond(run.plan.machine, job, run.plan.facts):
        return {}
    import torch

    run.emit(Noted("answers are of the weights in bfloat16: in 32 bit they do not fit on one GPU"))
    return {"dtype": torch.bfloat16}


def classifier(
    job: Job, run: Run, trained: Trained, folder: Path, renderer: Renderer, *, tuned: bool
) -> LabelGenerator:
    """Load a trained classifier. Raises :class:`UsageError` for its base model, which has no such head."""
    if not tuned:
        what = "the base model tells no labels: its head would be a new one, which starts at random"
        raise UsageError(what, None, "ask the trained model")
    known = summary_of(run)
    given = {"task": trained.task, "fresh": trained.kind == "adapter", **settings(trained.task, known)}
    model = read_model(job, run, str(folder), planned_device(job, run), **given)
    model.config.get_text_config().pad_token_id = renderer.tokenizer.pad_token_id
    if trained.kind == "adapter":
        model = add_adapter(model, run.folder / trained.weights)
    model.eval()
    tokenizer = renderer.tokenizer
    layout = LabelledRows(job, tokenizer, tokenizer.pad_token_id, False, renderer.max_seq_length).by(known)
    converses = any("messages" in source.get("columns", ()) for source in known.get("sources", ()))
    return LabelGenerator(model, renderer, layout, converses=converses)


def add_adapter(model: Any, folder: Path) -> Any:
    """Put a trained adapter around a model. Raises :class:`RunError` if it cannot be read."""
    from peft import PeftModel

    what, files = f"the adapter in {folder} cannot be read", ("adapter_config.json", "adapter_model.safetensors")
    with reading(what, folder, files, kind=RunError, do="restore the folder"):
        return PeftModel.from_pretrained(model, str(folder))


def load_processor(job: Job, run: Run, trained: Trained) -> Any:
    """Return the run's tokenizer or processor: the base model's, with the run's chat template."""
    folder = run.folder / trained.processor
    return processors.load(job, folder) if trained.task == "vision" else tokenizers.load(job, folder)


def make_renderer(job: Job, run: Run, processor: Any, folder: Path) -> Renderer:
    """Return what turns rows and conversations into text and tokens, as training did.

    Args:
        job: The job.
        run: The run.
        processor: The run's tokenizer or processor, which holds its chat template.
        folder: The model's folder, for the tokens that end an answer and those that stand for images.
    """
    sees = run.plan.facts.task == "vision"
    tokenizer = processor.tokenizer if sees else processor
    template = own(getattr(processor, "chat_template", None) or tokenizer.chat_template, "of the run")
    vocabulary = tokenizers.vocabulary(job, folder)
    tokenizers.settle_pad(tokenizer, vocabulary)
    if template is not None:
        template = of_job(template, job)
    method = METHODS.get(job.train.method)
    taken: dict[str, Any] = {
        "train_on": job.data.train_on,
        "max_seq_length": tokenizers.longest_row(job, run, tokenizer),
        # Rows that are asked may be of another kind than those that were trained on.
        "on_long_row": "auto" if job.data.on_long_row == "split" else job.data.on_long_row,
        "vocabulary": vocabulary,
        "mask_empty_reasoning": job.data.mask_empty_reasoning,
        "stops": tokenizers.stop_ids(folder),
        "ends": method is None or not method.pooled,
    }
    if sees:
        return ImageRenderer(
            processor, template, gallery=processors.gallery(job, run, processor), folder=folder, **taken
        )
    return Renderer(tokenizer, template, **taken)

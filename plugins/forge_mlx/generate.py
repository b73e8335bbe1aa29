"""GENERATE: the trained weights, or the base model, in MLX and ready to answer."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Answer, ModelError, Noted, Prompt, Trained, Who
from forge_huggingface.generation.generator import ModelGenerator, Settings
from forge_huggingface.generation.load import load_processor, make_renderer
from forge_huggingface.generation.plain import SAID, trained_on_plain_text
from forge_huggingface.generation.sampling import recommended
from forge_huggingface.hub.snapshot import snapshot
from forge_mlx.adapt import take_adapter
from forge_mlx.families import WINDOWED
from forge_mlx.load import read_model
from forge_mlx.settings import LONG, settings_of

if TYPE_CHECKING:
    from forge.api import Job, Run, Sampling

_TOKENS = 4096  # of a batch whose loss is measured: its logits are as many rows of the size of the vocabulary
_AT_A_TIME = 8


def generate(job: Job, run: Run, trained: Trained, source: Who) -> MLXGenerator:
    """Load a model as training had it, its adapter beside it and not merged into rounded weights.

    Raises:
        ModelError: The base model is not there any more, or cannot be read.
    """
    weights, tuned = run.folder / trained.weights, source == Who.TUNED
    whole = tuned and trained.kind == "full"
    folder = weights if whole else Path(snapshot(job, run, weights=True))
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"there is no model in {folder}", "its config.json is missing", "name its folder: --set model.id=FOLDER"
        )
    processor = load_processor(job, run, trained)
    renderer = make_renderer(job, run, processor, folder)
    module, context = read_model(job, folder), shortest(run.plan.facts.context, folder)
    adapted = tuned and trained.kind == "adapter"
    if adapted:
        take_adapter(module, weights)
        if job.model.bits:
            run.emit(Noted(f"the base is rounded to MLX's {job.model.bits}, whatever rounded it in the training"))
    module.eval()
    text = renderer.template.text if renderer.template is not None else None
    found = recommended(job, folder, run.plan.facts.model_type, text)
    plain = trained_on_plain_text(run.folder)
    settings = Settings(
        stops=renderer.stops if plain else renderer.ends,
        sampling=found.sampling(),
        advice=f"{found.advice}; {SAID}" if plain else found.advice,
        context=context,
        positions=None,
        fixed={},
        plain=plain,
        shares_base=adapted,
    )
    return MLXGenerator(module, processor, renderer, settings, run)


def shortest(context: int | None, folder: Path) -> int | None:
    """Return the most tokens that a model takes in MLX: no more than what MLX has the angles and the window of."""
    settings = settings_of(folder, 1)
    window = (
        None
        if settings["model_type"] in WINDOWED or settings.get("use_sliding_window") is False
        else settings.get("sliding_window")
    )
    rope = settings.get("rope_scaling") or {}
    even = rope["original_max_position_embeddings"] if rope.get("rope_type") == LONG else None
    return min((each for each in (context, window, even) if each), default=None)


class MLXGenerator(ModelGenerator):
    """A model of MLX that answers; how it is asked is what huggingface's has."""

    def chat(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Generator[str, None, Answer]:
        """Yield the answer to a conversation as it comes; return it as an :class:`Answer`. Closing it ends it."""
        from forge_mlx.decoding import stream

        ids = self._ids(self._prompt(messages))
        self._fits({"input_ids": _Row(ids)})
        self._seed(sampling)
        self._switch()
        said: list[int] = []
        shown, finished = "", False
        for token in stream(self.model, ids, sampling):
            if finished := token in self.settings.stops:
                break
            said.append(token)
            text = self.tokenizer.decode(said, skip_special_tokens=True)
            if not text.endswith("\ufffd"):  # half of a character is never shown
                yield text[len(shown) :]
                shown = text
        text = self.tokenizer.decode(said, skip_special_tokens=True)
        if text != shown:
            yield text[len(shown) :]
        return Answer(text, len(said), finished)

    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, count: int = 1, batch_size: int | None = None
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Yield the index of each prompt with ``count`` answers, the longest prompts first."""
        from forge_mlx.decoding import complete

        self._seed(sampling)
        encoded = [self._ids(prompt) for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda index: (-len(encoded[index]), index))
        size = batch_size or _AT_A_TIME
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            self._switch()
            rows = [encoded[index] for index in chosen for _ in range(count)]
            found = [self._answer(ids) for ids in complete(self.model, rows, sampling, self.settings.stops)]
            for place, index in enumerate(chosen):
                yield index, found[place * count : (place + 1) * count]

    def losses(self, rows: Sequence[Mapping[str, Any]], *, batch_size: int | None = None) -> list[tuple[float, int]]:
        """Return the sum of the negative log-likelihoods (nats) of each row's labels, and their number."""
        from forge_mlx.training.batches import IGNORED, batch_of
        from forge_mlx.training.objectives import log_likelihoods

        self._switch()
        lengths = [len(row["input_ids"]) for row in rows]
        order = sorted(range(len(rows)), key=lambda index: (-lengths[index], index))
        found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
        at = 0
        while at < len(order):
            size = max(1, min(batch_size or _TOKENS, _TOKENS // lengths[order[at]]))
            chosen = order[at : at + size]
            sums = log_likelihoods(self.model, batch_of([rows[index] for index in chosen]))[0].tolist()
            for index, value in zip(chosen, sums, strict=True):
                found[index] = (-value, sum(label != IGNORED for label in rows[index]["labels"][1:]))
            at += size
        return found

    def base(self) -> MLXGenerator | None:
        """Return the model without its adapter, where that is the base model to the last weight."""
        if not self.settings.shares_base or not self.settings.adapted:
            return None
        bare = replace(self.settings, adapted=False)
        return MLXGenerator(self.model, self.processor, self.renderer, bare, self.run)

    def close(self) -> None:
        """Free the memory; what :meth:`base` returned cannot be used after it."""
        import mlx.core as mx

        if self.settings.adapted:
            self.model = None
            mx.clear_cache()

    def _ids(self, prompt: Prompt) -> list[int]:
        ids: list[int] = self.tokenizer(prompt.text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _answer(self, ids: list[int]) -> Answer:
        end = next((place for place, token in enumerate(ids) if token in self.settings.stops), None)
        said = ids if end is None else ids[:end]
        return Answer(self.tokenizer.decode(said, skip_special_tokens=True), len(said), end is not None)

    def _switch(self) -> None:
        """Have the model answer with its adapter or without, as this generator is asked to: both share it."""
        from forge_mlx.lora import switch

        switch(self.model, on=self.settings.adapted)

    def _seed(self, sampling: Sampling) -> None:
        import mlx.core as mx

        if sampling.temperature > 0 and sampling.seed is not None:
            mx.random.seed(sampling.seed)


class _Row:
    """What :meth:`ModelGenerator._fits` looks at of a prompt."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.shape = (1, len(ids))

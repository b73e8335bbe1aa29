"""A model in memory that answers: the one generation path of chat and evaluation."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from forge.api import Answer, Noted, OutOfMemory, Prompt, UsageError, first_line
from forge_huggingface.batches.images import ImageCollator
from forge_huggingface.batches.tokens import TokenCollator
from forge_huggingface.generation.likelihood import sums
from forge_huggingface.generation.plain import text_of
from forge_huggingface.generation.sampling import generation_config
from forge_huggingface.generation.steering import Stop, presence
from forge_huggingface.model.decoding import FEW, Decoder, fitting
from forge_huggingface.model.device import is_out_of_memory
from forge_huggingface.rendering.templates import missing
from forge_huggingface.rows import BadRow
from forge_huggingface.vision.images import seat

if TYPE_CHECKING:
    from collections.abc import Generator as Stream
    from collections.abc import Iterator, Mapping, Sequence

    from forge.api import Prompt, Run, Sampling
    from forge_huggingface.rendering.render import Renderer


_TOKENS = 4096  # of a batch whose loss is measured: its logits are as many rows of the size of the vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a model answers.

    Attributes:
        stops: Ids of the tokens that end an answer.
        sampling: How the model is meant to answer.
        advice: Where that comes from.
        context: The most tokens that the model takes, if that is known.
        positions: The most tokens that the model can hold at all, where it has a vector for each position.
        fixed: Settings of transformers that are the model's own, as :func:`.sampling.fixed` finds them.
        file: What the model's own ``generation_config.json`` says, for who asks it in another way.
        shares_base: Whether the model without its adapter is the base model, to the last weight.
        adapted: Whether it answers with its adapter, if it has one.
        plain: Whether it was trained on plain text, which is to be continued.
        graph: Whether a CUDA graph may decode.
    """

    stops: frozenset[int]
    sampling: Sampling
    advice: str
    context: int | None
    positions: int | None
    fixed: Mapping[str, Any]
    file: Any = None
    shares_base: bool
    adapted: bool = True
    plain: bool = False
    graph: bool = True


class ModelGenerator:
    """A model of transformers, with or without peft's adapter around it.

    Args:
        model: The model, on its device.
        processor: The tokenizer or processor of the run.
        renderer: Renders conversations as training did.
        settings: How it answers.
        run: The run, for its events.

    Attributes:
        tokenizer: The processor's tokenizer.
        pad: The id that fills short rows.
    """

    def __init__(self, model: Any, processor: Any, renderer: Renderer, settings: Settings, run: Run) -> None:
        self.model, self.processor, self.renderer = model, processor, renderer
        self.settings, self.run = settings, run
        self.tokenizer = getattr(processor, "tokenizer", processor)
        pad = self.tokenizer.pad_token_id
        self.pad: int = pad if pad is not None else min(settings.stops)
        self.decoder = Decoder(lambda message: run.emit(Noted(message)), enabled=settings.graph)

    @property
    def sampling(self) -> Sampling:
        """How the model is meant to answer."""
        return self.settings.sampling

    @property
    def advice(self) -> str:
        """Where :attr:`sampling` comes from."""
        return self.settings.advice

    @property
    def context(self) -> int | None:
        """The most tokens that the model takes, if that is known."""
        return self.settings.context

    def chat(self, messages: Sequence[Mapping[str, Any]], sampling: Sampling) -> Stream[str, None, Answer]:
        """Yield the answer to a conversation as it comes; return it as an :class:`Answer`. Closing it stops the model.

        Images are parts of a message, ``{"type": "image", "image": PATH}``.
        """
        from transformers import StoppingCriteriaList, TextIteratorStreamer

        inputs = self._encode([self._prompt(messages)])
        self._fits(inputs)
        # The streamer waits for whole words: half of a character is never shown.
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        stop, ended = Stop(), []

        def work() -> None:
            try:
                with self._adapted():
                    criteria = StoppingCriteriaList([stop])
                    ended.append(self._generate(inputs, sampling, 1, streamer=streamer, stopping_criteria=criteria))
            except Exception as error:  # noqa: BLE001 - it is raised where the text is read
                ended.append(error)
                streamer.end()

        self._seed(sampling)
        worker = threading.Thread(target=work, name="answer", daemon=True)
        worker.start()
        try:
            for text in streamer:
                if text:
                    yield text
        finally:
            stop.now.set()
            worker.join()
        outcome: Any = ended[0]
        if isinstance(outcome, Exception):
            raise self._explained(outcome, 1)
        return self._answers(outcome, inputs)[0]

    def complete(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, count: int = 1, batch_size: int | None = None
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Yield the index of each prompt with ``count`` answers, the longest prompts first.

        Without ``batch_size``, greedy answers are made for as many prompts at a time as fit, and drawn ones for 8: what
        is drawn depends on how many are drawn beside it. A batch that does not fit into memory is halved, down to one
        prompt.

        Raises:
            OutOfMemory: One prompt alone does not fit.
        """
        order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index].text), index))
        self._seed(sampling)
        at, most = 0, sys.maxsize
        while at < len(order):
            size = min(most, batch_size or self._rows(prompts[order[at]], sampling, count))
            chosen = order[at : at + size]
            try:
                inputs = self._encode([prompts[index] for index in chosen])
                if len(chosen) > 1 and self._crowded(inputs, sampling):
                    chosen = chosen[:1]
                    inputs = self._encode([prompts[chosen[0]]])
                with self._adapted():
                    output = self._generate(inputs, sampling, count)
            except Exception as error:
                if not is_out_of_memory(error) or len(chosen) == 1:
                    raise self._explained(error, len(chosen) * count) from error
                most = max(1, len(chosen) // 2)
                self.run.emit(Noted(f"memory is short: answering {most} rows at a time"))
                _free()
                continue
            answers = self._answers(output, inputs)
            for position, index in enumerate(chosen):
                yield index, answers[position * count : (position + 1) * count]
            at += len(chosen)

    def losses(self, rows: Sequence[Mapping[str, Any]], *, batch_size: int | None = None) -> list[tuple[float, int]]:
        """Return the sum of the negative log-likelihoods (nats) of each row's labels, and their number."""
        import torch

        collate = self._collator()
        widths = [max(len(row["input_ids"]), len(row["labels"])) for row in rows]  # an encoder's are not a decoder's
        order = sorted(range(len(rows)), key=lambda index: (-widths[index], index))
        found: list[tuple[float, int]] = [(0.0, 0)] * len(rows)
        at, most = 0, batch_size or (FEW if self.renderer.sees else _TOKENS)
        while at < len(order):
            chosen = order[at : at + min(most, max(1, _TOKENS // widths[order[at]]))]
            batch = {name: value.to(self.model.device) for name, value in collate([rows[i] for i in chosen]).items()}
            labels = batch.pop("labels")
            try:
                with torch.inference_mode(), self._adapted():
                    totals, counts = self._sums(self.model(**batch, use_cache=False).logits, labels)
            except Exception as error:
                if not is_out_of_memory(error) or len(chosen) == 1:
                    raise self._explained(error, len(chosen)) from error
                most = max(1, len(chosen) // 2)
                _free()
                continue
            for position, index in enumerate(chosen):
                found[index] = (totals[position], counts[position])
            at += len(chosen)
        return found

    def base(self) -> ModelGenerator | None:
        """Return the model without its adapter, where that is the base model to the last weight."""
        if not self.settings.shares_base or not self.settings.adapted:
            return None
        bare = replace(self.settings, adapted=False)
        return type(self)(self.model, self.processor, self.renderer, bare, self.run)

    @contextlib.contextmanager
    def lent(self) -> Iterator[tuple[Any, Any]]:
        """Lend the model as it answers, with its adapter or without, its tokenizer beside it."""
        ours, self.model.generation_config = self.model.generation_config, self.settings.file
        try:
            with self._adapted():
                yield self.model, deepcopy(self.tokenizer)  # who borrows it may set its pad token
        finally:
            self.model.generation_config = ours

    def close(self) -> None:
        """Free the memory; what :meth:`base` returned cannot be used after it."""
        if self.settings.adapted:
            self.model = None
            _free()

    def _prompt(self, messages: Sequence[Mapping[str, Any]]) -> Prompt:
        if self.settings.plain:
            return Prompt(text=self.tokenizer.decode(self.renderer.before) + text_of(messages))
        if self.renderer.template is None:
            raise missing("messages")
        try:
            seated, pictures = seat([dict(message) for message in messages], ())
            if pictures and not self.renderer.sees:
                raise UsageError("the message has an image", "this model takes text only", "leave it out")
            try:
                text, _ = self.renderer.template.render(self.tokenizer, seated, prompt=True)
            except BadRow as bad:  # its advice is for rows
                raise BadRow(bad.what, bad.why, "begin anew, without what it refuses") from bad
            gallery = getattr(self.renderer, "gallery", None)
            opened = [image for _, image in gallery.open_all(pictures, Path.cwd())] if gallery else []
        except BadRow as bad:
            raise UsageError(f"the conversation {bad.what}", bad.why, bad.do) from bad
        return Prompt(text=text, images=tuple(opened))

    def _fits(self, inputs: Mapping[str, Any]) -> None:
        width = inputs["input_ids"].shape[1]
        if self.context and width >= self.context:
            raise UsageError(
                f"the conversation has {width} tokens", f"the model takes {self.context}", "begin anew, or shorten it"
            )

    def _encode(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        """Return the prompts as a batch, padded at the left, where answers begin."""
        texts = [prompt.text for prompt in prompts]
        named: dict[str, Any] = {"padding": True, "add_special_tokens": False, "return_tensors": "pt"}
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token_id = self.pad
        if self.renderer.sees:
            images = [list(prompt.images) for prompt in prompts]
            batch = self.processor(
                text=texts, padding_side="left", **({"images": images} if any(images) else {}), **named
            )
        else:
            batch = self.tokenizer(texts, padding_side="left", **named)
        known = {name: value for name, value in dict(batch).items() if name != "token_type_ids" or self.renderer.sees}
        return {name: value.to(self.model.device) for name, value in known.items()}

    def _begin(self, inputs: Mapping[str, Any]) -> int:
        """Return the place in the model's output where answers begin."""
        return int(inputs["input_ids"].shape[1])

    def _crowded(self, inputs: Mapping[str, Any], sampling: Sampling) -> bool:
        """Whether short prompts of a batch would have less room for their answers than they have alone."""
        return self._room(inputs) < sampling.max_new_tokens

    def _room(self, inputs: Mapping[str, Any]) -> int:
        """Return how many tokens an answer may have, by the model's positions."""
        positions = self.settings.positions
        return sys.maxsize if positions is None else max(1, positions - self._begin(inputs))

    def _rows(self, prompt: Prompt, sampling: Sampling, count: int) -> int:
        """Return for how many prompts answers are made at a time: as many as fit, of which this is the longest."""
        if sampling.temperature > 0 or self.renderer.sees:
            return FEW
        width = len(self.tokenizer(prompt.text, add_special_tokens=False, verbose=False)["input_ids"])
        return max(1, fitting(self.model, width, sampling.max_new_tokens) // count)

    def _collator(self) -> Any:
        return ImageCollator(self.processor, self.pad) if self.renderer.sees else TokenCollator(self.pad)

    def _sums(self, logits: Any, labels: Any) -> tuple[list[float], list[int]]:
        """Return what :func:`sums` does; a label is predicted by what precedes it."""
        return sums(logits[:, :-1], labels[:, 1:])

    def _generate(self, inputs: Mapping[str, Any], sampling: Sampling, count: int, **more: Any) -> Any:
        import torch
        from transformers import LogitsProcessorList

        begin = self._begin(inputs)
        sampling = replace(sampling, max_new_tokens=min(sampling.max_new_tokens, self._room(inputs)))
        config = generation_config(
            sampling,
            stops=self.settings.stops,
            pad=self.pad,
            bos=self.tokenizer.bos_token_id,
            count=count,
            **self.settings.fixed,
        )
        penalties = [presence(sampling.presence_penalty, begin)] if sampling.presence_penalty else []
        with torch.inference_mode(), self.decoder.around(self.model):
            return self.model.generate(
                **inputs, generation_config=config, logits_processor=LogitsProcessorList(penalties), **more
            )

    def _answers(self, output: Any, inputs: Mapping[str, Any]) -> list[Answer]:
        answers = []
        for ids in output[:, self._begin(inputs) :].tolist():
            end = next((place for place, token in enumerate(ids) if token in self.settings.stops), None)
            said = ids if end is None else ids[:end]
            answers.append(Answer(self.tokenizer.decode(said, skip_special_tokens=True), len(said), end is not None))
        return answers

    @contextlib.contextmanager
    def _adapted(self) -> Iterator[None]:
        with contextlib.nullcontext() if self.settings.adapted else self.model.disable_adapter():
            yield

    def _seed(self, sampling: Sampling) -> None:
        from transformers import set_seed

        if sampling.temperature > 0 and sampling.seed is not None:
            set_seed(sampling.seed)

    def _explained(self, error: Exception, answers: int) -> Exception:
        if not is_out_of_memory(error):
            return error
        return OutOfMemory(
            "the model does not fit into memory while it answers",
            f"{answers} at a time: {first_line(error)}",
            "lower max_new_tokens, or [eval] batch_size",
        )


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Distillation: the model learns what probability its teacher gives to each token of an answer.

The answers are the model's own, those of the rows, or the teacher's.

The loss is a generalised Jensen-Shannon divergence (arXiv 2306.13649): ``beta`` 0 is the forward KL divergence, 1 the
reverse.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from trl import DistillationConfig, DistillationTrainer

from forge.api import ModelError, Noted
from forge_huggingface.data.layouts import ANSWER_IDS, PROMPT_IDS
from forge_huggingface.facts.folder import MODEL, TOKENIZER, reading
from forge_huggingface.methods import by_rows
from forge_huggingface.model.device import planned_device
from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.rollouts import given, largest
from forge_huggingface.training.recipes.sampler import InOrder
from forge_huggingface.training.recipes.weighing import Answerwise

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class ResumableDistillation(InOrder, Answerwise, DistillationTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer, which goes on with its prompts in order."""

    units: ClassVar[Mapping[str, str]] = {**Answerwise.units, "loss": "tokens"}

    def __init__(self, *, lmbda: float, rows: bool, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.lmbda, self.rows = lmbda, rows
        self._whose, self._given = "own", list[Any]()  # of the batch that is made

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        self._whose, self._given = self._answering(), inputs
        return super()._generate_and_score_completions(inputs)

    def _answering(self) -> str:
        """Return whose answers the next batch has: ``own``, ``rows`` or ``teacher``.

        A number of each step's own decides, the same in all processes and after a resume. Held-out rows have answers.
        """
        if not self.model.training:
            return "rows" if self.rows else "own"
        drawn = random.Random(f"{self.args.seed} {self.state.global_step}").random()  # noqa: S311 - no secret
        return "own" if drawn < self.lmbda else "rows" if self.rows else "teacher"

    def _tokenize_prompts(self, prompts: Any) -> Any:
        if self._whose == "rows":
            return [row[PROMPT_IDS] for row in self._given], None, {}
        return super()._tokenize_prompts(prompts)

    def _generate_single_turn(self, *arguments: Any, **named: Any) -> Any:
        if self._whose == "rows":
            return [row[ANSWER_IDS] for row in self._given]
        if self._whose == "own":
            return super()._generate_single_turn(*arguments, **named)
        trainer: Any = self
        student, trainer.model_wrapped = trainer.model_wrapped, trainer.teacher_model
        try:
            return super()._generate_single_turn(*arguments, **named)
        finally:
            trainer.model_wrapped = student


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:
    """Return what distillation needs: a teacher of the same vocabulary."""
    options = job.train.options
    return Recipe(
        config=DistillationConfig,
        trainer=ResumableDistillation,
        arguments={
            "teacher_model": teacher(job, run, loaded, data),
            "lmbda": options["lmbda"],
            "rows": by_rows(options),
        },
        values={"teacher_model_name_or_path": None, "teacher_model_revision": None},
        batch=largest if options["lmbda"] or options["seq_kd"] else given,
    )


def teacher(job: Job, run: Run, loaded: Loaded, data: Data) -> Any:
    """Load the teacher, frozen, in the type and on the device of the model.

    Raises:
        ModelError: It cannot be loaded, or its vocabulary is another one.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = job.train.options
    name = options["teacher_model_name_or_path"]
    here = job.path(name)
    folder = str(here) if here.is_dir() else name
    common = {"revision": options.get("teacher_model_revision"), "trust_remote_code": job.model.trust_remote_code}
    what = f"[train] teacher_model_name_or_path: cannot load {name}"
    files = (*MODEL, *TOKENIZER) if here.is_dir() else ()
    with reading(what, here, files, do=None if files else "write a hub id or a local folder"):
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, job.model.dtype),
            attn_implementation=job.model.attn_implementation,
            use_safetensors=True,
            **common,
        )
        words = AutoTokenizer.from_pretrained(folder, **common).get_vocab()
    mine = getattr(data.processor, "tokenizer", data.processor).get_vocab()
    if words != mine:
        apart = len(set(words.items()) ^ set(mine.items()))
        raise ModelError(
            f"the teacher {Path(name).name} speaks another vocabulary",
            f"{apart} tokens are not the same, and probabilities are compared token by token",
            "take a teacher of the model's own family",
        )
    sizes = [each.get_input_embeddings().weight.shape[0] for each in (model, loaded.model)]
    if sizes[0] != sizes[1]:
        why = f"its embeddings have {sizes[0]} rows and the model's {sizes[1]}"
        raise ModelError(f"the teacher {Path(name).name} cannot teach this model", why, "take one of the same size")
    run.emit(Noted(f"the teacher is {name}, {model.num_parameters():,} parameters, frozen"))
    return model.to(planned_device(job, run)).requires_grad_(requires_grad=False).eval()

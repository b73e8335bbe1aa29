"""EVALUATE: the harness's questions, asked of the base model and of what was trained, side by side."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from forge.api import Answers, Evaluated, Finding, ForgeError, Lender, Noted, OutOfMemory, Who, ask_each, first_line
from forge_lm_eval.numbers import side_by_side
from forge_lm_eval.options import Options
from forge_lm_eval.tasks import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from forge.api import Data, Generator, Job, Run, Trained
    from forge_lm_eval.tasks import Exam

_SHOWN = 2000  # characters of a kept answer


def preflight(job: Job, run: Run, data: Data) -> Iterable[Finding]:  # noqa: ARG001 - a preflight's signature
    """Yield what would make the evaluation fail after training: the tasks are made, and their questions read."""
    if job.eval is None:
        return
    try:
        build(job)
    except ForgeError as error:
        yield Finding("error", f"{error.what}" + (f": {error.why}" if error.why else ""), error.do)


def evaluate(job: Job, run: Run, trained: Trained, generate: Callable[[Who], Generator]) -> Evaluated:  # noqa: ARG001
    """Ask every model of the plan that is one of transformers'.

    Raises:
        UsageError, DataError: The tasks cannot be made.
        OutOfMemory: A model does not fit while it is asked.
    """
    assert isinstance(run.plan, Answers)
    assert job.eval is not None
    options, exam = Options.model_validate(run.config), build(job)
    found: dict[str, Mapping[str, Any]] = {}
    seconds: dict[str, float] = {}
    template: list[bool] = []

    def ask(who: Who, generator: Generator) -> None:
        if not isinstance(generator, Lender):
            run.emit(Noted(f"lm-eval asks models of transformers; {who} is none, and is left out"))
            return
        start = time.monotonic()
        with generator.lent() as (model, tokenizer):
            if not template:
                template.append(_template(options, job, tokenizer))
                run.emit(Noted(_how(exam, options, chat=template[0])))
            found[who.value] = _asked(exam, options, model, tokenizer, chat=template[0])
        seconds[who.value] = round(time.monotonic() - start, 2)

    ask_each(run.plan.models, generate, ask)
    found = {who.value: found[who.value] for who in run.plan.models if who.value in found}
    return Evaluated(
        rows=0,
        models={name: {"seconds": seconds[name]} for name in found},
        metrics=side_by_side(exam, found, job.eval.seed),
        samples=_samples(exam, found, job.eval.samples),
        report={"lm_eval": _how(exam, options, chat=template[0])} if template else {},
    )


def _asked(exam: Exam, options: Options, model: Any, tokenizer: Any, *, chat: bool) -> Mapping[str, Any]:
    """Have the harness ask one model; its own seeds, so that its numbers are those of a plain call."""
    import torch
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    size = options.batch_size if options.batch_size != "auto" or model.device.type != "cpu" else 8
    try:
        found: Mapping[str, Any] = simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=size, backend="causal"),
            tasks=exam.objects,
            task_manager=exam.manager,
            num_fewshot=options.num_fewshot,
            limit=options.limit,
            apply_chat_template=chat,
            log_samples=True,
        )
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(
            "the model does not fit into memory while lm-eval asks it",
            first_line(error),
            "lower [plugins.lm-eval] batch_size",
        ) from error
    return found


def _template(options: Options, job: Job, tokenizer: Any) -> bool:
    """Decide whether questions go into the chat template."""
    if options.apply_chat_template != "auto":
        return options.apply_chat_template
    return bool(tokenizer.chat_template) and job.data.chat_template is None


def _how(exam: Exam, options: Options, *, chat: bool) -> str:
    """Say how the questions are asked."""
    limit = "" if options.limit is None else f", limit {options.limit:g}: not for comparison with others' numbers"
    shots = "as many examples as each task says" if options.num_fewshot is None else f"{options.num_fewshot} examples"
    form = "in the chat template" if chat else "as plain text, without a chat template"
    return f"lm_eval {version('lm_eval')}, {', '.join(exam.shown)}: asked {form}, {shots}{limit}"


def _samples(exam: Exam, found: Mapping[str, Mapping[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return a few questions that were answered in words, with each model's answer."""
    samples: list[dict[str, Any]] = []
    for name, task in exam.tasks.items():
        if task.OUTPUT_TYPE != "generate_until":
            continue
        asked = {who: each["samples"][name] for who, each in found.items()}
        for at, one in enumerate(next(iter(asked.values()))[: count - len(samples)]):
            prompt, answers = one["arguments"][0][0], {who: each[at]["resps"][0][0] for who, each in asked.items()}
            samples.append(
                {
                    "origin": f"{name}:{one['doc_id']}",
                    "prompt": str(prompt)[-_SHOWN:],
                    "reference": str(one["target"])[:_SHOWN],
                    "answers": {who: str(said)[:_SHOWN] for who, said in answers.items()},
                }
            )
    return samples

"""Mistakes of ``[eval]`` that are told before anything is trained: in the plan, and in the worker before the model.

Evaluating is the last thing that a run does, so whatever can be wrong with it is looked for first: names, rows, and the
user's own functions, which are tried on the rows' own answers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Problem, measured_by, nearest
from forge_huggingface.functions.reference import reference
from forge_huggingface.methods import METHODS
from forge_huggingface.rules.data import held_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from forge.api import EvalTable, Job


def problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with a job's ``[eval]``."""
    table = job.eval
    if table is None:
        return
    from forge_huggingface.evaluation.metrics import METRICS, PASS, is_function  # only jobs with [eval] pay for them

    theirs = [name for name in table.metrics if measured_by(name)]
    if table.path is None and not held_out(job) and (not theirs or len(theirs) < len(table.metrics)):
        say = "write [data] eval_path, eval_split or eval_size, or [eval] path"
        yield Problem("eval", "there are no held-out rows to ask", say)
    method = METHODS.get(job.train.method)
    if method is not None and method.head == "classification":
        yield from _of_labels(table, method.measures)
        return
    for index, name in enumerate(table.metrics):
        where = f"eval.metrics.{index}"
        if name in theirs:
            continue  # the plugin's own check is about them
        if PASS.fullmatch(name):
            rewards = job.train.options.get("reward") or ()
            if all(reward.get("model") for reward in rewards):
                say = 'write [[train.reward]] use, or a metric of your own: "./metrics.py:function"'
                beside = ", which a reward model does not" if rewards else ""
                yield Problem(where, f"{name} needs something that says which answers pass{beside}", say)
        elif is_function(name):
            from forge_huggingface.functions.rules import function_problems  # only functions of users pay for it

            yield from function_problems(job, reference(name), where)
        elif name not in METRICS:
            known = [*METRICS, "pass@1"]
            near = nearest(name.lower().replace("_", "-"), known)
            say = f'did you mean "{near}"?' if near else f"there are: {', '.join(METRICS)}, pass@k, file.py:function"
            yield Problem(where, f'there is no metric "{name}"', say)


_READ = frozenset({"path", "metrics", "base", "max_rows", "batch_size", "seed", "samples"})


def _of_labels(table: EvalTable, known: Sequence[str]) -> Iterable[Problem]:
    for name, field in type(table).model_fields.items():
        if name not in _READ and getattr(table, name) != field.get_default(call_default_factory=True):
            yield Problem(f"eval.{name}", "a classifier writes no answers that it could be about", "remove it")
    for index, name in enumerate(table.metrics):
        if name not in known:
            what = f"a classifier gives labels or a number, and {name} is for answers"
            yield Problem(f"eval.metrics.{index}", what, f"there are {', '.join(known)}, all without a word")

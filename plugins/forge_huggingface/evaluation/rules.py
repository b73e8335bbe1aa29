"""Mistakes of ``[eval]`` that are told before anything is trained: in the plan, and in the worker before the model.

Evaluating is the last thing that a run does, so whatever can be wrong with it is looked for first: names, rows, and the
user's own functions, which are tried on the rows' own answers.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from forge.api import Problem
from forge_huggingface.evaluation.metrics import PASS, is_function

if TYPE_CHECKING:
    from collections.abc import Iterable

    from forge.api import Job


def problems(job: Job) -> Iterable[Problem]:
    """Yield what is wrong with a job's ``[eval]``."""
    table = job.eval
    if table is None:
        return
    data = job.data
    if table.path is None and data.eval_path is None and data.eval_split is None and data.eval_size is None:
        yield Problem("eval", "there are no held-out rows to ask",
                      "write [data] eval_path, eval_split or eval_size, or [eval] path")  # fmt: skip
    from forge_huggingface.evaluation.metrics import METRICS

    for index, name in enumerate(table.metrics):
        where = f"eval.metrics.{index}"
        if PASS.fullmatch(name):
            if not job.train.options.get("reward"):
                yield Problem(where, f"{name} needs something that says which answers pass",
                              'write [[train.reward]], or a metric of your own: "./metrics.py:function"')  # fmt: skip
        elif is_function(name):
            yield from _function(job, where, name)
        elif name not in METRICS:
            known = [*METRICS, "pass@1"]
            near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
            say = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(METRICS)}, pass@k, file.py:function"
            yield Problem(where, f'there is no metric "{name}"', say)


def _function(job: Job, where: str, name: str) -> Iterable[Problem]:
    from forge_huggingface.functions import source
    from forge_huggingface.functions.reference import reference
    from forge_huggingface.functions.signature import of_source

    refers = reference(name)
    if not refers.function:
        yield Problem(where, f"{name} names no function", f'write "{refers.place}:function"')
        return
    if refers.kind == "file":
        path = job.path(refers.place)
        if not path.is_file():
            beside = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
            near = difflib.get_close_matches(path.name, beside, n=1)
            say = f"did you mean {near[0]}?" if near else "relative paths start at the folder of the job"
            yield Problem(where, f"there is no file {path}", say)
            return
    else:
        try:
            found_path = source.module_file(refers.place)
        except ModuleNotFoundError as error:
            yield Problem(where, f"there is no module {error}", 'install it; a file is "./file.py:function"')
            return
        if found_path is None:
            return  # not to be seen from here; the worker will tell
        path = found_path
    try:
        found = source.read(path)
    except SyntaxError as error:
        yield Problem(where, f"{refers.place} is not Python: line {error.lineno}: {error.msg}")
        return
    except (OSError, ValueError) as error:
        yield Problem(where, f"{refers.place} cannot be read: {error}")
        return
    function = refers.function
    if function in found.functions:
        for message, do in of_source(found.functions[function]).faults(()):
            yield Problem(where, f"{function} {message}", do)
    elif function not in found.others and function not in found.classes and not found.open:
        near = difflib.get_close_matches(function, [*found.functions, *found.others], n=1)
        there = f"it has {', '.join(found.public[:8])}" if found.public else "it defines no function"
        yield Problem(where, f"{refers.place} has no function {function}",
                      f"did you mean {near[0]}?" if near else there)  # fmt: skip

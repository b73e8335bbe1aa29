"""Rated rows as a set: what kto needs of their answers and of the balance between good and bad ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Finding
from forge_huggingface.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from forge.api import Data, Job, Run

    Answer = Sequence[int]


def findings(job: Job, run: Run, data: Data) -> Iterator[Finding]:  # noqa: ARG001 - the preflight's signature
    """Yield an error for rows from which nothing can be learned, and a warning for those that teach little."""
    options = job.train.options
    compares = options.get("loss_type") in METHODS[job.train.method].mixes
    if compares and len(two_answers(data.train["completion_ids"])) < 2:
        rows = f"the answers of all {len(data.train)} training rows are the same"
        what = f"{rows}, and kto measures how far the model has moved on answers of other rows"
        yield Finding("error", what, 'give it other rows, or write [train] loss_type = "apo_zero_unpaired"')
    labels = list(data.train["label"])
    good, bad = sum(labels), len(labels) - sum(labels)
    heavier, lighter = options["desirable_weight"] * good, options["undesirable_weight"] * bad
    if not heavier and not lighter:
        rows = "good" if good else "bad"
        yield Finding("error", f"all rows that count are {rows}, and their weight is 0", "raise desirable_weight")
    elif not good or not bad:
        yield Finding("warning", f"every row is {'good' if good else 'bad'}: there is nothing to tell it from")
    elif heavier and lighter:
        if not 1 <= heavier / lighter <= 4 / 3:
            wanted = round(options["undesirable_weight"] * bad / good, 2)
            message = f"{good} good and {bad} bad rows weigh {heavier / lighter:.2f} to 1; the paper asks for 1 to 1.33"
            yield Finding("warning", message, f"write [train] desirable_weight = {wanted}")
        size = options.get("per_device_train_batch_size")
        if isinstance(size, int) and not any(len({*labels[at : at + size]}) > 1 for at in range(0, len(labels), size)):
            why = "since they are sorted by label and kto keeps their order"
            yield Finding("warning", f"no batch of {size} has good and bad rows, {why}", "shuffle the rows of the file")


def two_answers(answers: Iterable[Answer]) -> list[Answer]:
    """Return the first answer and the first that differs from it, if there is one."""
    found: list[Answer] = []
    for answer in answers:
        if not found or answer != found[0]:
            found.append(answer)
        if len(found) == 2:
            break
    return found


def foreign(answers: Sequence[Answer], others: Sequence[Answer]) -> list[Answer]:
    """Return for each row of a batch the answer of another one, from which kto estimates how far the model has moved.

    It is that of the row before, and of the last row for the first, as in TRL. Where that is the row's own answer, so
    that the estimate would be the row's own reward, it is that of the next row further back that has another, and where
    the batch has none, as a last batch of one row, one of ``others``.

    Args:
        answers: The answers of a batch.
        others: Two different answers.
    """
    found = []
    for at, own in enumerate(answers):
        before = [*answers[:at][::-1], *answers[at + 1 :][::-1], *others]
        found.append(next((answer for answer in before if answer != own), own))
    return found

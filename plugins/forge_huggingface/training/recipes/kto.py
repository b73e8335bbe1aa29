"""Kahneman-Tversky optimization (arXiv 2402.01306), on rows that forge has tokenised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trl import KTOConfig, KTOTrainer

from forge.api import Warned
from forge_huggingface.training.recipe import Recipe
from forge_huggingface.training.recipes.reference import reference

if TYPE_CHECKING:
    from forge.api import Data, Job, Loaded, Run


class FinishedRatings(KTOTrainer):  # type: ignore[misc]  # trl is Any to mypy: see pyproject
    """TRL's trainer, which tokenises whatever it gets, given rows that are tokens already (trl 1.14.2 and 1.16)."""

    def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, *_: Any) -> Any:  # noqa: ARG002
        return mixed(dataset, args.per_device_train_batch_size) if self.calculate_KL else dataset


def mixed(dataset: Any, size: int) -> Any:
    """Return rows that each have the answer of another row beside their own, as ``KL_completion_ids``.

    From the pairs of a prompt and a foreign answer the loss estimates how far the model has moved (section 4.1 of the
    paper). As in TRL (``trl/trainer/kto_trainer.py``, ``add_kl_completion_ids``) the foreign answer is that of the row
    before, and of the last row for the first, in groups of ``size`` rows: those of a training batch.
    """

    def add(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        answers = rows["completion_ids"]
        groups = (answers[at : at + size] for at in range(0, len(answers), size))
        return {"KL_completion_ids": [each for group in groups for each in (group[-1], *group[:-1])]}

    # Beside the rows' own file, from which they are mapped: what is larger than memory needs no more of it.
    files = [Path(file["filename"]) for file in dataset.cache_files]
    place = {"cache_file_name": str(files[0].with_suffix(".mixed.arrow"))} if files else {"keep_in_memory": True}
    return dataset.map(
        add,
        batched=True,
        batch_size=size * max(1, 1000 // size),
        features=type(dataset.features)({**dataset.features, "KL_completion_ids": dataset.features["completion_ids"]}),
        load_from_cache_file=False,
        **place,
    )


def recipe(job: Job, run: Run, loaded: Loaded, data: Data) -> Recipe:  # noqa: ARG001 - the recipes' signature
    """Return what Kahneman-Tversky optimization needs: a reference, and a word on unequal numbers of ratings."""
    weigh(job, run, data)
    return Recipe(config=KTOConfig, trainer=FinishedRatings, arguments={"ref_model": reference(job, run)})


def weigh(job: Job, run: Run, data: Data) -> None:
    """Warn if good and bad rows weigh unequally: the paper asks for a ratio of 1 to 1.33 (equation 8)."""
    if not hasattr(data.train, "column_names") or "label" not in data.train.column_names:
        return
    labels = data.train["label"]
    good, bad = sum(labels), len(labels) - sum(labels)
    options = job.train.options
    heavier, lighter = options["desirable_weight"] * good, options["undesirable_weight"] * bad
    if not good or not bad:
        only = "good" if good else "bad"
        run.emit(Warned(f"every row is {only}: there is nothing to tell it from"))
    elif heavier and lighter and not 1 <= heavier / lighter <= 4 / 3:
        wanted = round(options["undesirable_weight"] * bad / good, 2)
        message = f"{good} good and {bad} bad rows weigh {heavier / lighter:.2f} to 1; the paper asks for 1 to 1.33"
        run.emit(Warned(message, f"write [train] desirable_weight = {wanted}"))

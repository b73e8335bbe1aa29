"""The keys that `[train]` has where this plugin trains: some of transformers', with their names and meanings."""

from collections.abc import Iterator
from typing import Literal

from forge.api import Mistake, Table
from pydantic import Field


class Options(Table):
    """What a job may say of the training."""

    max_steps: int = Field(-1, ge=-1, description="Steps to train; -1 goes by `num_train_epochs`.")
    num_train_epochs: float = Field(3.0, gt=0, description="Passes over the rows.")
    per_device_train_batch_size: int = Field(8, ge=1, description="Rows of a batch.")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches of a step.")
    gradient_checkpointing: bool = Field(False, description="Compute activations twice instead of keeping them.")
    learning_rate: float | None = Field(None, gt=0, description="The highest learning rate.")
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = Field(
        "linear", description="How the learning rate goes on from there."
    )
    warmup_steps: int = Field(0, ge=0, description="Steps in which it rises from 0.")
    weight_decay: float = Field(0.0, ge=0, description="Strength of weight decay.")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="Decay of Adam's mean of gradients.")
    adam_beta2: float = Field(0.999, ge=0, lt=1, description="Decay of Adam's mean of their squares.")
    adam_epsilon: float = Field(1e-8, ge=0, description="Added to Adam's denominator.")
    max_grad_norm: float = Field(1.0, ge=0, description="Scale longer gradients down to this; 0 leaves them.")
    logging_steps: int = Field(10, ge=1, description="Steps between logged losses.")
    save_steps: int = Field(500, ge=1, description="Steps between checkpoints.")
    save_total_limit: int = Field(2, ge=2, description="Checkpoints to keep.")
    eval_strategy: Literal["no", "steps", "epoch"] | None = Field(None, description="When to look at held-out rows.")
    eval_steps: int | None = Field(None, ge=1, description="Steps between these; `logging_steps` if left out.")
    per_device_eval_batch_size: int = Field(8, ge=1, description="Held-out rows of a batch.")
    seed: int = Field(42, ge=0, description="For the adapter's first weights, the order of rows, and dropout.")

    def contradictions(self) -> Iterator[Mistake]:
        """Yield what the keys contradict each other in."""
        if self.lr_scheduler_type == "constant" and self.warmup_steps:
            what = 'warmup_steps has no effect under "constant"; write lr_scheduler_type = "constant_with_warmup"'
            yield Mistake(what, ("warmup_steps",), by="lr_scheduler_type")
        if self.max_steps > 0 and "num_train_epochs" in self.model_fields_set:
            yield Mistake("num_train_epochs has no effect beside max_steps", ("num_train_epochs",), by="max_steps")
        if self.eval_steps and self.eval_strategy in ("no", "epoch"):
            what = f'eval_steps has no effect under "{self.eval_strategy}"; write eval_strategy = "steps"'
            yield Mistake(what, ("eval_steps",), by="eval_strategy")

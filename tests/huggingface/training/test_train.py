"""What the trainer is given."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from forge.api import Data, DataError, Job, PluginError
from forge_huggingface.training.save import final_metrics
from forge_huggingface.training.together import check_batches
from forge_huggingface.training.train import check_adapter, held_out

if TYPE_CHECKING:
    from forge.api import Run


@pytest.mark.parametrize(
    ("sets", "given"),
    [
        ({}, None),
        ({"eval": [1]}, [1]),
        ({"spoken": [1]}, [1]),
        ({"spoken": [1], "written": [2]}, {"spoken": [1], "written": [2]}),
    ],
)
def test_a_single_held_out_set_is_used_whatever_its_name(sets: dict[str, Any], given: Any) -> None:
    assert held_out(Data(processor=None, train=[], eval=sets, layout="tokens", digest="")) == given


def test_the_last_numbers_are_kept_as_far_as_they_are_numbers() -> None:
    """A training that has diverged has weights all the same, and they are recorded in JSON, which has no NaN."""
    history = [{"loss": 2.0, "reward": None}, {"loss": float("nan"), "eval_loss": 1.0}, {"train_loss": float("inf")}]
    assert final_metrics(history) == {"loss": 2.0, "eval_loss": 1.0}


def test_an_adapter_that_is_none_of_pefts_is_refused_before_anything_is_trained() -> None:
    step = SimpleNamespace(plugin="norms")
    run = cast("Run", SimpleNamespace(plan=SimpleNamespace(step=lambda _stage: step)))
    tables = {"model": {"id": "m"}, "data": {"path": "d"}}
    theirs, none = (Job.model_validate({**tables, "adapter": {"type": word}}) for word in ("norms/only", "none"))
    model = SimpleNamespace()
    check_adapter(model, none, run)
    check_adapter(SimpleNamespace(peft_config={}), theirs, run)
    said = (
        r'type = "norms/only" gave a SimpleNamespace without an adapter of peft: plugin norms left the trait hf-model'
    )
    with pytest.raises(PluginError, match=said):
        check_adapter(model, theirs, run)


@pytest.mark.parametrize(
    ("rows", "processes", "says"), [(1, 1, "1 row, and one takes 4"), (7, 2, "7 rows, and one of 2 processes takes 8")]
)
def test_rows_that_fill_no_batch_are_refused_where_smaller_ones_are_left_out(
    rows: int, processes: int, says: str
) -> None:
    args = SimpleNamespace(dataloader_drop_last=True, per_device_train_batch_size=4, world_size=processes)
    with pytest.raises(DataError, match=says) as caught:
        check_batches(SimpleNamespace(args=args, train_dataset=[{}] * rows))
    assert "nothing would be trained" in str(caught.value)
    check_batches(SimpleNamespace(args=args, train_dataset=[{}] * 8))
    args.dataloader_drop_last = False
    check_batches(SimpleNamespace(args=args, train_dataset=[{}] * rows))

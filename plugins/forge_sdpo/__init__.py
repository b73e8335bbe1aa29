"""The plugin ``sdpo``: self-distillation policy optimization (arXiv 2601.20802).

The model is shown what it did not know when it answered, a sibling's success or feedback, scores its own answer again
with that in view, and is trained towards what it says then. Rows, rewards, adapters and exports are huggingface's, and
so are the arguments in ``[train]``, which are GRPO's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from forge.api import Offer, Stage, hookimpl
from forge_huggingface import DATASETS, MODELS, PEFT, TRL
from forge_huggingface.rules.packages import TRAINING
from forge_sdpo import rules

if TYPE_CHECKING:
    from collections.abc import Iterable


@hookimpl
def forge_offers() -> Iterable[Offer]:
    """Offer to train by one more method."""
    yield Offer(
        stage=Stage.TRAIN,
        impl="forge_sdpo.train:train",
        serves=frozenset({"sdpo"}),
        supports=frozenset({"ddp"}),
        requires_dist=(*MODELS, PEFT, TRL, DATASETS),
        packages=TRAINING,
        depends=frozenset({"hf-model"}),
        asks={Stage.COLLATE: frozenset({"prompts"})},
        options="forge_sdpo.options:train_options",
        config="forge_sdpo.options:Sdpo",
        probe=rules.cannot_train,
        check=rules.problems,
        decide=rules.decide,
        fit="forge_huggingface.memory.fit:blind",  # where what loads the model cannot tell
        preflight="forge_sdpo.preflight:findings",
    )

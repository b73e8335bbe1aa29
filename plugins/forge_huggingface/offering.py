"""The offer of a training method, this plugin's own or another's: one call that brings all that planning needs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from forge.api import Offer, Stage
from forge_huggingface.distributions import DATASETS, MODELS, PEFT, TRL
from forge_huggingface.methods import METHODS, Method
from forge_huggingface.rules.data import layout_problems
from forge_huggingface.rules.packages import TRAINING
from forge_huggingface.rules.training import cannot_train, decide_training, train_problems

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from forge.api import Job, Problem


def method_offer(method: Method, impl: str, **changes: Any) -> Offer:
    """Return an offer to train by a method that :func:`forge_huggingface.training.train.train_by` carries out.

    It asks for the method's rows and head, takes the arguments of the method's config as keys, refuses what cannot be
    trained here, finds contradictions in the job, and decides precision, learning rate and when to evaluate.

    Args:
        method: The method. That of another plugin is named ``<plugin>/<word>``.
        impl: ``"package.module:function"`` of the stage.
        changes: Fields of the offer that are to be others, as ``options`` for further keys, or ``config``. A ``probe``,
            ``check`` or ``decide`` comes beside that of huggingface: what it decides goes before.

    Example:
        >>> mine = Method("mine/sft", "SFTConfig", "forge_mine.train:recipe", "tokens", "my way")
        >>> offer = method_offer(mine, "forge_mine.train:train", priority=10)
        >>> sorted(offer.serves), offer.options, offer.priority
        (['mine/sft'], 'forge_huggingface.arguments.models:SFTConfig', 10)
    """
    own = METHODS.get(method.name) is method
    offer = Offer(
        stage=Stage.TRAIN,
        impl=impl,
        serves=frozenset({method.name}),
        supports=method.spreads | ({"vision"} if method.sees else set()),
        requires_dist=(*MODELS, PEFT, TRL, DATASETS),
        packages=TRAINING,
        depends=frozenset({"hf-model"}),
        asks={
            Stage.COLLATE: frozenset({method.layout}),
            Stage.LOAD: frozenset({f"{method.head}-head"} if method.pooled else ()),
        },
        preload=("transformers.trainer", "trl"),
        environment=method.environment or {},
        preflight=method.preflight,
        options=f"forge_huggingface.arguments.{'options:train_options' if own else f'models:{method.config}'}",
        probe=cannot_train if own else partial(cannot_train, method=method),
        check=train_problems if own else partial(_problems, method),
        decide=decide_training if own else partial(decide_training, method=method),
        fit="forge_huggingface.memory.fit:blind",  # where what loads the model cannot tell
    )
    for name, beside in (("probe", _either), ("check", _both), ("decide", _both)):
        if changes.get(name) is not None:
            changes[name] = beside(changes[name], getattr(offer, name))
    return replace(offer, **changes)


def _either(theirs: Callable[..., str | None], ours: Callable[..., str | None]) -> Callable[..., str | None]:
    return lambda *arguments: theirs(*arguments) or ours(*arguments)


def _both(theirs: Callable[..., Iterable[Any]], ours: Callable[..., Iterable[Any]]) -> Callable[..., Iterable[Any]]:
    """Return a function that yields what both yield; ``named`` is passed to those that take it."""

    def both(*arguments: Any, **named: Any) -> Iterable[Any]:
        for each in (theirs, ours):
            wanted = signature(each).parameters
            yield from each(*arguments, **{name: value for name, value in named.items() if name in wanted})

    return both


def _problems(method: Method, job: Job) -> Iterable[Problem]:
    yield from train_problems(job, method=method)
    if method.layout != "tokens":
        yield from layout_problems(job, method.layout)

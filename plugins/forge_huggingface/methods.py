"""The training methods, in a table: what each trains on, whose arguments it takes, and what makes its trainer.

One train implementation serves them all (:mod:`forge_huggingface.training.train`); what differs is here, in strings,
so that planning can read it without importing a trainer. Another plugin brings a method of its own by calling
:func:`forge_huggingface.training.train.train_by` with a :class:`Method` that names its recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train.

    Attributes:
        name: What ``[train] method`` says.
        config: The class of TRL or transformers whose fields are the method's arguments, as :mod:`.arguments.fields`
            reads it.
        recipe: ``"package.module:function"`` of ``(job, run, loaded, data)`` that returns a
            :class:`forge_huggingface.training.recipe.Recipe`; imported in the worker, after whatever patches trl.
        layout: The layout of the rows.
        about: The method in a few words.
        head: The head that the model needs: ``"causal"`` for the language model's own, ``"reward"`` for one number,
            ``"classification"`` for one number for each label of the rows.
        online: Whether the model answers prompts while it is trained, so that steps depend on its random numbers.
        sees: Whether it takes rows with images.
        whole: Whether its loss reads prompt and answer as one sequence, so that a batch holds both sides whole.
        rewards: Whether it learns from reward functions, ``[[train.reward]]``.
        acts: Whether the model may call tools while it answers, ``[train] tools`` and ``environment``.
        reference: Whether the trained model is compared with what it was before.
        teacher: Whether it learns from another model, which the job must name.
        mixes: Each ``loss_type`` that compares the rows of a batch with each other, or is a mean over the tokens of a
            batch, so that two halves of it are another training; ``*`` for all of them.
        preflight: What looks at the rows before the model is loaded, if something does, as an offer names it.
        environment: Variables that the worker starts with.
        spreads: In which ways several processes can train by it: ``ddp``, ``fsdp2``.
        measures: What the trainer's evaluation measures beside the loss, a ``*`` for what a job names; () where that is
            not known.
    """

    name: str
    config: str
    recipe: str
    layout: str
    about: str
    head: str = "causal"
    online: bool = False
    sees: bool = False
    whole: bool = False
    rewards: bool = False
    acts: bool = False
    reference: bool = False
    teacher: bool = False
    mixes: tuple[str, ...] = ()
    preflight: str | None = None
    environment: Mapping[str, str] | None = None
    spreads: frozenset[str] = frozenset()
    measures: tuple[str, ...] = ()

    @property
    def pooled(self) -> bool:
        """Whether the model's head reads a text as a whole, not each of its tokens."""
        return self.head != "causal"

    @property
    def answers(self) -> bool:
        """Whether what it trains gives words, not a number."""
        return self.head == "causal"


# TRL warns at each import that these trainers may change; docs/methods.md says it.
_QUIET = {"TRL_EXPERIMENTAL_SILENCE": "1"}
_DDP = frozenset({"ddp"})
_SHARDED = frozenset({"ddp", "fsdp2"})
_RECIPES = "forge_huggingface.training.recipes"
_ACTING = "forge_huggingface.acting.preflight:findings"
_REWARDS = "forge_huggingface.rewards.preflight:findings"

_TOKENS = ("entropy", "num_tokens")
_PAIRS = tuple(f"{what}/{which}" for what in ("logits", "logps", "rewards") for which in ("chosen", "rejected"))
_LENGTHS = tuple(
    f"completions/{name}"
    for name in (
        "clipped_ratio",
        *(f"{which}_{length}" for which in ("max", "mean", "min") for length in ("length", "terminated_length")),
    )
)
_CALLS = ("tools/call_frequency", "tools/failure_frequency")
_CLIPS = tuple(f"clip_ratio/{name}" for name in ("high_max", "high_mean", "low_mean", "low_min", "region_mean"))
_ONLINE = (
    *_TOKENS,
    *_LENGTHS,
    *_CLIPS,
    "aux_loss",
    "frac_reward_zero_std",
    "kl",
    "reward",
    "reward_std",
    "rewards/*",  # of each function: mean, std, and what it says beside its score
)

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        Method(
            "sft",
            "SFTConfig",
            f"{_RECIPES}.sft:recipe",
            "tokens",
            "supervised fine-tuning",
            sees=True,
            spreads=_SHARDED,
            measures=(*_TOKENS, "aux_loss", "mean_token_accuracy"),
        ),
        Method(
            "dpo",
            "DPOConfig",
            f"{_RECIPES}.dpo:recipe",
            "pairs",
            "direct preference optimization",
            sees=True,
            reference=True,
            mixes=("aot", "aot_unpaired", "bco_pair", "sft"),
            spreads=_SHARDED,
            measures=(*_TOKENS, *_PAIRS, "aux_loss", "mean_token_accuracy", "rewards/accuracies", "rewards/margins"),
        ),
        Method(
            "kto",
            "KTOConfig",
            f"{_RECIPES}.kto:recipe",
            "rated",
            "Kahneman-Tversky optimization",
            reference=True,
            mixes=("kto",),
            preflight="forge_huggingface.data.ratings:findings",
            spreads=_DDP,
            measures=(*_TOKENS, *_PAIRS, "aux_loss", "kl", "rewards/margins"),
        ),
        Method(
            "orpo",
            "ORPOConfig",
            f"{_RECIPES}.orpo:orpo",
            "pairs",
            "odds ratio preference optimization",
            whole=True,
            mixes=("*",),  # the likelihood in it is a mean over the tokens of a batch
            environment=_QUIET,
            spreads=_DDP,
            measures=(
                *_PAIRS,
                "rewards/accuracies",
                "rewards/margins",
                "nll_loss",
                "log_odds_chosen",
                "log_odds_ratio",
            ),
        ),
        Method(
            "cpo",
            "CPOConfig",
            f"{_RECIPES}.orpo:cpo",
            "pairs",
            "contrastive preference optimization, SimPO",
            whole=True,
            mixes=("*",),  # the likelihood in it is a mean over the tokens of a batch
            environment=_QUIET,
            spreads=_DDP,
            measures=(*_PAIRS, "rewards/accuracies", "rewards/margins", "nll_loss"),
        ),
        Method(
            "reward",
            "RewardConfig",
            f"{_RECIPES}.reward:recipe",
            "ranked",
            "a reward model",
            head="reward",
            spreads=_DDP,
            measures=("accuracy", "margin", "max_reward", "mean_reward", "min_reward", "num_tokens"),
        ),
        Method(
            "classification",
            "TrainingArguments",
            f"{_RECIPES}.classification:recipe",
            "labelled",
            "a classifier, or a number for a text",
            head="classification",
            preflight="forge_huggingface.data.labelled:findings",
            spreads=_DDP,
            measures=("accuracy", "f1", "mse", "pearson"),
        ),
        Method(
            "grpo",
            "GRPOConfig",
            f"{_RECIPES}.online:grpo",
            "prompts",
            "group relative policy optimization",
            online=True,
            sees=True,
            rewards=True,
            acts=True,
            mixes=("bnpo",),
            preflight=_ACTING,
            spreads=_DDP,
            measures=(
                *_ONLINE,
                *_CALLS,
                "tools/unanswered",  # forge's own
                "cispo_clip_ratio",
                "entropy_coef",
                "policy_loss",
                *(f"sampling/importance_sampling_ratio/{which}" for which in ("max", "mean", "min")),
                *(f"sampling/sampling_logp_difference/{which}" for which in ("max", "mean")),
                "vespo/phi_seq_mean",
            ),
        ),
        Method(
            "rloo",
            "RLOOConfig",
            f"{_RECIPES}.online:rloo",
            "prompts",
            "REINFORCE leave-one-out",
            online=True,
            sees=True,
            rewards=True,
            preflight=_REWARDS,
            spreads=_DDP,
            measures=_ONLINE,
        ),
        Method(
            "distill",
            "DistillationConfig",
            f"{_RECIPES}.distill:recipe",
            "prompts",
            "on-policy distillation from a teacher",
            online=True,
            teacher=True,
            spreads=_DDP,
            measures=(*_TOKENS, *_LENGTHS, *_CALLS),
        ),
    )
}
"""Every method of this plugin by name."""


def by_rows(options: Mapping[str, Any]) -> bool:
    """Whether a model that has a teacher learns from it on the answers of the rows, in some batches or in all."""
    return options.get("lmbda", 1) < 1 and not options.get("seq_kd")


def splits(method: str, options: Mapping[str, Any]) -> bool:
    """Whether a smaller batch and more accumulation are the same training.

    Not so under a loss that compares the rows of a batch with each other, or is a mean over its tokens; where
    ``steps_per_generation`` says how many batches of answers are made at a time; where the last batch is left out if it
    is not full; and where batches of a step have unlike numbers of rows, unless each token weighs alike, as in ``sft``.
    """
    known = METHODS.get(method)
    losses = options.get("loss_type")
    taken = {losses} if isinstance(losses, str) else {*(losses or ())}
    mixed = known is not None and ("*" in known.mixes or bool(taken & {*known.mixes}))
    unlike = options.get("train_sampling_strategy") == "batch_rebalance" and method != "sft"
    parted = options.get("steps_per_generation") is not None or bool(options.get("dataloader_drop_last"))
    return not (mixed or unlike or parted or options.get("router_aux_loss_coef"))

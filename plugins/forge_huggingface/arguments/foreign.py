"""What other tools call the methods that forge has, and what became of those that it has not.

A job is often written from one for another tool. A word that is no method here, but is one there, is met with what to
write instead: ``did you mean "dpo"?`` for ``"ppo"`` would be a wrong answer.
"""

from __future__ import annotations

from collections.abc import Mapping

_QLORA = "[model] load_in_4bit = true"
_LORA = 'write method = "sft"; LoRA is [adapter] type = "lora", the default'
_FULL = 'write method = "sft" with [adapter] type = "none", which trains every weight'
_TEXTS = 'write method = "sft" with rows of the format "text": all their tokens are in the loss'
_GRPO = 'write method = "grpo" with {}'
_DPO = 'write method = "dpo" with loss_type = {}'
_CLASSIFIER = 'write method = "classification"'
_GONE = "TRL removed {} (not in 1.14 any more)"
_NOT_YET = "it is in trl.experimental, and forge does not have it; {}"

METHODS: Mapping[str, str] = {
    "a2po": _NOT_YET.format('write method = "grpo"'),
    "apo": _DPO.format('["apo_zero"] or ["apo_down"]'),
    "apo_down": _DPO.format('["apo_down"]'),
    "apo_zero": _DPO.format('["apo_zero"]'),
    "bco": f'{_GONE.format("its trainer")}; for rated rows write method = "kto", for pairs "dpo"',
    "bnpo": _GRPO.format('loss_type = "bnpo"'),
    "classifier": _CLASSIFIER,
    "classify": _CLASSIFIER,
    "cispo": _GRPO.format('loss_type = "cispo"'),
    "continued_pretraining": _TEXTS,
    "cpt": _TEXTS,
    "dapo": _GRPO.format('loss_type = "dapo", epsilon_high = 0.28 and mask_truncated_completions = true'),
    "dft": 'write method = "sft" with loss_type = "dft"',
    "distillation": 'write method = "distill"',
    "dora": 'write method = "sft" with [adapter] use_dora = true',
    "dr_grpo": _GRPO.format('loss_type = "dr_grpo" and scale_rewards = "none"'),
    "finetune": 'write method = "sft"',
    "freeze": 'write method = "sft" with [adapter] layers_to_transform, the layers that are adapted',
    "full": _FULL,
    "full_finetune": _FULL,
    "gfpo": f'{_GONE.format("it")}; write method = "grpo"',
    "gkd": 'write method = "distill"; lmbda and seq_kd are keys of it',
    "gmpo": _NOT_YET.format('write method = "grpo"'),
    "gold": _NOT_YET.format('write method = "distill" with a teacher of the same vocabulary'),
    "gspo": _GRPO.format('importance_sampling_level = "sequence"'),
    "instruct": 'write method = "sft"',
    "ipo": _DPO.format('["ipo"]'),
    "kd": 'write method = "distill"',
    "lora": _LORA,
    "minillm": 'it is not in TRL 1.16 any more; write method = "distill" with beta = 1.0, the reverse KL divergence',
    "multi_label_classification": f"{_CLASSIFIER} and lists of labels",
    "mpo": _DPO.format('["sigmoid", "bco_pair", "sft"] and loss_weights = [0.8, 0.2, 1.0]'),
    "nash_md": f'{_GONE.format("it")}; write method = "grpo" with [[train.reward]], or "dpo" on pairs',
    "online_dpo": _NOT_YET.format('write method = "grpo" with [[train.reward]], or "dpo" on pairs'),
    "opd": 'write method = "distill"',
    "papo": f'{_GONE.format("it")}; write method = "grpo"',
    "peft": _LORA,
    "ppo": f'{_GONE.format("it")}; write method = "grpo" or "rloo", which need no value model',
    "pre_training": _TEXTS,
    "preference": 'write method = "dpo"',
    "pretrain": _TEXTS,
    "pretraining": _TEXTS,
    "prm": f'{_GONE.format("it")}, and forge trains no reward for single steps; "reward" judges whole answers',
    "pt": _TEXTS,
    "qlora": f'write method = "sft" with {_QLORA}',
    "regression": f'{_CLASSIFIER} and problem_type = "regression"',
    "reinforce": 'write method = "rloo"',
    "reward_model": 'write method = "reward"',
    "reward_modeling": 'write method = "reward"',
    "rlhf": 'it is several methods: "dpo" or "kto" on what people prefer, or "grpo" or "rloo" with [[train.reward]]',
    "rlvr": _GRPO.format("[[train.reward]]"),
    "rm": 'write method = "reward"',
    "rso": _DPO.format('["hinge"]'),
    "sapo": _GRPO.format('loss_type = "sapo"'),
    "sdft": _NOT_YET.format('write method = "sdpo" or "distill"'),
    "seq_cls": _CLASSIFIER,
    "sequence_classification": _CLASSIFIER,
    "simpo": 'write method = "cpo" with loss_type = "simpo" and cpo_alpha = 0.0',
    "sppo": _DPO.format('["sppo_hard"]'),
    "text_classification": _CLASSIFIER,
    "supervised": 'write method = "sft"',
    "tpo": _NOT_YET.format('write method = "dpo"'),
    "xpo": f'{_GONE.format("it")}; write method = "grpo" with [[train.reward]], or "dpo" on pairs',
}
"""``[train] method`` of other tools: what to do instead. Without case, and with ``_`` for ``-`` and blanks."""

"""Rewards: what online methods learn from, as ``[[train.reward]]`` of a job names it.

A reward is one of forge's own (:mod:`.builtin`), a function of an installed module, or a function in a file beside the
job. This package finds it, says what it needs before a model is loaded, calls it, and checks what it returns. It knows
no trainer: :mod:`.trl` gives the rewards the form that TRL's trainers take.

Importing it imports nothing else, for it is imported while jobs are planned; a file of reward functions may take
:func:`completion_text` from here.
"""

from forge_huggingface.rewards.text import completion_text

__all__ = ["completion_text"]

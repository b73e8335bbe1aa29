"""Evaluation: held-out rows, asked of the base model and of what was trained, and judged.

:mod:`.questions` turns rows into prompts with their reference answers, :mod:`.metrics` and :mod:`.functions` judge what
was said, :mod:`forge.text.intervals` says how much the numbers can be trusted, :mod:`.evaluate` puts them in order, and
:mod:`.rules` finds mistakes of ``[eval]`` before anything is trained.
"""

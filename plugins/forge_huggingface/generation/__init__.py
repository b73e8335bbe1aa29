"""Answering: what makes trained weights, or the base model below them, say something.

Chat and evaluation go through :class:`.generator.ModelGenerator`. How a model is meant to answer is in
:mod:`.sampling`, the table of families in ``families.toml``.
"""

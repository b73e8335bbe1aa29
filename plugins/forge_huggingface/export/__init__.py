"""Exports: the adapter as it is, or merged into a whole model."""

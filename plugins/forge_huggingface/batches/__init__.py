"""Batches, from rows of each layout."""

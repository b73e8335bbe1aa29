"""Trying a file before it counts: the gates, what they compare with, and the small model before training."""

"""Choosing an implementation for each stage, with reasons."""

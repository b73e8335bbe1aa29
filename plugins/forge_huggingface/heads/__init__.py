"""Heads that read a text as a whole: what they tell, and how well."""

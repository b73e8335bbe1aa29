"""From sources to the rows that a trainer takes."""

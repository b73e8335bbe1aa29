"""How long a training takes: counted from the model's shape and the rows' files, and from what was measured here."""

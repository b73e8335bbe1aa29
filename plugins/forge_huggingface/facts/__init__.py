"""What a model is, from files alone, without loading it."""

"""forge's own reward functions, a module each."""

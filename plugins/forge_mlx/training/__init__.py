"""Training: a loop in plain MLX."""

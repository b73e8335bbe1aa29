"""The model in memory: loading it, and making it trainable."""

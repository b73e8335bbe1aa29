"""Training: the trainer, what each method adds to it, the probe, saving and going on."""

"""A run on disk: its folder, events, checkpoints, lock and owner, written whole or not at all."""

"""The hub: downloads, uploads and model cards."""

"""Faster ways to compute what a transformers model computes: loss, LoRA, SwiGLU, norms, rotary positions, masks."""

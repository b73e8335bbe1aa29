"""What the plugin's stages need to be installed, as PEP 508 requirements."""

from __future__ import annotations

MODELS = ("torch>=2.4", "transformers>=5.17,<6", "accelerate>=1.10")
PEFT = "peft>=0.18"
TRL = "trl>=1.14.2,<1.17,!=1.15.*"  # 1.15.0 cannot train SFT on a CPU: its loss is a Triton kernel without a fallback
DATASETS = "datasets>=4.7,<6"

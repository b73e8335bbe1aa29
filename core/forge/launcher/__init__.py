"""The process between the parent and several workers that train together: torchrun's agent, and what it knows."""

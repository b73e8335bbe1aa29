"""llama.cpp: running a file in it, and its own converter."""

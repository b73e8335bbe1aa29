"""The GGUF file: architectures, tensors, quantisation, vocabulary, and writing them."""

"""Which plugins there are, what they need, and which keys they add."""

"""The process that the user talks to: it starts workers and says what became of them."""

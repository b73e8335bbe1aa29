"""The server: who may ask it, what it answers, and the page."""

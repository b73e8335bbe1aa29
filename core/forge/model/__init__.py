"""What is known about a model before it is loaded: records that a plugin fills in."""

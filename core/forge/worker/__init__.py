"""The process that does the work, as its plan says; it chooses nothing."""

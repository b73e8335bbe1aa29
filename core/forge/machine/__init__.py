"""What the computer can do: a record of it, looking at it, and others to plan for."""

"""What the user asks for: the tables of a job file, reading and checking one, and what it leaves open."""

"""What people read: plans, memory and evaluations as text, for the terminal, the model card and the report alike."""

"""What tests share: projects, tiny models, doubles, and the fixtures that several folders ask for."""

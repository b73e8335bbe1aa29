"""What can be said about a job before anything is imported."""

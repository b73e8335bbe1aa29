"""The queue: jobs that wait for a slot of GPUs, in files, with and without a server."""

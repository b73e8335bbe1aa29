"""Where programs run that a model wrote: each in a process, a folder and limits of its own."""

"""What the tests of SDPO share, and the child process that they start."""

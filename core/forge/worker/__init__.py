"""The process that does the work, as its plan says; it chooses nothing."""

import time

BEGAN = time.time()
"""When the process began, as nearly as it can know: seconds since the epoch."""

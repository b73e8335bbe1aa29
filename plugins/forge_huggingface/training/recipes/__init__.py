"""What each training method adds to the common way of training, one module a family of methods.

These modules import trl when they are imported, which is after a backend has patched it.
"""

"""One module a tool: what its keys are here, and its defaults that are not forge's."""

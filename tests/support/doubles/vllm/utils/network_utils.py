"""What TRL imports for servers, which the double has not."""


def get_ip() -> str:
    """Raise an error."""
    raise NotImplementedError("the double of vLLM has no server")

"""What TRL imports for servers, which the double has not."""


class NCCLTrainerSendWeightsArgs:
    """Not there."""


class NCCLWeightTransferEngine:
    """Not there."""

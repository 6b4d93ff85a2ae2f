"""What can be wrong with a RADIO checkpoint, as one exception type whose message says what to do."""


class RadioCheckpointError(ValueError):
    """A checkpoint that cannot be opened, or not in full. The message names the file or weight, and the way out."""

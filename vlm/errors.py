"""The errors users of radio-vlm may catch.

`RadioVLMError` is anything wrong with a model, a checkpoint or a call; `SampleError` is bad input and always names
the sample and, when there is one, the file. Plain attributes and `__reduce__` keep them picklable across workers.
"""


class RadioVLMError(ValueError):
    """A model, checkpoint or call that cannot work, with the fix in the message."""


class SampleError(RadioVLMError):
    """Bad input data.

    Args:
        message: what is wrong, in words.
        sample_id: id of the sample, when known; may be filled in later by whoever knows it.
        path: the file at fault, when there is one.
        reason: short machine-readable code (`"truncated_image"`), the key under which skips are counted.
    """

    def __init__(
        self, message: str, sample_id: str | None = None, path: str | None = None, reason: str = "bad_sample"
    ) -> None:
        super().__init__(message)
        self.message = message
        self.sample_id = None if sample_id is None else str(sample_id)
        self.path = None if path is None else str(path)
        self.reason = reason

    def __str__(self) -> str:
        where = [f"sample {self.sample_id!r}"] if self.sample_id is not None else []
        where += [f"file {self.path}"] if self.path is not None else []
        return f"{self.message} ({', '.join(where)})" if where else self.message

    def __reduce__(self):
        return (type(self), (self.message, self.sample_id, self.path, self.reason))

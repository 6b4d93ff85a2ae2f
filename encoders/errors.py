"""What can be wrong with a RADIO checkpoint, as one exception type whose message says what to do."""


from pathlib import Path


class RadioCheckpointError(ValueError):
    """A checkpoint that cannot be opened, or not in full. The message names the file or weight, and the way out."""


def what_it_is(path: Path) -> str:
    """" (a Git LFS pointer: ...)" and the like for files that often stand where a checkpoint should; else ""."""
    with open(path, "rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return " (it is a Git LFS pointer: run `git lfs pull`)"
    return " (it is a web page, not a download)" if start.startswith((b"<!doctype", b"<html")) else ""

"""Whether everything that a reader would open below a folder really lies in the data folder.

Data files come from strangers: a series folder may hold a link to any file of the machine. A folder is looked through
as `vlm.media.dicom_series` does (links to folders are not followed, hidden files are passed over).
"""

import os

from vlm.errors import SampleError


def check_inside(path: str, root: str) -> None:
    """Follows the links below the folder `path`. Raises SampleError("outside_folder") where one leads out of `root`.

    `path` and `root` are real paths; a file passes.
    """
    root = root.rstrip(os.sep) + os.sep
    for place, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = os.path.join(place, name)
            if not name.startswith(".") and os.path.islink(file) and not os.path.realpath(file).startswith(root):
                message = "the folder holds a link to a file outside the data folder: copy the file into it"
                raise SampleError(message, path=path, reason="outside_folder")

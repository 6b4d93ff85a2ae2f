"""Opening what users have: images, documents, videos, DICOM, NIfTI; an error names the file when one is bad.

Heavy libraries (PyAV, pydicom, nibabel, pypdfium2) are imported inside the functions that need them.
"""

from vlm.media.image import load_image
from vlm.media.pages import PageRef, open_document
from vlm.media.video import VideoFrames, load_video
from vlm.media.volume import Volume
from vlm.media.volumes import read_channels, read_volume

__all__ = [
    "PageRef", "VideoFrames", "Volume", "load_image", "load_video", "open_document", "read_channels", "read_volume",
]  # fmt: skip

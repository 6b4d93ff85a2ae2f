"""Opening what users have: images, documents, videos, DICOM; an error names the file when one is bad.

Heavy libraries (PyAV, pydicom, pypdfium2) are imported inside the functions that need them.
"""

from vlm.media.image import load_image
from vlm.media.pages import PageRef, open_document
from vlm.media.video import VideoFrames, load_video

__all__ = ["PageRef", "VideoFrames", "load_image", "load_video", "open_document"]

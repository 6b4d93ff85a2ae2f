"""Opening what users have: images, videos and DICOM files, with an error that names the file when one is bad.

Heavy libraries (PyAV, pydicom) are imported inside the functions that need them.
"""

from vlm.media.image import load_image
from vlm.media.video import VideoFrames, load_video

__all__ = ["VideoFrames", "load_image", "load_video"]

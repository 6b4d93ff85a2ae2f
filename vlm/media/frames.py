"""What the frames of a picture file are: pages of a TIFF, moments of an animation, or previews beside one picture."""

from PIL import Image

ANIMATED_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
NEW_SUBFILE_TYPE, REDUCED_COPY = 254, 1  # TIFF tag, and its bit of a smaller copy of another page


def page_frames(image: Image.Image) -> list[int]:
    """Indices of the frames that are pages; leaves the image at the first of them.

    Of a TIFF every full-size page counts, smaller copies (thumbnails, pyramid levels) do not. All other formats hold
    one page: the second picture of a phone's JPEG or a layer of a drawing is none.
    """
    if image.format != "TIFF":
        return [0]
    pages = []
    for frame in range(getattr(image, "n_frames", 1)):
        image.seek(frame)
        if not image.tag_v2.get(NEW_SUBFILE_TYPE, 0) & REDUCED_COPY:
            pages.append(frame)
    pages = pages or [0]
    image.seek(pages[0])
    return pages


def is_animation(image: Image.Image) -> bool:
    """Whether its frames are moments in time."""
    return image.format in ANIMATED_FORMATS and getattr(image, "n_frames", 1) > 1

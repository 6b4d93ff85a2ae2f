"""Any picture Pillow opens, as a person would see it: upright 8-bit RGB.

Numpy and Pillow only: the file travels inside self-contained checkpoints.
"""

import numpy as np
from PIL import Image, ImageOps


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright 8-bit RGB copy of any PIL image.

    EXIF orientation is applied; transparency is laid on white (as a page is); 16-bit greys keep their full scale
    (65535 -> 255) and float greys are stretched from their minimum to their maximum.
    """
    try:
        if image.getexif().get(0x0112, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001, S110 - damaged EXIF says nothing about the pixels
        pass
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image).astype(np.float64)
        if image.mode == "F" or grey.max(initial=0) > 65535 or grey.min(initial=0) < 0:
            grey = np.nan_to_num(grey)
            low, high = grey.min(initial=0), grey.max(initial=0)
            grey = (grey - low) / (high - low or 1.0) * 255
        elif image.mode.startswith("I;16") or grey.max(initial=0) > 255:
            grey = grey / 257
        return Image.fromarray(grey.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        page = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(page, image).convert("RGB")
    return image.convert("RGB")

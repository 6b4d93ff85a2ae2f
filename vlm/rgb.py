"""Any picture Pillow opens, as a person would see it: upright 8-bit RGB on a white page.

Numpy and Pillow only: the file travels inside self-contained checkpoints.
"""

import io

import numpy as np
from PIL import Image, ImageOps

ORIENTATION = 0x0112  # EXIF
BITS, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0  # TIFF
PROFILE_SPACES = {"RGB": "RGB ", "CMYK": "CMYK", "L": "GRAY", "LAB": "Lab "}  # Pillow mode -> colour space of ICC


def to_rgb(image: Image.Image) -> Image.Image:
    """A PIL image of any mode -> RGB; one that is plain upright RGB is returned as it is.

    - The EXIF orientation is applied.
    - Transparency (alpha, premultiplied alpha, a transparent palette entry or colour) is laid on white, as on a page.
    - An embedded ICC profile of RGB, CMYK or grey is converted to sRGB; one that is damaged, or of another kind than
      the pixels, is ignored, and CMYK is then converted by the plain rule (255 - C)(255 - K).
    - 16-bit grey: 65535 is white (in a TIFF of 12 bits 4095); integers of mode "I" count as 8-bit up to 255, as 16-bit
      up to 65535, else they are stretched from their minimum to their maximum.
    - Float grey: values in [0, 1] are shown on that scale, others stretched; NaN is black.
    """
    deep = image.mode.startswith(("I", "F"))
    bits, is_negative = _tiff_facts(image) if deep else (16, False)
    try:
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001, S110 - damaged EXIF says nothing about the pixels
        pass
    if deep:
        grey = _deep_grey(image, bits)
        return Image.fromarray(255 - grey if is_negative else grey).convert("RGB")
    profile = image.info.get("icc_profile")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = _on_white(image)
    elif image.mode not in PROFILE_SPACES:
        image = image.convert("RGB")
    shown = _through_profile(image, profile) if profile else None
    if shown is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    return shown


def _on_white(image: Image.Image) -> Image.Image:
    """An image with any sort of transparency -> RGB over white."""
    clear = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(clear, tuple) and max(clear) > 255:
        # a 16-bit PNG, of which Pillow keeps the high bytes: so does its transparent colour
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    straight = image.convert("LA") if image.mode == "La" else image
    straight = straight.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), straight).convert("RGB")


def _through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """The image in sRGB by its ICC profile; None when there is nothing to do or the profile cannot be used."""
    try:
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space != PROFILE_SPACES[image.mode]:
            return None
        if image.mode == "RGB" and "srgb" in (source.profile.profile_description or "").lower():
            return None
        shown = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        shown.info.pop("icc_profile", None)
        return shown
    except Exception:  # noqa: BLE001 - a wrong profile must not cost the picture; Pillow without LittleCMS comes here too
        return None


def _tiff_facts(image: Image.Image) -> tuple[int, bool]:
    """(bits a sample, whether 0 is white) of a grey image; Pillow applies neither to samples of more than 8 bits."""
    tags = getattr(image, "tag_v2", None) or {}
    bits = tags.get(BITS, (16,))
    bits = bits[0] if isinstance(bits, tuple) else bits
    return (bits if 8 < bits < 16 else 16), tags.get(PHOTOMETRIC) == WHITE_IS_ZERO


def _deep_grey(image: Image.Image, bits: int) -> np.ndarray:
    """Integers of more than 8 bits or floats (modes I;16*, I, F) -> (H, W) uint8."""
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        shades = np.arange(65536, dtype=np.float32) * (255 / (2**bits - 1))
        grey = shades.round().clip(0, 255).astype(np.uint8)[values]
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[values == clear] = 255
        return grey
    if image.mode == "F":
        finite = np.isfinite(values)
        low, high = (float(values[finite].min()), float(values[finite].max())) if finite.any() else (0.0, 1.0)
        values = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        low, high = (0.0, 1.0) if 0 <= low and high <= 1 else (low, high)
    else:
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low >= 0:
            low, high = next(((0, top) for top in (255, 65535) if high <= top), (low, high))
    values = (values.astype(np.float64) - low) * (255 / (high - low or 1))
    return values.round().astype(np.uint8)

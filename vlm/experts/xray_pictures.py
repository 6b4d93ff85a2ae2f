"""Reading a chest X-ray for the experts on them: one grey picture with the bright side bright, from DICOM or PNG."""

from pathlib import Path

import numpy as np

from vlm.errors import SampleError
from vlm.experts.protocol import ExpertError

MODALITIES = ("DX", "CR")


def read_xray(path: Path, size: int, crop: bool = True) -> np.ndarray:
    """(H, W) float32 in 0 … 1, at most `size` pixels on the longer side (exactly `size` x `size` when `crop`).

    DICOM must be of modality DX or CR; its window and MONOCHROME1 are applied. `crop` cuts the middle square first, so
    that nothing is stretched. Raises `ExpertError`, worded for the model.
    """
    from PIL import Image

    from vlm.media import load_image
    from vlm.media.dicom import read_dicom

    try:
        with open(path, "rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM"
        if is_dicom:
            opened = read_dicom(path)
            if opened.modality not in MODALITIES:
                raise ExpertError(f"image is {opened.modality or 'of no stated modality'}, not a chest X-ray (DX, CR)")
            picture = opened.image
        else:
            picture = load_image(path)
    except (SampleError, OSError) as error:
        # the reason without the path: the model need not see file names
        reason = error.message if isinstance(error, SampleError) else type(error).__name__
        raise ExpertError(f"cannot read the image: {reason}") from error
    picture = picture.convert("L")
    if crop:
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)
    else:
        picture.thumbnail((size, size), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float32) / 255


def yes_no_text(probabilities: dict[str, float], threshold: float = 0.5) -> str:
    """`atelectasis: yes` and so on, one finding a line, as VILA-M3 feeds its classifiers' results back."""
    return "\n".join(f"{name}: {'yes' if value > threshold else 'no'}" for name, value in probabilities.items())

"""A DICOM series of synthetic CT slices, for tests on volumes."""

import random
from pathlib import Path

from training.data.synthetic.slices import Slice, random_slice, render, write_dicom


def write_series(folder: Path, places: list[float], **changes) -> Slice:
    """One slice a place (mm along the body); file names run against the places. `changes`: header of the last slice."""
    import pydicom

    folder.mkdir()
    item = random_slice(random.Random(1), 96, 1)
    for index, place in enumerate(places):
        file = folder / f"{len(places) - index:03d}.dcm"
        write_dicom(file, render(item, 0, noise=0) + 100 * index, item, index, "s")
        data = pydicom.dcmread(file)
        data.ImagePositionPatient, data.SeriesInstanceUID = [-120, -110, place], "1.2.3"
        if index == len(places) - 1:
            for keyword, value in changes.items():
                setattr(data, keyword, value)
        data.save_as(file)
    return item

"""Expert `BRATS`: parts of a brain tumour in four MRI sequences, by MONAI's bundle brats_mri_segmentation.

The network wants t1ce, t1, t2 and flair in this order, in one geometry, skull-stripped, as in the BraTS challenge.
Files are told apart by their names (`case_t1ce.nii.gz`); a missing sequence is said, never replaced by another.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from vlm.experts.monai_bundle import BundleExpert
from vlm.experts.protocol import ExpertCard, ExpertError, ExpertResult, register_expert
from vlm.experts.regions import measure, midline, regions_text
from vlm.experts.volumes import Volume, is_nifti, read_volume

CHANNELS = ("t1ce", "t1", "t2", "flair")
# Words in file names, the challenge's newer names (t1c, t1n, t2w, t2f) among them, and the channel that each means.
WORDS = {
    "t1ce": "t1ce", "t1c": "t1ce", "t1gd": "t1ce", "t1": "t1", "t1n": "t1", "t2": "t2", "t2w": "t2",
    "flair": "flair", "t2f": "flair",
}  # fmt: skip
LABELS = {1: "necrotic core", 2: "edema", 4: "enhancing tumor"}
# Regions of the challenge contain each other: the labels that each is made of.
REGIONS = {"whole tumor": (1, 2, 4), "tumor core": (1, 4), "enhancing tumor": (4,)}


@register_expert
class Brats(BundleExpert):
    """`folder`: the bundle (default: `weights_folder`); `device`: CUDA if there is one, else the CPU."""

    card = ExpertCard(
        name="BRATS",
        modality="MR",
        body_part="brain",
        returns="whole tumor, tumor core, enhancing tumor",
        weights="MONAI bundle brats_mri_segmentation; data of BraTS 2018, licence in the bundle",
    )

    bundle_name = "brats_mri_segmentation"
    multiple = 8

    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        """`path`: a folder with the four sequences, or the file of one of them beside the other three."""
        volumes = read_channels(sequence_files(Path(path)))
        first = volumes[0]
        channels = np.stack([volume.array for volume in volumes])
        mask = self.bundle.predict(channels, first.affine, label_map)
        middle = midline(first, channels.max(axis=0) > 0)
        regions = []
        for name, labels in REGIONS.items():
            measured = measure(np.isin(mask, labels), first, middle)
            if measured:
                regions.append({"name": name, **measured})
        text = regions_text(regions) if regions else "no tumor found"
        return ExpertResult(text, mask, {"regions": regions, "labels": LABELS})


def sequence_files(path: Path) -> dict[str, Path]:
    """Channel -> file or series folder, for the four channels. `ExpertError` names what is missing or there twice."""
    folder = path if path.is_dir() else path.parent
    stem = None if path.is_dir() else _channel(path)[1]
    found: dict[str, Path] = {}
    for entry in sorted(folder.iterdir()):
        channel, rest = _channel(entry)
        if channel is None or not (entry.is_dir() or is_nifti(entry)) or (stem is not None and rest != stem):
            continue
        if channel in found:
            raise ExpertError(f"BRATS found {channel} twice in the folder")  # file names may name a patient
        found[channel] = entry
    missing = [channel for channel in CHANNELS if channel not in found]
    if missing:
        raise ExpertError(f"BRATS needs the sequences {', '.join(CHANNELS)}; missing: {', '.join(missing)}")
    return {channel: found[channel] for channel in CHANNELS}


def _channel(path: Path) -> tuple[str | None, str]:
    """The channel that a name states as its last word that is one, and the name without it."""
    words = re.split(r"[_\-. ]+", path.name.lower())
    for at in range(len(words) - 1, -1, -1):
        if words[at] in WORDS:
            return WORDS[words[at]], "_".join(words[:at] + words[at + 1 :])
    return None, "_".join(words)


def read_channels(files: dict[str, Path]) -> list[Volume]:
    """The volumes of the files, in order; `ExpertError` when one is of another geometry or modality."""
    volumes = []
    for channel, file in files.items():
        volume = read_volume(file)
        if volume.modality not in (None, "MR"):
            raise ExpertError(f"{channel} is {volume.modality}, not MR")
        first = volumes[0] if volumes else volume
        if volume.array.shape != first.array.shape or not np.allclose(volume.affine, first.affine, atol=1e-2):
            raise ExpertError(f"{channel} does not lie on the voxels of {CHANNELS[0]}: register the sequences first")
        volumes.append(volume)
    return volumes


def label_map(image: Any, windowed: Any) -> Any:
    """Labels (1, X, Y, Z) of `image` (1, 4, X, Y, Z): the network's channels are tumor core, whole tumor, enhancing."""
    import torch

    core, whole, enhancing = windowed(image)[0] > 0
    labels = torch.where(whole, 2, 0)
    labels = torch.where(core, 1, labels)
    return torch.where(enhancing, 4, labels)[None]

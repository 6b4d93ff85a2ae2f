"""Expert `VISTA3D`: organs, bones, vessels, muscles and tumours in a CT volume, by MONAI's VISTA3D bundle.

VISTA3D (arXiv 2406.05285) segments 127 classes by label number. The arguments are the groups that VILA-M3 offers its
language model; a group's members are label numbers of the bundle's metadata, which also has their names.
"""

from pathlib import Path
from typing import Any

import numpy as np

from vlm.experts.monai_bundle import BundleExpert
from vlm.experts.protocol import ExpertCard, ExpertError, ExpertResult, register_expert
from vlm.experts.regions import measure_labels, midline, regions_text
from vlm.experts.volumes import read_volume

# The classes that are asked for one by one when everything is wanted: no class that contains others, no tumours (the
# bundle's own list).
EVERYTHING = tuple(sorted(set(range(1, 133)) - {2, 16, 18, *range(20, 28), *range(128, 133)} | {22}))
GROUPS: dict[str, tuple[int, ...]] = {
    "everything": EVERYTHING,
    "hepatic tumor": (1, 26),
    "pancreatic tumor": (4, 24),
    "lung tumor": (28, 29, 30, 31, 32, 23),
    "bone lesion": (128,),
    "organs": (1, 3, 4, 5, 8, 9, 10, 12, 13, 14, 15, 19, 22, 28, 29, 30, 31, 32, 57, 62, 115, 116, 117, 118, 121, 126),
    "cardiovascular": (6, 7, 17, 58, 59, 60, 61, *range(108, 114), 115, 119, 123, 124, 125),
    "gastrointestinal": (11, 12, 13, 19, 62),
    "skeleton": (*range(33, 57), *range(63, 98), 114, 120, 122, 127),
    "muscles": tuple(range(98, 108)),
}
TUMOURS = frozenset({23, 24, 26, 27, 128, 129, 130})
BODY_HU, AIR_HU = -300, -1000
BUDGET_BYTES = 2_000_000_000  # logits held at once; more labels go in turns


@register_expert
class Vista3D(BundleExpert):
    """`folder`: the bundle (default: `weights_folder("vista3d")`); `device`: CUDA if there is one, else the CPU."""

    card = ExpertCard(
        name="VISTA3D",
        modality="CT",
        body_part="any",
        returns="segmentation of organs, bones, vessels, tumors",
        arguments=tuple(GROUPS),
        weights="MONAI bundle vista3d; NVIDIA licence in the bundle: research and evaluation only",
    )

    bundle_name = "vista3d"
    multiple = 16

    def __init__(self, folder: Path | None = None, device: str | None = None) -> None:
        super().__init__(folder, device)
        self.names = self.bundle.names()

    def check(self, arguments: tuple[str, ...]) -> None:
        super().check(arguments)
        if len(arguments) > 1:
            raise ExpertError(f"{self.card.name} takes one argument at a time")

    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        """Without an argument: everything. Tumours come first in the text, as they are what is asked about."""
        wanted = GROUPS[arguments[0] if arguments else "everything"]
        volume = read_volume(path)
        if volume.modality not in (None, "CT"):
            raise ExpertError(f"image is {volume.modality}, not CT")
        mask = self.bundle.predict(
            volume.array[None], volume.affine, lambda image, windowed: label_map(image, windowed, wanted), AIR_HU + 50
        )
        regions = measure_labels(mask, self.names, volume, midline(volume, volume.array > BODY_HU))
        regions.sort(key=lambda region: region["label"] not in TUMOURS)
        asked = [label for label in wanted if label in TUMOURS]
        absent = [self.names[label] for label in asked if not (mask == label).any()]
        text = "; ".join([f"no {name}" for name in absent] + ([regions_text(regions)] if regions or not absent else []))
        labels = {label: self.names[label] for label in wanted}
        return ExpertResult(text, mask, {"regions": regions, "labels": labels, "absent": absent})


def label_map(image: Any, windowed: Any, labels: tuple[int, ...]) -> Any:
    """Label numbers (1, X, Y, Z) of `image` (1, 1, X, Y, Z): the label of the highest logit above 0, else 0.

    Labels are asked for in turns that fit into `BUDGET_BYTES`; the running maximum is the same as over all at once.
    """
    import torch

    best = torch.zeros(image.shape[1:], device=image.device)
    found = torch.zeros(image.shape[1:], device=image.device)
    turn = int(np.clip(BUDGET_BYTES // (4 * image.numel()), 1, 32))
    for start in range(0, len(labels), turn):
        prompt = torch.tensor(labels[start : start + turn], device=image.device)
        logits = windowed(
            image, transpose=True, point_coords=None, point_labels=None, class_vector=prompt[:, None],
            prompt_class=prompt[:, None], prev_mask=None, labels=None, label_set=None,
        )  # fmt: skip
        top, index = logits[0].max(dim=0, keepdim=True)
        better = top > best
        best = torch.where(better, top, best)
        found = torch.where(better, prompt[index].float(), found)
    return found

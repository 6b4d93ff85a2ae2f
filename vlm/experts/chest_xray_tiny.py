"""Expert `FINDINGS`: three findings of a synthetic chest X-ray, by a small network that the demo can train in seconds.

It stands for a real classifier (`CXR`) where nothing can be downloaded: same way of asking, same form of answer.
Trained on drawings only (`training/experts/chest_xray_tiny.py`), so on a patient's image its answers mean nothing.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from vlm.experts.protocol import Expert, ExpertCard, ExpertError, ExpertResult, register_expert
from vlm.experts.topics import finding_topic, report_topic
from vlm.experts.weights import missing_files, require, weights_folder
from vlm.experts.xray_pictures import read_xray, yes_no_text

if TYPE_CHECKING:
    from torch import nn

FOLDER = "chest_xray_tiny"
FILES = ("model.safetensors", "card.json")
LABELS = ("cardiomegaly", "effusion", "nodule")
SIZE = 64
FORMAT_VERSION = 1


def build_network(labels: int = len(LABELS), width: int = 16) -> "nn.Module":
    """(B, 1, 64, 64) pixels in 0 … 1 -> (B, labels) logits. Places count (a heart is wide, fluid lies low), so the last
    map keeps a grid of 4 x 4; a maximum is kept beside the mean, because a nodule is small.
    """
    import torch
    from torch import nn

    class MeanAndMax(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mean = nn.functional.adaptive_avg_pool2d(x, 4)
            return torch.cat([mean, nn.functional.adaptive_max_pool2d(x, 4)], dim=1).flatten(1)

    layers: list[nn.Module] = [nn.BatchNorm2d(1)]
    sizes = (1, width, 2 * width, 4 * width)
    for before, after in zip(sizes, sizes[1:]):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, MeanAndMax(), nn.Linear(8 * width * 16, labels))


@register_expert
class ChestXrayTiny(Expert):
    """`folder`: where its weights and card lie (default: `weights_folder("chest_xray_tiny")`)."""

    card = ExpertCard(
        name="FINDINGS",
        modality="DX/CR",
        body_part="chest",
        returns="findings",
        arguments=LABELS,
        weights="trained here on synthetic images: python -m training.experts.chest_xray_tiny",
    )

    topics = (*(finding_topic(label, (label,)) for label in LABELS), report_topic())

    weights_name = FOLDER

    @classmethod
    def unavailable(cls, folder: Path | None = None) -> str | None:
        where = folder or weights_folder(FOLDER)
        return missing_files(where, *FILES, how=f"python -m training.experts.chest_xray_tiny --out {where}")

    def __init__(self, folder: Path | None = None) -> None:
        from safetensors.torch import load_file

        require(self.unavailable(folder), self.card.name)
        folder = folder or weights_folder(FOLDER)
        card = json.loads((folder / FILES[1]).read_text())
        if card.get("format_version") != FORMAT_VERSION or tuple(card.get("labels", ())) != LABELS:
            raise ExpertError(f"{folder / FILES[1]} is not of this version: train the expert anew")
        self.network = build_network(width=card["width"]).eval()
        self.network.load_state_dict(load_file(folder / FILES[0]))

    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        import torch

        pixels = torch.from_numpy(read_xray(path, SIZE).copy())[None, None]
        with torch.inference_mode():
            values = self.network(pixels)[0].sigmoid().tolist()
        asked = arguments or LABELS
        probabilities = {label: value for label, value in zip(LABELS, values) if label in asked}
        return ExpertResult(yes_no_text(probabilities), None, {"probabilities": probabilities})

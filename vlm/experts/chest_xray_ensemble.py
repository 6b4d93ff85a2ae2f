"""Expert `CXR`: 18 findings of a chest X-ray from TorchXRayVision's eight networks, each asked only for what it knows.

Which networks speak on a finding follows VILA-M3. One thing differs: there a network that was not trained on a finding
answers 0.5 and is averaged in, which pulls every mean towards "undecided"; here it is left out (`parity=True`: kept).
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlm.experts.protocol import Expert, ExpertCard, ExpertError, ExpertResult, register_expert
from vlm.experts.weights import home, missing_packages, require
from vlm.experts.xray_pictures import read_xray, yes_no_text

NETWORKS = {
    "all": "densenet121-res224-all", "nih": "densenet121-res224-nih", "pc": "densenet121-res224-pc",
    "chex": "densenet121-res224-chex", "rsna": "densenet121-res224-rsna", "mimic_nb": "densenet121-res224-mimic_nb",
    "mimic_ch": "densenet121-res224-mimic_ch", "resnet": "resnet50-res512-all",
}  # fmt: skip
LABELS = (
    "Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion",
    "Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture",
    "Lung Opacity", "Enlarged Cardiomediastinum",
)  # fmt: skip
FOUR = ("all", "chex", "pc", "resnet")
SUBSETS = {
    "Pneumothorax": ("resnet",), "Fracture": ("all", "nih", "chex", "resnet"), "Atelectasis": FOUR,
    "Cardiomegaly": FOUR, "Consolidation": FOUR, "Edema": FOUR, "Effusion": FOUR,
}  # fmt: skip
SIZE = 512  # of the picture; every network resizes to its own

Network = Callable[[np.ndarray], Mapping[str, float]]
"""A picture (H, W) in 0 … 1 -> probability of each finding that the network was trained on, by its label."""


@register_expert
class ChestXrayEnsemble(Expert):
    """`labels`: the findings to report (networks that none of them needs are never loaded). `networks`: loads a network
    by its name; replaceable for tests. `parity`: average 0.5 for networks that do not know a finding, as VILA-M3 does.
    """

    card = ExpertCard(
        name="CXR",
        modality="DX/CR",
        body_part="chest",
        returns="18 findings, yes or no",
        weights="TorchXRayVision (Apache-2.0), eight networks in ~/.torchxrayvision/models_data",
    )

    @classmethod
    def unavailable(cls) -> str | None:
        return missing_packages("torchxrayvision", "torchvision", extra="experts") or missing_weights()

    @classmethod
    def download(cls) -> None:
        """Construct every network once, which makes TorchXRayVision fetch its file."""
        for name in NETWORKS.values():
            load_network(name, "cpu")

    def __init__(
        self, labels: Iterable[str] = LABELS, networks: Callable[[str], Network] | None = None, parity: bool = False
    ) -> None:
        self.labels, self.parity = tuple(labels), parity
        if unknown := [label for label in self.labels if label not in LABELS]:
            raise ValueError(f"unknown finding {unknown[0]}; known: {', '.join(LABELS)}")
        if networks is None:
            require(self.unavailable(), self.card.name)
        self._load = networks or load_network
        self._networks: dict[str, Network] = {}

    def run(self, path: Path, arguments: tuple[str, ...]) -> ExpertResult:
        picture = read_xray(path, SIZE)
        names = {name for label in self.labels for name in SUBSETS.get(label, NETWORKS)}
        # in the order of the table, so that a run loads and adds up the same way every time
        said = {name: self._network(name)(picture) for name in NETWORKS if name in names}
        probabilities, votes = {}, {}
        for label in self.labels:
            mean, speakers = combine(label, said, self.parity)
            plain = label.lower().replace("_", " ")
            probabilities[plain], votes[plain] = mean, speakers
        return ExpertResult(yes_no_text(probabilities), None, {"probabilities": probabilities, "networks": votes})

    def _network(self, name: str) -> Network:
        """The network `name`, loaded at its first use and kept."""
        if name not in self._networks:
            self._networks[name] = self._load(NETWORKS[name])
        return self._networks[name]


def combine(label: str, said: Mapping[str, Mapping[str, float]], parity: bool = False) -> tuple[float, list[str]]:
    """Mean probability of a finding over the networks of its subset that know it, and who they were.

    said: network -> finding -> probability. `parity`: those that do not know it count 0.5.
    """
    asked = [name for name in SUBSETS.get(label, NETWORKS) if name in said]
    speakers = [name for name in asked if label in said[name]]
    values = [said[name][label] for name in speakers] + ([0.5] * (len(asked) - len(speakers)) if parity else [])
    if not values:
        raise ExpertError(f"no network knows {label}")
    return float(np.mean(values)), speakers


def missing_weights() -> str | None:
    """Which network's file is not in TorchXRayVision's folder, and how to get them; None when all are there.

    The library downloads on construction; that must not happen in the middle of a conversation, so it is looked for.
    """
    folder = home() / ".torchxrayvision" / "models_data"
    held = [file.name for file in folder.iterdir()] if folder.is_dir() else []
    # file names begin with the training data's name, "nih-densenet121..." or, for `all`, with all of theirs
    begin = {name: f"{name}-densenet121" for name in NETWORKS} | {
        "all": "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121", "rsna": "kaggle-densenet121",
        "resnet": "pc-nih-rsna-siim-vin-resnet50",
    }  # fmt: skip
    absent = [name for name, start in begin.items() if not any(file.startswith(start) for file in held)]
    return f"no weights: {', '.join(absent)} not in {folder}; radio-vlm experts --download CXR" if absent else None


def load_network(name: str, device: str | None = None) -> Network:
    """A network of TorchXRayVision as a function of a picture; the device is CUDA if there is one, else the CPU."""
    try:
        import torch
        import torchxrayvision
    except ImportError as error:
        raise ExpertError("CXR needs torchxrayvision: pip install 'radio-vlm[experts]'") from error
    model = torchxrayvision.models.get_model(name)
    return as_function(model.eval(), device or ("cuda" if torch.cuda.is_available() else "cpu"))


def as_function(model: Any, device: str) -> Network:
    """TorchXRayVision's classifier as a function; its pixels run from -1024 to 1024, its blank targets are left out."""
    import torch

    model = model.to(device)
    size = getattr(model, "input_resolution", None)

    def probabilities(picture: np.ndarray) -> dict[str, float]:
        pixels = torch.from_numpy((picture * 2 - 1) * 1024).float()[None, None].to(device)
        if size and pixels.shape[-1] != size:  # the library's own resizing skips pixels
            pixels = torch.nn.functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
        with torch.inference_mode():
            values = model(pixels)[0].float().cpu().tolist()
        unknown = torch.isnan(model.op_threshs).tolist() if getattr(model, "op_threshs", None) is not None else []
        known = [not blank for blank in unknown] or [True] * len(values)
        return {label: value for label, value, keep in zip(model.targets, values, known) if label and keep}

    return probabilities

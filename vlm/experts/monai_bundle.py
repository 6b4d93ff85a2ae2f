"""Running a MONAI bundle's network on a volume: network, preprocessing and window size are the bundle's own.

Of a bundle's `configs/inference.json` only these three parts are evaluated, never its evaluator (which wants
pytorch-ignite and writes files). A bundle's configuration is code all the same: use bundles from a source you trust.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vlm.experts.protocol import Expert, ExpertError
from vlm.experts.weights import missing_files, missing_packages, require, weights_folder

FILES = ("configs/inference.json", "configs/metadata.json", "models/model.pt")
# Steps that the caller does itself: reading, and prompts that are already label numbers.
DROPPED = ("LoadImaged", "EnsureChannelFirstd", "VistaPreTransformd")
MAX_RESAMPLED = 200_000_000  # voxels times channels after preprocessing


def bundle_unavailable(name: str, expert: str, folder: Path | None = None) -> str | None:
    """Why the bundle `name` of an expert cannot run here and how to get it, or None."""
    where = folder or weights_folder(name)
    by_hand = f"python -m monai.bundle download --name {name} --bundle_dir {where.parent}"
    packages = missing_packages("monai", "nibabel", "scipy", extra="experts")
    return packages or missing_files(where, *FILES, how=f"radio-vlm experts --download {expert}, or {by_hand}")


class Bundle:
    """The network of the bundle in `folder`, in evaluation mode on `device` (CUDA if there is one, else the CPU).

    `multiple`: sides of a window must be multiples of it. Raises `ExpertError` where the files do not fit together.
    """

    def __init__(self, folder: Path, multiple: int, device: str | None = None) -> None:
        import torch
        from monai.bundle import ConfigParser

        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.multiple = multiple
        try:
            self.config = json.loads((folder / FILES[0]).read_text())
            self.metadata = json.loads((folder / FILES[1]).read_text())
            parser = ConfigParser(self._reduced(folder))
            self.network = parser.get_parsed_content("network_def")
            self.preprocessing = parser.get_parsed_content("preprocessing")
            state = torch.load(folder / FILES[2], map_location="cpu", weights_only=True)
            self.network.load_state_dict(state.get("model", state))
        except (KeyError, ValueError, RuntimeError, OSError) as error:
            raise ExpertError(f"the bundle in {folder} is not usable: {str(error).splitlines()[0]}") from error
        self.network.to(self.device).eval()
        inferer = self.config["inferer"]
        self.overlap = float(self._plain(inferer.get("overlap", 0.25)))
        self.window = [int(side) for side in self._plain(inferer["roi_size"])]

    def _reduced(self, folder: Path) -> dict[str, Any]:
        """The configuration without evaluator, data and files to write, and without the steps of `DROPPED`."""
        config = {key: value for key, value in self.config.items() if key not in ("evaluator", "handlers", "inferer")}
        config["imports"] = [line for line in config.get("imports", []) if "import scripts" not in line]
        config |= {"bundle_root": str(folder), "device": f"$torch.device('{self.device}')"}
        steps = config.get("preprocessing_transforms") or config["preprocessing"]["transforms"]
        kept = [step for step in steps if step["_target_"].rpartition(".")[2] not in DROPPED]
        config["preprocessing"] = {"_target_": "Compose", "transforms": kept}
        return config

    def _plain(self, value: Any) -> Any:
        """A configured value, one reference (`@patch_size`) followed."""
        return self.config[value[1:]] if isinstance(value, str) and value.startswith("@") else value

    def names(self) -> dict[int, str]:
        """The labels' names as the bundle's metadata has them."""
        channels = self.metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return {int(key): value for key, value in channels.items()}

    def predict(
        self, channels: np.ndarray, affine: np.ndarray, to_labels: Callable[..., Any], background: float = 0.0
    ) -> np.ndarray:
        """Labels (D, H, W) uint8 of `channels` (C, D, H, W), which share the geometry `affine` of (w, h, d) indices.

        `to_labels(image, windowed)` makes (1, X, Y, Z) labels of the preprocessed image (1, C, X, Y, Z);
        `windowed(image, **kwargs)` is the network over sliding windows. The result is resampled to the voxels given.
        """
        import torch
        from monai.data import MetaTensor
        from monai.transforms import Compose, Invertd

        if not (channels > background).any():
            raise ExpertError("the volume is empty")
        spatial_first = np.ascontiguousarray(channels.transpose(0, 3, 2, 1))
        image = MetaTensor(torch.from_numpy(spatial_first), affine=torch.from_numpy(affine.copy()))
        with torch.inference_mode():
            data = self.preprocessing({"image": image})
            if data["image"].numel() > MAX_RESAMPLED:
                raise ExpertError("the volume is too large at the network's resolution")
            labels = to_labels(data["image"][None].to(self.device), self._windowed)
            data["pred"] = MetaTensor(labels.cpu().float(), meta=data["image"].meta)
            undo = Invertd("pred", transform=self.preprocessing, orig_keys="image", nearest_interp=True, to_tensor=True)
            labels = Compose([undo])(data)["pred"][0]
        found = np.rint(np.nan_to_num(labels.cpu().numpy())).astype(np.uint8)
        return np.ascontiguousarray(found.transpose(2, 1, 0))

    def _windowed(self, image: Any, **kwargs: Any) -> Any:
        """The network over sliding windows of at most the bundle's size: (1, C, X, Y, Z) -> (1, N, X, Y, Z)."""
        import torch
        from monai.inferers import sliding_window_inference

        # A window larger than the image would only compute padding.
        sides = [
            min(side, -(-size // self.multiple) * self.multiple) for side, size in zip(self.window, image.shape[2:])
        ]
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            return sliding_window_inference(
                image, sides, 1, self.network, overlap=self.overlap, mode="gaussian", device=self.device, **kwargs
            ).float()


def download_bundle(name: str, expert: str) -> None:
    """Fetch the bundle `name` of MONAI's model zoo into its folder; only ever called because a user asked for it."""
    require(missing_packages("monai", extra="experts"), expert)
    from monai.bundle import download

    folder = weights_folder(name).parent
    folder.mkdir(parents=True, exist_ok=True)
    download(name=name, bundle_dir=folder)


class BundleExpert(Expert):
    """Base of the experts that are one bundle of the model zoo: what it lacks here, its download, its one loading.

    `folder`: the bundle (default: `weights_folder`); `device`: CUDA if there is one, else the CPU.
    """

    bundle_name: ClassVar[str]
    multiple: ClassVar[int]
    """Sides of a window must be multiples of it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.weights_name = cls.bundle_name

    @classmethod
    def unavailable(cls, folder: Path | None = None) -> str | None:
        return bundle_unavailable(cls.bundle_name, cls.card.name, folder)

    @classmethod
    def download(cls) -> None:
        download_bundle(cls.bundle_name, cls.card.name)

    def __init__(self, folder: Path | None = None, device: str | None = None) -> None:
        require(bundle_unavailable(self.bundle_name, self.card.name, folder), self.card.name)
        self.bundle = Bundle(folder or weights_folder(self.bundle_name), self.multiple, device)

"""Small MONAI bundles with random weights, in the layout of the real ones, for the runners of `vlm.experts`."""

import json
from pathlib import Path

VISTA_NETWORK = (
    "$monai.networks.nets.vista3d.VISTA3D("
    "image_encoder=monai.networks.nets.SegResNetDS2(in_channels=1, blocks_down=(1, 1, 1), norm='instance', "
    "out_channels=8, init_filters=8, dsdepth=1), "
    "point_head=monai.networks.nets.vista3d.PointMappingSAM(feature_size=8, n_classes=512, last_supported=132), "
    "class_head=monai.networks.nets.vista3d.ClassMappingClassify(n_classes=512, feature_size=8, use_mlp=True))"
)


def write_bundle(folder: Path, config: dict, names: dict[int, str], seed: int) -> Path:
    import torch
    from monai.bundle import ConfigParser

    for sub in ("configs", "models"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "configs/inference.json").write_text(json.dumps(config))
    pred = {"channel_def": {str(key): value for key, value in names.items()}}
    (folder / "configs/metadata.json").write_text(json.dumps({"network_data_format": {"outputs": {"pred": pred}}}))
    torch.manual_seed(seed)
    network = ConfigParser({"network_def": config["network_def"]}).get_parsed_content("network_def")
    torch.save({"model": network.state_dict()}, folder / "models/model.pt")
    return folder


def vista3d_bundle(folder: Path, seed: int = 0) -> Path:
    """VISTA3D's class and steps with two levels of eight filters; the reader and the scripts of the real one named."""
    steps = [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelGPUReader", "image_only": True},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "EnsureTyped", "keys": "image", "device": "@device", "track_meta": True},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 1.5], "mode": "bilinear"},
        {"_target_": "CropForegroundd", "keys": "image", "allow_smaller": True, "margin": 10, "source_key": "image"},
        {"_target_": "monai.apps.vista3d.transforms.VistaPreTransformd", "keys": "image", "subclass": {}},
        {
            "_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -963.8, "a_max": 1053.7, "b_min": 0,
            "b_max": 1, "clip": True,
        },
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"},
    ]  # fmt: skip
    config = {
        "imports": ["$import os", "$import scripts"],
        "patch_size": [128, 128, 128],
        "device": "$torch.device('cpu')",
        "network_def": VISTA_NETWORK,
        "preprocessing_transforms": steps,
        "preprocessing": {"_target_": "Compose", "transforms": "$@preprocessing_transforms "},
        "inferer": {"_target_": "scripts.inferer.Vista3dInferer", "roi_size": "@patch_size", "overlap": 0.3},
        "evaluator": {"_target_": "scripts.evaluator.Vista3dEvaluator"},
    }
    return write_bundle(folder, config, {label: f"label {label}" for label in range(133)} | {1: "liver"}, seed)


def brats_bundle(folder: Path, seed: int = 0) -> Path:
    """The bundle's SegResNet with four filters instead of sixteen."""
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
    ]
    network = {
        "_target_": "SegResNet", "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1], "init_filters": 8,
        "in_channels": 4, "out_channels": 3, "dropout_prob": 0.2,
    }  # fmt: skip
    config = {
        "imports": ["$import os"],
        "network_def": network,
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [240, 240, 160], "overlap": 0.5},
        "handlers": [{"_target_": "CheckpointLoader"}],
    }
    return write_bundle(folder, config, {0: "Tumor core", 1: "Whole tumor", 2: "Enhancing tumor"}, seed)

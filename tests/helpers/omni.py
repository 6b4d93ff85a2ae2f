"""A checkpoint of transformers' native `nemotron_h_omni` opened as our model, and the native class beside it.

The configuration is translated field by field, the weights by name: every weight is used, or is listed as one of the
sound branch, or is named in an error. Pixels of the native class are normalised outside, so `omni_model` takes our
input conditioner away as the native class does; with `conditioner=True` it stays and pixels must lie in [0, 1].
"""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedConfig
from transformers.models.nemotron_h_omni.configuration_nemotron_h_omni import NemotronH_Omni_Reasoning_V3_Config
from transformers.models.nemotron_h_omni.modeling_nemotron_h_omni import NemotronH_Omni_Reasoning_V3

from encoders.tensor_files import MemoryTensors
from encoders.weight_names import RenamedTensors, rename
from vlm.configuration_radio_vlm import RadioVLMConfig
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "omni"
RECORDED = "hashed_outputs.safetensors"
SOUND = re.compile(r"sound_(encoder|projection)\..+")
IDENTITY = {"vision_final_layernorm.weight": 1, "vision_final_layernorm.bias": 0}
PROJECTOR = {"mlp1.0.weight": "layer_norm", "mlp1.1.weight": "linear_1", "mlp1.3.weight": "linear_2"}


# ---- the native class ---------------------------------------------------------------------------------------------


def native_config(path: Path, **text) -> NemotronH_Omni_Reasoning_V3_Config:
    """Config of a checkpoint folder or config.json; `text` replaces fields of the language model's."""
    config = NemotronH_Omni_Reasoning_V3_Config.from_pretrained(path)
    for name, value in text.items():
        setattr(config.text_config, name, value)
    return config


def native_model(config: PreTrainedConfig, seed: int | None = 0) -> NemotronH_Omni_Reasoning_V3:
    """The native class in evaluation mode with drawn weights, norms and biases included; `hashed` ones for None."""
    model = NemotronH_Omni_Reasoning_V3(config).eval()
    if seed is None:
        fill_hashed(model)
        return model
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():  # steps are random enough; checkpoints never store the final norm, it stays the identity
        for name, parameter in model.named_parameters():
            if not name.endswith(("A_log", "dt_bias")) and "final_layernorm" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=made) * (0.02 if parameter.ndim > 1 else 0.1))
    return model


def step_limits(model: nn.Module, limits: tuple[float, float]) -> None:
    """Gives every Mamba mixer inside these bounds of its steps."""
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = limits


def public_weights(model: NemotronH_Omni_Reasoning_V3, folder: Path) -> dict[str, torch.Tensor]:
    """Weights under the names in which the library saves them."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


# ---- our model ----------------------------------------------------------------------------------------------------


def our_config(theirs: PreTrainedConfig, native_clamp: bool = True) -> RadioVLMConfig:
    """Our configuration of the same model.

    Args:
        native_clamp: bounds of the Mamba steps as transformers 5.23 computes them, `(time_step_min, inf)`; False: as
            `time_step_limit` of the configuration says, which transformers reads and ignores (transformers#48989).
    """
    text = {key: value for key, value in theirs.text_config.to_dict().items() if key != "time_step_limit"}
    text["time_step_limit"] = list(theirs.text_config.time_step_limit)
    if native_clamp:
        text["time_step_limit"] = [theirs.text_config.time_step_min, float("inf")]
    projector = {"downsample": round(1 / theirs.downsample_ratio), "hidden_size": theirs.projector_hidden_size}
    # a vision norm that no checkpoint stores: it keeps its identity scale and shift
    features = {"normalize": "layer_norm"} if theirs.text_config.num_nextn_predict_layers else None
    return RadioVLMConfig(
        vision_config=theirs.vision_config.to_dict(),
        text_config=text,
        projector_config={"type": "pixel_shuffle", **projector},
        image_token_id=theirs.image_token_id,
        video_token_id=theirs.image_token_id,  # the native class puts frames on image tokens
        vision_features=features,
    )


def our_weights(public: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """`(weights under our names, names of the sound branch)`; ValueError naming weights that nothing knows."""
    ours, sound, unknown = {}, [], []
    vision = {key.removeprefix("vision_model."): value for key, value in public.items() if "vision_model." in key}
    plan, unknown_vision = rename(vision)
    tensors = RenamedTensors(MemoryTensors(vision), plan)
    ours |= {f"vision_model.{name}": tensors.read(name) for name in tensors.keys()}
    unknown += [f"vision_model.{name}" for name in unknown_vision]
    for name, value in public.items():
        if name in PROJECTOR:
            ours[f"multi_modal_projector.{PROJECTOR[name]}.weight"] = value
        elif name.startswith("language_model."):
            ours[name.replace("language_model.backbone.", "language_model.model.", 1)] = value
        elif SOUND.fullmatch(name):
            sound.append(name)
        elif name in IDENTITY and bool((value == IDENTITY[name]).all()):
            continue  # `vision_features` of our configuration stands for it
        elif not name.startswith("vision_model."):
            unknown.append(name)
    if unknown:
        raise ValueError(f"weights that nothing knows: {', '.join(unknown)}")
    return ours, sound


def omni_model(
    config: RadioVLMConfig, public: Mapping[str, torch.Tensor], conditioner: bool = False
) -> RadioVLMForConditionalGeneration:
    """Our model with the weights of a native checkpoint, in evaluation mode; an error unless every weight fits."""
    model = RadioVLMForConditionalGeneration(config).eval()
    weights, _ = our_weights(public)
    # the checkpoint has its conditioner outside: mean and deviation are in the configuration
    mine = {name: value for name, value in model.state_dict().items() if ".input_conditioner." in name}
    model.load_state_dict({**mine, **weights}, strict=True)
    if not conditioner:
        model.vision_model.make_preprocessor_external()
    return model


def to_unit_range(pixels: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Normalised packed patches `(N, C*P*P)` -> what they were before, float64 to lose nothing here."""
    mean, std = (torch.tensor(getattr(config.vision_config, name)).double() for name in ("norm_mean", "norm_std"))
    split = pixels.double().view(len(pixels), -1, len(mean), config.vision_config.patch_size**2)
    return (split * std[:, None] + mean[:, None]).view(pixels.shape).to(pixels.dtype)


def pack(pictures: torch.Tensor, patch: int) -> torch.Tensor:
    """`(N, C, H, W) -> (N * patches, C*P*P)`, channel-major, by plain loops."""
    rows = []
    for picture in pictures:
        for y in range(0, picture.shape[1], patch):
            for x in range(0, picture.shape[2], patch):
                rows.append(picture[:, y : y + patch, x : x + patch].flatten())
    return torch.stack(rows)


def tubelets(frames: torch.Tensor, patch: int, depth: int) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """`(T, C, H, W)` frames -> packed tubelets `(patches, depth*C*P*P)`, the last frame repeated, and `(t, h, w)`."""
    missing = -len(frames) % depth
    frames = torch.cat([frames, frames[-1:].expand(missing, -1, -1, -1)])
    groups = frames.reshape(-1, depth * frames.shape[1], *frames.shape[2:])
    return pack(groups, patch), (len(groups), frames.shape[2] // patch, frames.shape[3] // patch)


# ---- numbers that need no file --------------------------------------------------------------------------------------


def hashed(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers in [-1, 1) that depend on `name` alone, the same on any machine and torch: a mixed counter (murmur3)."""
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.int64) + zlib.crc32(name.encode())
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return ((x >> 8).double() / 2**23 - 1).float().view(shape)


def fill_hashed(model: nn.Module) -> None:
    """Weights from `hashed`, sized so that every part matters and features stay near 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value = hashed(name, tuple(parameter.shape))
            if name.endswith("A_log"):
                value = value + 1
            elif name.endswith("dt_bias"):
                value = 4 * value - 6  # steps of about 0.00005 to 0.1: on both sides of the native bound 0.001
            elif parameter.ndim == 1 and not name.endswith("bias"):
                value = 1 + 0.3 * value
            elif parameter.ndim == 2 and "token" not in name:
                value = value * (3 / parameter.shape[-1]) ** 0.5
            else:
                value = 0.3 * value
            parameter.copy_(value)


# ---- what is compared -----------------------------------------------------------------------------------------------


def native_outputs(model: NemotronH_Omni_Reasoning_V3, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`image_features`, `logits` of the prompt and `video_features` of the native class; its dtype is the weights'."""
    model.vision_model.config.dtype = dtype = next(model.parameters()).dtype  # it casts pixels to what this says
    pixels, grids = inputs["pixel_values"].to(dtype), inputs["image_grid_hw"]
    with torch.no_grad():
        return {
            "image_features": torch.cat(model.get_image_features(pixels, grids).pooler_output),
            "logits": model(input_ids=inputs["input_ids"], pixel_values=pixels, image_grid_hw=grids).logits,
            "video_features": model.get_video_features(inputs["pixel_values_videos"].to(dtype)).pooler_output,
        }


def our_outputs(
    model: RadioVLMForConditionalGeneration, inputs: Mapping[str, torch.Tensor], unit_of: PreTrainedConfig | None = None
) -> dict[str, torch.Tensor]:
    """The same of our model; with `unit_of` its pixels are turned back to [0, 1] first."""
    dtype = next(model.parameters()).dtype
    vision = model.config.vision_config
    pixels, grids = inputs["pixel_values"].to(dtype), inputs["image_grid_hw"]
    packed, thw = tubelets(
        inputs["pixel_values_videos"].to(dtype), vision.patch_size, vision.video_temporal_patch_size
    )
    if unit_of is not None:
        pixels, packed = to_unit_range(pixels, unit_of), to_unit_range(packed, unit_of)
    with torch.no_grad():
        video = model.get_video_features(packed, torch.tensor([thw]))
        return {
            "image_features": model.get_image_features(pixels, grids),
            "logits": model(input_ids=inputs["input_ids"], pixel_values=pixels, image_grid_hw=grids).logits,
            "video_features": video.view(thw[0], -1, video.shape[-1]),
        }


def errors(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Largest absolute difference of each output; shapes must agree."""
    for name, value in found.items():
        assert value.shape == wanted[name].shape, name
    return {name: (value - wanted[name]).abs().max().item() for name, value in found.items()}


def hashed_inputs(config: PreTrainedConfig) -> dict[str, torch.Tensor]:
    """A prompt with three images and a video of five frames, of normalised pixels that need no file."""
    grids = [(4, 6), (8, 4), (2, 2)]
    ids = [5, 7]
    for h, w in grids:
        ids += [config.image_token_id] * (h * w // 4) + [9 + h, 11]
    return {
        "input_ids": torch.tensor([[*ids, 13, 14, 15]]),
        "image_grid_hw": torch.tensor(grids),
        "pixel_values": 2 * hashed("images", (sum(h * w for h, w in grids), config.vision_config.patch_dim)),
        "pixel_values_videos": 2 * hashed("video", (5, config.vision_config.num_channels, 64, 96)),
    }


def record(folder: Path) -> None:
    """Writes `hashed_outputs.safetensors`: what the native class computes in float64 from `hashed` weights."""
    config = native_config(folder)
    model = native_model(config, seed=None).double()
    inputs = hashed_inputs(config)
    outputs = native_outputs(model, inputs)
    step_limits(model, tuple(config.text_config.time_step_limit))
    outputs["logits_config_limit"] = native_outputs(model, inputs)["logits"]
    save_file({name: value.float().contiguous() for name, value in outputs.items()}, folder / RECORDED)


if __name__ == "__main__":
    record(FIXTURES)

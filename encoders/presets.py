"""RADIO encoders of real size by name, for `radio-vlm new` and for tests on the meta device; plus `tiny`.

Sizes: transformers' own RadioConfig (C-RADIOv4-H), NVlabs/RADIO's resource table and the tech reports. Note the MLP
ratio of SO400M: only 4304/1152 at full precision gives its 4304 hidden units.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from transformers import RadioConfig

from encoders.radio_config import RadioEncoderConfig


@dataclass(frozen=True, kw_only=True)
class VisionPreset:
    """An encoder known by name.

    Attributes:
        hub_id: where its weights are; None for random weights.
        config: makes its configuration.
        parameters: exact parameter count of transformers' RadioModel, position table included.
    """

    hub_id: str | None
    config: Callable[[], RadioConfig]
    parameters: int


VISION_PRESETS: dict[str, VisionPreset] = {
    "C-RADIOv4-H": VisionPreset(
        hub_id="nvidia/C-RADIOv4-H",
        config=partial(
            RadioEncoderConfig, version="c-radio_v4-h", num_cls_tokens=3, num_registers=7, summary_idxs=[0, 1]
        ),
        parameters=651_727_360,
    ),
    "C-RADIOv4-SO400M": VisionPreset(
        hub_id="nvidia/C-RADIOv4-SO400M",
        config=partial(
            RadioEncoderConfig,
            version="c-radio_v4-so400m",
            hidden_size=1152,
            num_hidden_layers=27,
            num_attention_heads=16,
            mlp_ratio=4304 / 1152,
            num_cls_tokens=3,
            num_registers=7,
            summary_idxs=[0, 1],
        ),
        parameters=431_299_440,
    ),
    "C-RADIOv2-VLM-H": VisionPreset(
        hub_id="nvidia/C-RADIOv2-VLM-H",
        config=partial(
            RadioEncoderConfig, version="c-radio_v2-vlm-h", num_cls_tokens=4, num_registers=4, summary_idxs=[0, 1, 2]
        ),
        parameters=651_724_800,
    ),
    "tiny": VisionPreset(
        hub_id=None,
        config=partial(
            RadioConfig,
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_img_size=128,
            image_size=128,
            num_cls_tokens=1,
            num_registers=3,
            summary_idxs=[0],
            initializer_range=0.06,
            video_temporal_patch_size=2,
        ),
        parameters=899_200,
    ),
}

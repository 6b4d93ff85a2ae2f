"""`RadioVLMConfig`: the parts of a model (vision, projector, text), its special tokens and its picture geometry.

Fields that must fit each other are checked here, where the config is built, so that nothing fails hours later.
"""

import logging
import math

from transformers import AutoConfig, PreTrainedConfig, RadioConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from encoders.radio_config import RadioEncoderConfig
from projectors.components import default_config, grid_multiple
from vlm.errors import RadioVLMError
from vlm.fingerprint import geometry_fingerprint
from vlm.geometry import check_geometry
from vlm.migrations import FORMAT_VERSION, migrate_config
from vlm.scale_features import num_scales
from vlm.video_settings import check_video
from vlm.vision_features import check_features, feature_width

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = {"image": "<image>", "video": "<video>", "image_start": "<img>", "image_end": "</img>"}


def _vision_config(value: dict | PreTrainedConfig | None) -> RadioEncoderConfig:
    """The encoder's config in its wider form, itself if it has that already; teacher heads stay behind."""
    if isinstance(value, PreTrainedConfig):
        values, model_type = None, value.model_type
    else:
        values = dict(value or {})
        values.pop("auto_map", None)
        model_type = values.pop("model_type", "radio")
    if model_type not in (RadioConfig.model_type, RadioEncoderConfig.model_type):
        raise RadioVLMError(f"vision_config: model type {model_type!r} is no RADIO encoder")
    try:
        config = RadioEncoderConfig.of(value) if values is None else RadioEncoderConfig(**values)
        if config.adaptors:  # nothing in this model reads them, and unused parameters make ranks wait
            logger.info("teacher heads stay behind: %s", ", ".join(config.adaptors))
            kept = {key: value for key, value in config.to_dict().items() if key not in ("model_type", "adaptors")}
            attention, config = config._attn_implementation, RadioEncoderConfig(**kept)
            config._attn_implementation = attention
    except ValueError as error:
        raise RadioVLMError(f"vision_config: {error}") from error
    return config


def _text_config(value: dict | PreTrainedConfig | None) -> PreTrainedConfig:
    """A native config from a dict; never one that would need code from a checkpoint."""
    if isinstance(value, PreTrainedConfig):
        return value
    value = dict(value or {})
    value.pop("auto_map", None)  # nested remote code never inherits the trust given to this checkpoint
    model_type = value.pop("model_type", "nemotron_h")
    if model_type not in CONFIG_MAPPING:
        raise RadioVLMError(
            f"text_config: model type {model_type!r} is not part of transformers, and code nested in a checkpoint is "
            "never run; register its classes with AutoConfig and AutoModel first, or use a native model"
        )
    return CONFIG_MAPPING[model_type](**value)


class RadioVLMConfig(PreTrainedConfig):
    r"""Configuration of `RadioVLMForConditionalGeneration`.

    Args:
        vision_config: `RadioEncoderConfig`, native `RadioConfig`, or a dict of either. Positions are those of
            evaluation in training too, as in the released VLMs, unless its `cpe_training` is set.
        text_config: config of any causal language model of transformers, or its dict.
        projector_config: see the projector's own file; missing keys take its defaults.
        image_token_id, video_token_id: placeholders, one per projected token.
        image_start_token_id, image_end_token_id: wrap every picture; optional.
        special_tokens: the string of each role, by which the ids were looked up.
        geometry: `mode` "dynamic" | "tiles" | "multi_scale" | "fixed" and its fields, see `geometry.py`; `patch_size`,
            `multiple` (grid sides are multiples of it; default: the smallest number that the projector's `downsample`
            and the encoder's `vitdet_window_size` divide), `max_prompt_patches`.
        video: `max_frames`, `fps`, `temporal_patch_size` (frames per tubelet: 1 or that of `vision_config`),
            `max_num_patches` per frame (None: as images), `frame_labels` (whether text announces each frame),
            `temporal_pool` (so many frames or tubelets are averaged after the projector), `pruning_rate` (share of
            video tokens left out, see `evs.py`).
        vision_features: which of the encoder's features go to the projector, see `vision_features.py`.
        format_version: version of the checkpoint layout, see `migrations.py`.
        tie_word_embeddings: as in the language model; taken from `text_config`.
    """

    model_type = "radio_vlm"
    sub_configs = {"vision_config": RadioEncoderConfig, "text_config": AutoConfig}
    keys_to_ignore_at_inference = ["past_key_values", "image_hidden_states"]

    def __init__(
        self,
        vision_config: dict | PreTrainedConfig | None = None,
        text_config: dict | PreTrainedConfig | None = None,
        projector_config: dict | None = None,
        image_token_id: int | None = None,
        video_token_id: int | None = None,
        image_start_token_id: int | None = None,
        image_end_token_id: int | None = None,
        special_tokens: dict[str, str] | None = None,
        geometry: dict | None = None,
        video: dict | None = None,
        vision_features: dict | None = None,
        format_version: int = FORMAT_VERSION,
        tie_word_embeddings: bool | None = None,
        **kwargs,
    ) -> None:
        self.vision_config = _vision_config(vision_config)
        self.text_config = _text_config(text_config)
        try:
            self.vision_features = check_features(vision_features, self.vision_config.num_hidden_layers)
        except ValueError as error:
            raise RadioVLMError(str(error)) from error
        # how many scales are laid side by side is the geometry's choice, whose other fields need the projector
        scales = num_scales(geometry or {})
        width = feature_width(self.vision_features, self.vision_config.hidden_size) * scales
        try:
            self.projector_config = default_config(projector_config, width, self.text_config.hidden_size)
        except ValueError as error:
            raise RadioVLMError(str(error)) from error
        if self.vision_features["summary"]:
            self.projector_config.setdefault("summary_tokens", len(self.vision_config.summary_idxs))
        self.image_token_id = image_token_id
        self.video_token_id = video_token_id
        self.image_start_token_id = image_start_token_id
        self.image_end_token_id = image_end_token_id
        self.special_tokens = {**SPECIAL_TOKENS, **(special_tokens or {})}
        try:
            self.geometry = check_geometry({**self._derived_geometry(geometry or {}), **(geometry or {})})
        except ValueError as error:
            window = self.vision_config.vitdet_window_size
            cause = f" (vision_config.vitdet_window_size is {window} patches)" if window else ""
            raise RadioVLMError(f"{error}{cause}") from error
        tubelet = {"temporal_patch_size": getattr(self.vision_config, "video_temporal_patch_size", None) or 1}
        try:
            self.video = check_video({**tubelet, **(video or {})}, self.projector_config)
        except ValueError as error:
            raise RadioVLMError(str(error)) from error
        self.format_version = format_version
        # transformers would overwrite the choices of parts that are built already, with None (which is no causal mask)
        for choice in ("attn_implementation", "experts_implementation"):
            chosen = {name: getattr(getattr(self, name), f"_{choice}", None) for name in self.sub_configs}
            kwargs.setdefault(choice, chosen)
        super().__init__(**kwargs)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self._check()

    def _derived_geometry(self, geometry: dict) -> dict:
        """What the parts say about a geometry that does not: patch size and multiple of grid sides.

        Where sides are chosen freely the multiple wastes no token on filling up; where the user gave them, only what
        the parts insist on.
        """
        window = self.vision_config.vitdet_window_size or 1
        is_free = geometry.get("mode", "dynamic") == "dynamic"
        fold = self.grid_multiple if is_free else grid_multiple(self.projector_config)
        return {"patch_size": self.vision_config.patch_size, "multiple": math.lcm(fold, window)}

    def _check(self) -> None:
        """Raise RadioVLMError for fields that contradict each other, naming both and the fix."""
        geometry, vision, projector = self.geometry, self.vision_config, self.projector_config
        if geometry["patch_size"] != vision.patch_size:
            raise RadioVLMError(
                f"geometry['patch_size'] ({geometry['patch_size']}) and vision_config.patch_size ({vision.patch_size}) "
                "differ: leave it out of geometry"
            )
        fold = grid_multiple(projector)
        if geometry["multiple"] % fold:
            cure = ", or set projector_config['odd_grids'] to 'pad'" if "odd_grids" in projector else ""
            raise RadioVLMError(
                f"geometry['multiple'] ({geometry['multiple']}) must be a multiple of projector_config['downsample'] "
                f"({fold}): leave it out of geometry{cure}"
            )
        window, budget = vision.vitdet_window_size, self.video["max_num_patches"]
        if window and geometry["multiple"] % window:
            raise RadioVLMError(
                f"geometry['multiple'] ({geometry['multiple']}) must be a multiple of vision_config.vitdet_window_size "
                f"({window}): leave it out of geometry"
            )
        if window and budget and budget < geometry["multiple"] ** 2:
            raise RadioVLMError(
                f"video['max_num_patches'] ({budget}) is too small for one frame: with "
                f"vision_config.vitdet_window_size {window} the sides of a grid are multiples of "
                f"{geometry['multiple']}; raise it to at least {geometry['multiple'] ** 2}"
            )
        summary = len(vision.summary_idxs) if self.vision_features["summary"] else 0
        if projector.get("summary_tokens", 0) != summary:
            raise RadioVLMError(
                f"projector_config['summary_tokens'] ({projector.get('summary_tokens', 0)}) contradicts "
                f"vision_features['summary'] ({self.vision_features['summary']}, so {summary} tokens): leave it out of "
                "projector_config"
            )
        frames, built = self.video["temporal_patch_size"], getattr(vision, "video_temporal_patch_size", None) or 1
        if frames not in (1, built):
            raise RadioVLMError(
                f"video['temporal_patch_size'] ({frames}) and vision_config.video_temporal_patch_size ({built}) differ"
            )

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """As in transformers, after migrating dicts written by older versions."""
        config_dict, version = migrate_config(config_dict)
        result = super().from_dict(config_dict, **kwargs)
        config = result[0] if isinstance(result, tuple) else result
        config._written_in_format = version
        return result

    def to_dict(self) -> dict:
        """Without the private note of the version this config was read from."""
        return {key: value for key, value in super().to_dict().items() if key != "_written_in_format"}

    @property
    def grid_multiple(self) -> int:
        """Sides of a grid that projector and encoder both take, nothing filled up, are multiples of this."""
        return math.lcm(self.projector_config.get("downsample", 1), self.vision_config.vitdet_window_size or 1)

    @property
    def fingerprint(self) -> str:
        """What the processor's batches must carry; see `fingerprint.py`."""
        ids = {"image": self.image_token_id, "video": self.video_token_id}
        ids = {role: -1 if token is None else token for role, token in ids.items()}
        return geometry_fingerprint(self.geometry, self.projector_config, self.video, ids)


__all__ = ["RadioVLMConfig"]

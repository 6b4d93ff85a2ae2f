"""`RadioVLMConfig`: the parts of a model (vision, projector, text), its special tokens and its picture geometry.

Fields that must fit each other are checked here, where the config is built, so that nothing fails hours later.
"""

from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from projectors.components import get_projector
from vlm.errors import RadioVLMError
from vlm.fingerprint import geometry_fingerprint
from vlm.geometry import check_geometry
from vlm.migrations import FORMAT_VERSION, migrate_config

SPECIAL_TOKENS = {"image": "<image>", "video": "<video>", "image_start": "<img>", "image_end": "</img>"}
VIDEO = {"max_frames": 8, "fps": 2.0, "max_num_patches": None, "frame_labels": True}


def _sub_config(value: dict | PreTrainedConfig | None, name: str, default_type: str) -> PreTrainedConfig:
    """A native config from a dict; never one that would need code from a checkpoint."""
    if isinstance(value, PreTrainedConfig):
        return value
    value = dict(value or {})
    value.pop("auto_map", None)  # nested remote code never inherits the trust given to this checkpoint
    model_type = value.pop("model_type", default_type)
    if model_type not in CONFIG_MAPPING:
        raise RadioVLMError(
            f"{name}: model type {model_type!r} is not part of transformers, and code nested in a checkpoint is never "
            "run; register its classes with AutoConfig and AutoModel first, or use a native model"
        )
    return CONFIG_MAPPING[model_type](**value)


class RadioVLMConfig(PreTrainedConfig):
    r"""Configuration of `RadioVLMForConditionalGeneration`.

    Args:
        vision_config: `RadioConfig` or its dict.
        text_config: config of any causal language model of transformers, or its dict.
        projector_config: see the projector's own file; missing keys take its defaults.
        image_token_id, video_token_id: placeholders, one per projected token.
        image_start_token_id, image_end_token_id: wrap every picture; optional.
        special_tokens: the string of each role, by which the ids were looked up.
        geometry: `mode` "dynamic" | "fixed", `patch_size`, `multiple` (grid sides are multiples of it),
            `min_num_patches`, `max_num_patches`, `size` [h, w] in pixels (fixed only).
        video: `max_frames`, `fps`, `temporal_patch_size` (frames per tubelet: 1 or that of `vision_config`),
            `max_num_patches` per frame (None: as images), `frame_labels` (whether text announces each frame).
        format_version: version of the checkpoint layout, see `migrations.py`.
        tie_word_embeddings: as in the language model; taken from `text_config`.
    """

    model_type = "radio_vlm"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}
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
        format_version: int = FORMAT_VERSION,
        tie_word_embeddings: bool | None = None,
        **kwargs,
    ) -> None:
        self.vision_config = _sub_config(vision_config, "vision_config", "radio")
        self.text_config = _sub_config(text_config, "text_config", "nemotron_h")
        projector = get_projector((projector_config or {}).get("type", "pixel_shuffle"))
        defaults = projector.defaults(self.vision_config.hidden_size, self.text_config.hidden_size)
        self.projector_config = {**defaults, **(projector_config or {})}
        self.image_token_id = image_token_id
        self.video_token_id = video_token_id
        self.image_start_token_id = image_start_token_id
        self.image_end_token_id = image_end_token_id
        self.special_tokens = {**SPECIAL_TOKENS, **(special_tokens or {})}
        downsample = self.projector_config.get("downsample", 1)
        derived = {"patch_size": self.vision_config.patch_size, "multiple": downsample}
        try:
            self.geometry = check_geometry({**derived, **(geometry or {})})
        except ValueError as error:
            raise RadioVLMError(str(error)) from error
        tubelet = {"temporal_patch_size": getattr(self.vision_config, "video_temporal_patch_size", None) or 1}
        self.video = {**VIDEO, **tubelet, **(video or {})}
        self.format_version = format_version
        # transformers would overwrite the choices of parts that are built already, with None (which is no causal mask)
        for choice in ("attn_implementation", "experts_implementation"):
            chosen = {name: getattr(getattr(self, name), f"_{choice}", None) for name in self.sub_configs}
            kwargs.setdefault(choice, chosen)
        super().__init__(**kwargs)
        self.tie_word_embeddings = bool(getattr(self.text_config, "tie_word_embeddings", False))
        self._check()

    def _check(self) -> None:
        """Raise RadioVLMError for fields that contradict each other, naming both and the fix."""
        geometry, vision, projector = self.geometry, self.vision_config, self.projector_config
        if geometry["patch_size"] != vision.patch_size:
            raise RadioVLMError(
                f"geometry['patch_size'] ({geometry['patch_size']}) and vision_config.patch_size ({vision.patch_size}) "
                "differ: leave it out of geometry"
            )
        downsample = projector.get("downsample", 1)
        if projector.get("odd_grids", "reject") == "reject" and geometry["multiple"] % downsample:
            raise RadioVLMError(
                f"geometry['multiple'] ({geometry['multiple']}) must be a multiple of projector_config['downsample'] "
                f"({downsample}): leave it out of geometry, or set projector_config['odd_grids'] to 'pad'"
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
    def fingerprint(self) -> str:
        """What the processor's batches must carry; see `fingerprint.py`."""
        ids = {"image": self.image_token_id, "video": self.video_token_id}
        ids = {role: -1 if token is None else token for role, token in ids.items()}
        return geometry_fingerprint(self.geometry, self.projector_config, self.video, ids)


__all__ = ["RadioVLMConfig"]

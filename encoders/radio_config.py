"""`RadioEncoderConfig`: transformers' `RadioConfig` plus what released RADIO checkpoints hold beyond the native class.

A backbone without any of it writes itself as a native `radio` config, which transformers opens alone. With any of it
the type is `radio_encoder`: the native class would open such a checkpoint too, and drop the rest without a word.
"""

from transformers.models.radio.configuration_radio import RadioConfig

from encoders.vitdet import window_schedule


class RadioEncoderConfig(RadioConfig):
    r"""Configuration of `RadioVisionModel`. The fields of `RadioConfig` keep their meaning.

    version (`str`, *optional*): name of the release, see `encoders.versions`.
    max_resolution (`int`, *optional*), preferred_resolution (`list[int]`, *optional*): pixels, [height, width]; advice.
    vitdet_window_size (`int`, *optional*): side of an attention window in patches; None: all attention is global.
    vitdet_num_global (`int`, *optional*), vitdet_num_windowed (`int`, *optional*): schedule, see `encoders.vitdet`.
    cpe_training (`bool`): in `train()` mode positions are drawn as in RADIO's own training (random window, dropout).
    pos_dropout (`float`): share of pictures whose position embedding is dropped then.
    patch_bias (`bool`), patch_norm (`bool`), final_norm (`bool`): bias of the patch projection, LayerNorm after the
        tokens are joined, LayerNorm after the last block.
    feature_normalizer (`bool`): features pass `(x - mean) @ tx.T` (PHI-S).
    intermediate_normalizer (`dict`, *optional*): `{"rot_per_layer": bool}`: every block's output has such a transform.
    adaptors (`dict`, *optional*): teacher heads by name, see `encoders.adaptors`.
    """

    model_type = "radio_encoder"

    version: str | None = None
    max_resolution: int | None = None
    preferred_resolution: list[int] | tuple[int, int] | None = None
    vitdet_window_size: int | None = None
    vitdet_num_global: int | None = None
    vitdet_num_windowed: int | None = None
    cpe_training: bool = False
    pos_dropout: float = 0.1
    patch_bias: bool = False
    patch_norm: bool = False
    final_norm: bool = False
    feature_normalizer: bool = False
    intermediate_normalizer: dict | None = None
    adaptors: dict | None = None

    # what the native class would drop without a word
    BEYOND_NATIVE = (
        "vitdet_window_size",
        "patch_bias",
        "patch_norm",
        "final_norm",
        "feature_normalizer",
        "intermediate_normalizer",
        "adaptors",
    )

    def __post_init__(self, **kwargs) -> None:
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        """Raises ValueError for fields that contradict each other, naming both."""
        if self.vitdet_window_size is not None:
            if not isinstance(self.vitdet_window_size, int) or self.vitdet_window_size < 1:
                raise ValueError(f"vitdet_window_size={self.vitdet_window_size}: a whole number of patches is needed")
            window_schedule(self.num_hidden_layers, self.vitdet_num_global, self.vitdet_num_windowed)
        if not all(0 <= index < self.num_cls_tokens for index in self.summary_idxs):
            raise ValueError(
                f"summary_idxs {self.summary_idxs} name class tokens that num_cls_tokens={self.num_cls_tokens} lacks"
            )

    @classmethod
    def of(cls, config: RadioConfig) -> "RadioEncoderConfig":
        """The same configuration as this class; itself if it is one."""
        if isinstance(config, cls):
            return config
        values = config.to_dict()
        values.pop("model_type", None)
        new = cls(**values)
        new._attn_implementation = config._attn_implementation
        return new

    @property
    def is_native(self) -> bool:
        """Whether transformers' `RadioModel` alone gives the same outputs."""
        return not any(getattr(self, name) for name in self.BEYOND_NATIVE)

    @property
    def min_resolution_step(self) -> int:
        """Height and width of an input must be multiples of this, in pixels."""
        return self.patch_size * (self.vitdet_window_size or 1)

    def to_dict(self) -> dict:
        """As a native `radio` config, without our unused fields, where that says everything."""
        values = super().to_dict()
        if self.is_native:
            values["model_type"] = RadioConfig.model_type
            for name in (*self.BEYOND_NATIVE, "vitdet_num_global", "vitdet_num_windowed"):
                values.pop(name, None)
        return values

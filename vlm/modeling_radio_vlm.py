"""`RadioVLMForConditionalGeneration`: encode -> project -> scatter into the embeddings -> language model.

The parts keep their places in every checkpoint for good: `vision_model.`, `multi_modal_projector.`, `language_model.`.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from encoders.radio_vision import RadioVisionModel
from projectors.components import build_projector, static_source
from vlm.adapted_model import AdapterMixin
from vlm.configuration_radio_vlm import RadioVLMConfig
from vlm.errors import RadioVLMError
from vlm.generation_radio_vlm import PackedGenerationMixin
from vlm.media_encoder import MediaEncoderMixin
from vlm.migrations import weight_renames
from vlm.quantized_loading import leave_vision_alone
from vlm.scale_features import num_scales
from vlm.self_contained import SelfContainedMixin
from vlm.text_backbone import accepts, embedding_scale, prepare_text_backbone
from vlm.token_loss import loss_and_outputs
from vlm.video_layout import move, pruned_order
from vlm.vision_features import feature_width
from vlm.visual_tokens import check_counts, gather_features, has_media, placeholder_masks, scatter_features


@dataclass
class RadioVLMOutput(ModelOutput):
    """Output of the model.

    Attributes:
        loss: token-mean cross entropy, with `labels`.
        logits: (B, L or `logits_to_keep`, V); with `labels` only on `return_logits=True`.
        past_key_values: the cache, with `use_cache`.
        hidden_states, attentions: of the language model, on request.
        image_hidden_states: (N, D) projected features of this call, images then videos.
        token_losses: (B, L) cross entropy of each label at its place (in rows of pruned videos: where it has moved to),
            without gradient, on request.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    image_hidden_states: torch.Tensor | None = None
    token_losses: torch.Tensor | None = None


class RadioVLMPreTrainedModel(AdapterMixin, SelfContainedMixin, PreTrainedModel):
    """Loading, saving and the promises made to transformers."""

    config_class = RadioVLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    # The parts decide for themselves what they support; this class only hands the choice down.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # What stays float32 when a checkpoint is opened in half precision; norms compute in float32 by themselves.
    _keep_in_fp32_modules_strict = [
        "input_conditioner", "position_embedding", "feature_normalizer", "intermediate_normalizer",
        "A_log", "dt_bias", "mixer.D",
    ]  # fmt: skip

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """As in transformers, but a weight that is missing, unexpected or of another shape is an error.

        4- and 8-bit loading converts the language model only; checkpoints of older formats are migrated. An adapter
        folder opens its base and is put onto it (`vlm/adapted_model.py`).
        """
        pretrained_model_name_or_path, adapter = cls.split_adapter(pretrained_model_name_or_path, kwargs)
        if kwargs.get("quantization_config") is not None:
            kwargs["quantization_config"] = leave_vision_alone(kwargs["quantization_config"])
        config = kwargs.get("config")
        if config is None and pretrained_model_name_or_path is not None:
            keep = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")
            hub = {key: kwargs[key] for key in keep if key in kwargs}
            config = cls.config_class.from_pretrained(pretrained_model_name_or_path, **hub)
        renames = weight_renames(getattr(config, "_written_in_format", config.format_version) if config else 1)
        if renames:
            kwargs["key_mapping"] = {**renames, **(kwargs.get("key_mapping") or {})}
        model, info = super().from_pretrained(
            pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs
        )
        wrong = [(name, sorted(map(str, info[name]))) for name in ("missing_keys", "unexpected_keys") if info.get(name)]
        if info.get("mismatched_keys") and not kwargs.get("ignore_mismatched_sizes"):
            wrong.append(("mismatched_keys", sorted(map(str, info["mismatched_keys"]))))
        if wrong:
            listed = "; ".join(f"{name}: {', '.join(keys[:6])}{' ...' * (len(keys) > 6)}" for name, keys in wrong)
            raise RadioVLMError(
                f"the weights in {pretrained_model_name_or_path} do not fit its config ({listed}); nothing was filled "
                "with random numbers: check that the folder is complete and was not mixed from two checkpoints"
            )
        model.loaded_revision = kwargs.get("revision")
        if adapter is not None:
            model.load_adapter(**adapter)
        return (model, info) if output_loading_info else model

    def save_pretrained(self, save_directory, *args, **kwargs):
        """As in transformers, under this package's own weight names (not those of the parts' original releases)."""
        kwargs.setdefault("save_original_format", False)
        return super().save_pretrained(save_directory, *args, **kwargs)

    def remote_code_parts(self) -> dict[str, str]:
        """The file that a self-contained checkpoint cannot find by itself: its projector."""
        return {"components.py": static_source(self.config.projector_config["type"])}


class RadioVLMForConditionalGeneration(RadioVLMPreTrainedModel, MediaEncoderMixin, PackedGenerationMixin):
    """RADIO + projector + any causal language model.

    Args:
        config: the model's configuration.
        vision_model, language_model: parts to take over instead of building fresh ones (see `vlm.build`).
    """

    def __init__(
        self,
        config: RadioVLMConfig,
        vision_model: RadioVisionModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        for part in (vision_model, language_model):
            for module in part.modules() if part is not None else ():
                module._is_hf_initialized = True  # or `post_init` would draw the weights anew
        if vision_model is None:
            vision_model = RadioVisionModel._from_config(config.vision_config)
        if language_model is None:
            # Code nested in a checkpoint never inherits the trust given to this one.
            language_model = AutoModelForCausalLM.from_config(config.text_config, trust_remote_code=False)
        self.vision_model = vision_model
        text_width = config.text_config.hidden_size
        width = config.vision_config.hidden_size
        channels = feature_width(config.vision_features, width) * num_scales(config.geometry)
        self.multi_modal_projector = build_projector(config.projector_config, channels, text_width, d_summary=width)
        self.language_model = prepare_text_backbone(language_model)
        self._is_stateful = bool(getattr(language_model, "_is_stateful", False))
        self._backbone_slices_logits = accepts(language_model, "logits_to_keep")
        self._geometry_checked = False
        self.post_init()
        # The parts' own lists of forgivable keys do not apply: whatever this class saves must come back.
        self._keys_to_ignore_on_load_missing = set()

    # ---- places other code looks for ----------------------------------------------------------------------------

    @property
    def dtype(self) -> torch.dtype:
        """The language model's: the first parameter is a position table that stays float32 in half precision, and
        what this says is written into the config and used by `dtype="auto"`."""
        return self.get_input_embeddings().weight.dtype

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.language_model

    # ---- pictures to tokens -------------------------------------------------------------------------------------

    def _check_geometry(self, fingerprint: str | list[str] | None) -> None:
        """At the first batch that carries one: processor and model count alike, or an error says where they differ."""
        if fingerprint is None or self._geometry_checked:
            return
        theirs = fingerprint if isinstance(fingerprint, str) else fingerprint[0]
        if theirs != self.config.fingerprint:
            raise RadioVLMError(
                f"processor and model do not belong together: the processor says {theirs}, the model "
                f"{self.config.fingerprint}; load both from the same checkpoint folder"
            )
        self._geometry_checked = True

    def _embed(self, input_ids, inputs_embeds, pixels: dict, mm_token_type_ids, sample_ids):
        """`(inputs_embeds (B, L, D), features or None, order or None)`: text embeddings with every picture in its
        place; `order` (B, L) where placeholders of pruned videos had to move, see `video_layout`."""
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if not has_media(pixels):
            if self.training and torch.is_grad_enabled():
                inputs_embeds = inputs_embeds + self._idle_media().to(inputs_embeds)
            return inputs_embeds, None, None
        masks = self.checked_masks(input_ids, mm_token_type_ids, pixels, sample_ids)
        tokens = self.media_tokens(**pixels)
        order = pruned_order(mm_token_type_ids, tokens)
        if order is not None:
            inputs_embeds, masks = move(inputs_embeds, order), [move(mask, order) for mask in masks]
        for mask, features in zip(masks, (tokens.images, tokens.videos)):
            if features is not None:
                inputs_embeds = scatter_features(inputs_embeds, mask, features)
        return inputs_embeds, tokens.joined, order

    def checked_masks(self, input_ids, mm_token_type_ids, pixels: dict, sample_ids) -> list[torch.Tensor]:
        """`(B, L)` masks of image and video placeholders, as many as the pictures make tokens or an error says which
        sample has others."""
        masks = placeholder_masks(
            input_ids, mm_token_type_ids, self.config.image_token_id, self.config.video_token_id
        )
        counts = (
            self.tokens_per_picture(pixels["image_grid_hw"]),
            self.tokens_per_picture(pixels["video_grid_thw"], pixels.get("video_num_tokens")),
        )
        for mask, kind, numbers in zip(masks, ("image", "video"), counts):
            check_counts(mask, numbers, kind, sample_ids)
        return list(masks)

    # ---- forward ------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_hw: torch.LongTensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.LongTensor | None = None,
        video_num_tokens: torch.LongTensor | None = None,
        mm_token_type_ids: torch.LongTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_logits: bool = False,
        seq_idx: torch.Tensor | None = None,
        sample_ids: list[str] | None = None,
        geometry_fingerprint: str | list[str] | None = None,
        visual_features: torch.Tensor | None = None,
        visual_index: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        token_weights: torch.Tensor | None = None,
        z_loss: float = 0.0,
        return_token_losses: bool = False,
        return_dict: bool | None = None,
        **kwargs,
    ) -> RadioVLMOutput:
        """One pass.

        Args:
            input_ids: (B, L). attention_mask: (B, L). position_ids: (B, L).
            inputs_embeds: (B, L, D) instead of `input_ids`; with pixels also pass `mm_token_type_ids`.
            pixel_values, image_grid_hw, pixel_values_videos, video_grid_thw, video_num_tokens: see `encode_media`;
                packed, so dim 0 is never the batch.
            mm_token_type_ids: (B, L) 0 text, 1 image, 2 video placeholder, 3 text before the placeholders of a frame
                that may move (a pruned video); without it the ids decide.
            labels: (B, L), -100 where there is no loss.
            logits_to_keep: last positions (0: all) or index of positions to make logits for.
            return_logits: make logits although there are labels.
            seq_idx: (B, L) number of the packed sample of each position; needs packing enabled in the backbone.
            sample_ids: names for error messages.
            geometry_fingerprint: the processor's; compared once with the config's.
            visual_features, visual_index: (N, D) and (B, L), made by `generate`.
            num_items_in_batch: labelled tokens (or the sum of their weights) of the whole accumulated batch; divides
                the summed loss.
            token_weights: (B, L) weight of each label in the loss.
            z_loss: weight of the squared log of the softmax's denominator at labelled tokens.
            return_token_losses: with labels: also `token_losses`.
        """
        if getattr(self, "_is_replica", False):
            raise RadioVLMError("torch.nn.DataParallel would cut packed pixels along patches: use DDP or DeepSpeed")
        if (input_ids is None) == (inputs_embeds is None):
            raise RadioVLMError("pass exactly one of input_ids and inputs_embeds")
        self._check_geometry(geometry_fingerprint)
        pixels = {
            "pixel_values": pixel_values,
            "image_grid_hw": image_grid_hw,
            "pixel_values_videos": pixel_values_videos,
            "video_grid_thw": video_grid_thw,
            "video_num_tokens": video_num_tokens,
        }
        embeds, features, order = self._embed(input_ids, inputs_embeds, pixels, mm_token_type_ids, sample_ids)
        if order is not None:
            labels, attention_mask = move(labels, order), move(attention_mask, order)
            token_weights = move(token_weights, order)
        if visual_index is not None:
            embeds = gather_features(embeds, visual_index, visual_features)
        scale = embedding_scale(self.language_model)
        inputs = {
            "inputs_embeds": embeds if scale == 1.0 else embeds * scale,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            **kwargs,
        }
        if seq_idx is not None:
            if not getattr(self.language_model, "packing_enabled", False):
                raise RadioVLMError(
                    "`seq_idx` given, but this language model would let packed samples see each other: prepare it with "
                    "`llm.prepare_language_model(model.language_model)`, or lay samples out with padding and leave "
                    "`seq_idx` out"
                )
            inputs["seq_idx"] = seq_idx
        if labels is not None:
            keep = logits_to_keep if return_logits else None
            loss, outputs, logits, token_losses = loss_and_outputs(
                self.language_model, labels, inputs, num_items_in_batch, keep, token_weights, z_loss,
                return_token_losses,
            )  # fmt: skip
        else:
            if self._backbone_slices_logits:
                inputs["logits_to_keep"] = logits_to_keep
            if getattr(self.language_model.config, "output_router_logits", False):
                inputs["output_router_logits"] = False  # a balancing loss without labels fails on decode steps
            outputs = self.language_model(**inputs)
            loss, logits, token_losses = None, outputs.logits, None
        result = RadioVLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=outputs.get("past_key_values"),
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            image_hidden_states=features,
            token_losses=token_losses,
        )
        return result if return_dict is not False else result.to_tuple()


__all__ = ["RadioVLMForConditionalGeneration", "RadioVLMOutput", "RadioVLMPreTrainedModel"]

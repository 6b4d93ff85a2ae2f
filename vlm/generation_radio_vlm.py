"""Generation for packed pictures: features are made once per `generate` call, before beams or samples multiply.

transformers repeats every tensor along dim 0 for beams, but dim 0 of packed pixels is patches, not samples. So the
pixels are turned here into one table of features, which all beams share, and a per-position index into it, which is
`(B, L)` like the ids and is repeated, sliced and chunked like them.
"""

import torch
from transformers import GenerationMixin
from transformers.masking_utils import create_masks_for_generate as default_masks

from vlm.errors import RadioVLMError
from vlm.video_layout import move, pruned_order
from vlm.visual_tokens import check_counts, feature_index, has_media, placeholder_masks

PIXEL_KEYS = ("pixel_values", "image_grid_hw", "pixel_values_videos", "video_grid_thw", "video_num_tokens")
BATCH_KEYS = (*PIXEL_KEYS, "mm_token_type_ids", "sample_ids", "geometry_fingerprint")


class PackedGenerationMixin(GenerationMixin):
    """Overrides the three hooks of `generate` that would treat packed pixels as a batch."""

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.LongTensor | None = None,
        **model_kwargs,
    ):
        """Encode, then expand what has a batch dimension. Called exactly once by `generate`, also without beams."""
        batch = {key: model_kwargs.pop(key, None) for key in BATCH_KEYS}
        features = None
        if has_media(batch):
            features, index, offset, order = self._features_and_index(input_ids, batch, model_kwargs)
            if features is not None:
                model_kwargs["visual_index"] = index
            if order is not None:  # a pruned video: what is generated continues the row as the model reads it
                input_ids = move(input_ids, order)
                moved = {key: move(model_kwargs.get(key), order) for key in ("inputs_embeds", "attention_mask")}
                model_kwargs |= {key: value for key, value in moved.items() if value is not None}
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        if features is not None:
            model_kwargs["visual_features"] = features
            model_kwargs["visual_offset"] = offset
        return input_ids, model_kwargs

    def _features_and_index(self, input_ids: torch.Tensor | None, batch: dict, model_kwargs: dict):
        """`(features (N, D), index (B, L), offset, order)`: `offset` is the absolute position of the first column,
        `order` (B, L) where placeholders of pruned videos move, else None; the index is in that order.

        With a cache of earlier turns, `input_ids` hold either the whole conversation or only what is new, and the
        pixels either all pictures or only the new ones; positions inside the cache need no features any more.
        """
        self._check_geometry(batch["geometry_fingerprint"])
        token_types = batch["mm_token_type_ids"]
        image_mask, video_mask = placeholder_masks(
            input_ids, token_types, self.config.image_token_id, self.config.video_token_id
        )
        image_counts = self.tokens_per_picture(batch["image_grid_hw"])
        video_counts = self.tokens_per_picture(batch["video_grid_thw"], batch["video_num_tokens"])
        cache, offset = model_kwargs.get("past_key_values"), 0
        if cache is not None and (cached := int(cache.get_seq_length())) > 0:
            attention_mask = model_kwargs.get("attention_mask")
            width = cached + image_mask.shape[1] if attention_mask is None else attention_mask.shape[1]
            whole = attention_mask is None and image_mask.shape[1] > cached or width == image_mask.shape[1]
            offset = 0 if whole else cached
            new = torch.arange(image_mask.shape[1], device=image_mask.device) + offset >= cached
            if not ((image_mask | video_mask) & new).any():
                return None, None, 0, None
            if int((image_mask & new).sum()) == sum(image_counts):
                image_mask = image_mask & new
            if int((video_mask & new).sum()) == sum(video_counts):
                video_mask = video_mask & new
                token_types = None if token_types is None else torch.where(new, token_types, 0)
        for mask, kind, counts in ((image_mask, "image", image_counts), (video_mask, "video", video_counts)):
            check_counts(mask, counts, kind, batch["sample_ids"])
        tokens = self.media_tokens(**{key: batch[key] for key in PIXEL_KEYS})
        order = pruned_order(token_types, tokens)
        if order is not None:
            image_mask, video_mask = move(image_mask, order), move(video_mask, order)
        num_images = 0 if tokens.images is None else len(tokens.images)
        return tokens.joined, feature_index(image_mask, video_mask, num_images), offset, order

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        past_key_values=None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        visual_features: torch.Tensor | None = None,
        visual_index: torch.Tensor | None = None,
        visual_offset: int = 0,
        **kwargs,
    ) -> dict:
        """As in transformers; the index is cut to the positions of this call, decode steps carry none."""
        inputs = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            past_key_values=past_key_values,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        tokens = inputs["inputs_embeds"] if inputs.get("input_ids") is None else inputs["input_ids"]
        length = tokens.shape[1]
        decoding = past_key_values is not None and not is_first_iteration and length == 1
        if visual_index is None or decoding:
            return inputs
        start = (0 if past_key_values is None else int(past_key_values.get_seq_length())) - visual_offset
        index = visual_index[:, start : start + length]
        if index.shape[1] < length:  # without a cache the sequence outgrows the prompt
            index = torch.nn.functional.pad(index, (0, length - index.shape[1]), value=-1)
        inputs["visual_index"], inputs["visual_features"] = index, visual_features
        return inputs

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor, model_kwargs, model_input_name, generation_config
    ) -> dict:
        """Nothing to prepare, `_expand_inputs_for_generation` encodes; puts right what would go wrong silently."""
        if set(getattr(self.language_model.config, "layer_types", None) or ()) == {"linear_attention"}:
            # a cache without one attention layer knows no length, which transformers asks a VLM's cache for
            generation_config.use_cache = model_kwargs["use_cache"] = False
        if getattr(generation_config, "prefill_chunk_size", None):
            if model_input_name == "inputs_embeds":
                raise RadioVLMError("`prefill_chunk_size` splits token ids: pass `input_ids`, not `inputs_embeds`")
            if self._is_stateful:
                # a chunk of one token is taken for a decode step, whose padding would enter the Mamba state
                generation_config.prefill_chunk_size = max(generation_config.prefill_chunk_size, 2)
        return model_kwargs

    def create_masks_for_generate(self, config, **kwargs):
        """Masks of the language model's own kind, for caches of fixed size."""
        make = getattr(self.language_model, "create_masks_for_generate", default_masks)
        return make(config=config.get_text_config(), **kwargs)

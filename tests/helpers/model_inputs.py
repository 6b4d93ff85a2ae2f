"""The model at its smallest and batches made by hand: no tokenizer, no pictures, only ids, grids and random patches."""

import torch
from transformers import CONFIG_MAPPING

from encoders.radio_config import RadioEncoderConfig
from vlm.configuration_radio_vlm import RadioVLMConfig
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration

IMAGE, VIDEO, PAD, VOCABULARY = 5, 6, 0, 96
PLAIN = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
TEXT_SIZES = {
    "nemotron_h": dict(
        hidden_size=32, intermediate_size=48, hybrid_override_pattern="M*-M-", num_attention_heads=4, head_dim=8,
        num_key_value_heads=2, mamba_num_heads=4, mamba_head_dim=16, n_groups=2, ssm_state_size=8, chunk_size=8,
    ),
    "bamba": dict(
        **PLAIN, attn_layer_indices=[1], mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1, mamba_d_state=8,
        mamba_chunk_size=8, mamba_expand=2,
    ),
    "zamba2": dict(
        hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4,
        layers_block_type=["mamba", "hybrid", "mamba", "hybrid"], mamba_d_state=16, mamba_ngroups=2, n_mamba_heads=8,
        mamba_headdim=16, chunk_size=64, num_mem_blocks=1, adapter_rank=8, use_shared_attention_adapter=True,
        use_mem_rope=True,
    ),
    "gemma2": dict(**PLAIN, head_dim=8, final_logit_softcapping=2.0, query_pre_attn_scalar=8),
    "granite": dict(**PLAIN, logits_scaling=4.0),
}  # fmt: skip


def text_config(family: str = "nemotron_h", **options):
    """A tiny config of any family of transformers."""
    common = dict(vocab_size=VOCABULARY, initializer_range=0.15, pad_token_id=PAD, bos_token_id=1, eos_token_id=2)
    return CONFIG_MAPPING[family](**{**common, **TEXT_SIZES.get(family, PLAIN), **options})


def tiny_config(family: str = "nemotron_h", tubelet: int | None = None, **options) -> RadioVLMConfig:
    """Model config; options of the text part are prefixed with `text_`, those of the encoder with `tower_`."""
    text, tower = (
        {key.removeprefix(prefix): options.pop(key) for key in list(options) if key.startswith(prefix)}
        for prefix in ("text_", "tower_")
    )
    sizes = dict(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, max_img_size=64, num_cls_tokens=1, num_registers=1,
        summary_idxs=[0], initializer_range=0.15, patch_size=4, video_temporal_patch_size=tubelet,
    )  # fmt: skip
    vision = RadioEncoderConfig(**{**sizes, **tower})
    ids = dict(image_token_id=IMAGE, video_token_id=VIDEO)
    return RadioVLMConfig(vision, text_config(family, **text), **{**ids, **options})


# Everything an encoder may bring along at once, in a tower of four blocks: windows, PHI-S, features of blocks,
# class tokens. Of each picture two tokens more than its patches give.
EVERYTHING = dict(
    tower_num_hidden_layers=4, tower_num_cls_tokens=3, tower_summary_idxs=[0, 2], tower_vitdet_window_size=2,
    tower_vitdet_num_global=2, tower_feature_normalizer=True, tower_intermediate_normalizer={"rot_per_layer": False},
    tower_final_norm=True, tower_patch_bias=True,
    vision_features={"layers": [1, 2], "aggregation": "dense", "summary": True, "normalize": "layer_norm"},
)  # fmt: skip


def tiny_model(family: str = "nemotron_h", seed: int = 0, **options) -> RadioVLMForConditionalGeneration:
    """A random model in eval mode."""
    torch.manual_seed(seed)
    model = RadioVLMForConditionalGeneration(tiny_config(family, **options)).eval()
    with torch.no_grad():  # zero-initialised biases and unit norms hide mistakes
        for parameter in model.multi_modal_projector.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        tower = model.vision_model
        for normalizer in (tower.feature_normalizer, tower.intermediate_normalizer):
            for buffer in normalizer.buffers() if normalizer is not None else ():
                buffer.add_(torch.randn_like(buffer) * 0.1)
    return model


def sample(*parts, seed: int = 0, tubelet: int = 1, summary: int = 0) -> dict:
    """One sample: an int is that many text tokens, (h, w) an image of that grid, (t, h, w) a video; each picture has
    `summary` tokens beside those of its patches."""
    made = torch.Generator().manual_seed(seed)
    ids, types, images, videos = [], [], [], []
    for part in parts:
        if isinstance(part, int):
            ids += torch.randint(10, VOCABULARY, (part,), generator=made).tolist()
            types += [0] * part
        else:
            pictures, patches = part[0] if len(part) == 3 else 1, part[-1] * part[-2]
            tokens = (patches // 4 + summary) * pictures
            kind = 1 if len(part) == 2 else 2
            ids += [IMAGE if kind == 1 else VIDEO] * tokens
            types += [kind] * tokens
            width = 48 * (tubelet if kind == 2 else 1)
            pixels = torch.rand(patches * pictures, width, generator=made)
            (images if kind == 1 else videos).append((pixels, part))
    return {"ids": ids, "types": types, "images": images, "videos": videos}


def batch(*samples: dict, side: str = "left") -> dict:
    """Model inputs of samples, padded on one side."""
    length = max(len(item["ids"]) for item in samples)

    def pad(values: list[int], fill: int) -> list[int]:
        gap = [fill] * (length - len(values))
        return gap + values if side == "left" else values + gap

    out = {
        "input_ids": torch.tensor([pad(item["ids"], PAD) for item in samples]),
        "attention_mask": torch.tensor([pad([1] * len(item["ids"]), 0) for item in samples]),
        "mm_token_type_ids": torch.tensor([pad(item["types"], 0) for item in samples]),
    }
    for kind, pixels, grids in (
        ("images", "pixel_values", "image_grid_hw"),
        ("videos", "pixel_values_videos", "video_grid_thw"),
    ):
        media = [medium for item in samples for medium in item[kind]]
        if media:
            out[pixels] = torch.cat([patches for patches, _ in media])
            out[grids] = torch.tensor([grid for _, grid in media])
    return out


def mixed_samples(tubelet: int = 1, summary: int = 0) -> list[dict]:
    """Images and videos in any order, several of each, an image late, and text only."""
    parts = [
        (2, (2, 4), 3),
        (4, (2, 2, 2), 2, (4, 2), 1, (2, 2), 2),
        (7,),
        (1, (2, 2), (4, 4), 5, (1, 4, 2), 2),
        (3, (3, 2, 2), 4),
    ]
    return [sample(*part, seed=seed, tubelet=tubelet, summary=summary) for seed, part in enumerate(parts)]

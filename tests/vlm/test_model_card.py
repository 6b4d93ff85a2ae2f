"""The model card: licences by the name of the base, the results table, and that every part of it is there."""

import pytest

from vlm.model_card import licence_of, model_card, results_table
from vlm.notice import NOTICE

CONFIG = {
    "vision_config": {"hidden_size": 128, "num_hidden_layers": 3, "patch_size": 16},
    "text_config": {"model_type": "nemotron_h", "hidden_size": 64, "vocab_size": 384,
                    "layers_block_type": ["mamba", "attention", "mamba", "mlp"]},
    "projector_config": {"type": "pixel_shuffle", "downsample": 2, "norm": "rmsnorm", "activation": "relu2"},
    "geometry": {"mode": "dynamic", "min_num_patches": 4, "max_num_patches": 256},
    "video": {"max_frames": 8},
    "base_models": {"vision": "preset:tiny", "text": "preset:tiny"},
}  # fmt: skip
RESULTS = {
    "stages": {
        "stage1": {"documents": {"exact_match": 0.1, "controls": {"images_exchanged": 0.01}}},
        "stage2": {
            "documents": {
                "exact_match": 0.95,
                "controls": {"images_exchanged": 0.02},
                "kinds": {"receipt": {"exact_match": 0.97, "images_exchanged": 0.0, "n": 60}},
            },
            "medical": {"accuracy": 0.5, "controls": {"expert_withheld": 0.25}},
        },
    }
}


@pytest.mark.parametrize(
    "base, expected",
    [
        ("nvidia/C-RADIOv4-H", "nvidia-open-model-license"),
        ("local:C-RADIOv2-VLM-H", "nvidia-open-model-license"),
        ("nvidia/RADIO-L", "nvidia-source-code-license-nc"),
        ("nvidia/E-RADIO", "nvidia-source-code-license-nc"),
        ("local:c-radio_v4-h_half.pth.tar", "nvidia-open-model-license"),
        ("local:radio_v2.5-l_half.pth.tar", "nvidia-source-code-license-nc"),
        ("local:e-radio_v2.pth.tar", "nvidia-source-code-license-nc"),
        ("preset:tiny", "apache-2.0"),
        ("local:radio", None),
    ],
)
def test_licence_follows_the_base(base, expected):
    assert licence_of(base)[0] == expected


def test_the_licence_of_a_renamed_folder_is_that_of_the_release_its_weights_name():
    assert licence_of("local:mine", "c-radio_v4-h")[0] == "nvidia-open-model-license"
    vision = {**CONFIG["vision_config"], "version": "radio_v2.5-h"}
    card = model_card({**CONFIG, "vision_config": vision, "base_models": {"vision": "local:mine"}})
    assert "`local:mine`: RADIO and E-RADIO weights" in card


def test_the_encoder_row_names_windows_blocks_and_class_tokens():
    config = {
        **CONFIG,
        "vision_config": {**CONFIG["vision_config"], "vitdet_window_size": 16},
        "vision_features": {"layers": [7, 15], "aggregation": "dense", "summary": True},
        "projector_config": {**CONFIG["projector_config"], "summary_tokens": 2},
    }
    card = model_card(config)
    assert "windows of 16×16 patches, features of blocks 7, 15 (dense), 2 class tokens" in card
    assert "windows" not in model_card(CONFIG) and "class tokens" not in model_card(CONFIG)


def test_hub_licence_is_open_only_when_every_part_is():
    assert "\nlicense: apache-2.0\n" in model_card(CONFIG)
    mixed = CONFIG | {"base_models": {"vision": "nvidia/RADIO-L", "text": "preset:tiny"}}
    text = model_card(mixed)
    assert "\nlicense: other\n" in text and "non-commercial use only" in text
    assert "\nlicense: other\n" in model_card(CONFIG | {"base_models": {}}), "unknown origin is not open"


def test_results_table_has_a_row_a_stage_and_dashes_where_nothing_was_measured():
    lines = results_table(RESULTS).splitlines()
    assert lines[0] == (
        "| stage | documents: exact match | images exchanged | medical: accuracy | expert withheld | expert wrong |"
    )
    assert lines[2] == "| stage1 | 0.100 | 0.010 | – | – | – |"
    assert lines[3] == "| stage2 | 0.950 | 0.020 | 0.500 | 0.250 | – |"
    assert results_table({}) == ""


def test_the_card_says_what_a_reader_needs():
    text = model_card(CONFIG, RESULTS, name="demo")
    for needle in (
        "# demo", "pipeline_tag: image-text-to-text", "48×48 patches → 576 tokens",
        "4 layers (2 Mamba, 1 attention, 1 MLP)",
        "trust_remote_code=True", "NVIDIA Open Model License", "NSCL, non-commercial", "Stages: stage1, stage2.",
        "Not a medical device", "| stage2 | 0.950", "| receipt | 0.970 | 0.000 | 60 |",
    ):  # fmt: skip
        assert needle in text, needle
    assert "No results were given" in model_card(CONFIG)


def test_a_model_that_asks_experts_is_research_software():
    asks = {"stages": {"stage4": {"medical": {"accuracy": 0.9, "trigger_recall": 1.0}}}}
    assert NOTICE in model_card(CONFIG, asks).split("## Parts")[0]
    assert NOTICE not in model_card(CONFIG, RESULTS) and NOTICE not in model_card(CONFIG)

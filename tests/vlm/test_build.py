"""`build_vlm`: tokens by string, embeddings that grow and never shrink, parts that keep their weights."""

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, RadioConfig, RadioModel

from encoders import RadioEncoder, RadioVisionModel
from encoders.presets import VISION_PRESETS
from eval.backends.opening import load as eval_load
from llm.presets import LLM_PRESETS
from llm.tiny_tokenizer import CHAT_TOKENS, build_byte_tokenizer, byte_alphabet
from tests.helpers.model_inputs import text_config, tiny_config
from tests.helpers.radio_whole import whole_case
from training.loading import load_model as training_load
from training.recipe.loading import load_recipe
from vlm.build import build_vlm, load_vlm, tower_config
from vlm.errors import RadioVLMError
from vlm.modeling_radio_vlm import RadioVLMForConditionalGeneration
from vlm.special_tokens import check_special_tokens, fit_embeddings

GEOMETRY = {"min_num_patches": 4, "max_num_patches": 64}


def plain_tokenizer(chat_template: str | None = "{{ messages }}"):
    """A tokenizer that knows no vision token, as every language model's own."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(BPE(vocab={text: i for i, text in enumerate([*CHAT_TOKENS[:3], *byte_alphabet()])}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in CHAT_TOKENS[:3]])
    tokens = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=chat_template, **tokens)


def vision_config():
    return tiny_config().vision_config


def language_model(rows: int, tied: bool = False, family: str = "llama"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(text_config(family, vocab_size=rows, tie_word_embeddings=tied))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "nemotron_h"])
def test_growth_is_padded_and_new_rows_start_at_the_mean(tied, family):
    tokenizer, text = plain_tokenizer(), language_model(259, tied, family)
    old = {"in": text.get_input_embeddings().weight.clone(), "out": text.get_output_embeddings().weight.clone()}
    model, processor = build_vlm(vision_config(), text, tokenizer, geometry=GEOMETRY)
    assert model.config.text_config.vocab_size == 384 and len(processor.tokenizer) == 263
    assert len(tokenizer) == 259, "the caller's tokenizer is left alone"
    for table, before in ((model.get_input_embeddings(), old["in"]), (model.get_output_embeddings(), old["out"])):
        if tied and family == "nemotron_h":
            before = old["in"]  # transformers leaves NemotronH's head apart; here tied means tied
        assert table.weight.shape[0] == 384
        assert torch.equal(table.weight[:259], before)
        torch.testing.assert_close(table.weight[259:], before.mean(0).expand(125, -1))
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied


def test_padded_vocabularies_are_never_shrunk_and_their_new_rows_are_set():
    text = language_model(512)
    before = text.get_input_embeddings().weight.clone()
    model, _ = build_vlm(vision_config(), text, plain_tokenizer(), geometry=GEOMETRY)
    after = model.get_input_embeddings().weight
    assert after.shape[0] == 512
    ids = [model.config.image_token_id, model.config.video_token_id]
    torch.testing.assert_close(after[ids], before[:259].mean(0).expand(2, -1))
    assert torch.equal(after[:259], before[:259]) and torch.equal(after[263:], before[263:])


def test_tokens_are_looked_up_by_string_and_known_ones_are_not_added_twice():
    tokenizer = build_byte_tokenizer()
    model, processor = build_vlm(vision_config(), language_model(384), tokenizer, geometry=GEOMETRY)
    assert len(processor.tokenizer) == len(tokenizer)
    for role, text in model.config.special_tokens.items():
        assert getattr(model.config, f"{role}_token_id") == tokenizer.convert_tokens_to_ids(text)
    names = {"image": "<|picture|>", "video": "<|clip|>"}
    model, processor = build_vlm(
        vision_config(), language_model(384), tokenizer, geometry=GEOMETRY, special_tokens=names
    )
    assert processor.tokenizer.convert_ids_to_tokens(model.config.image_token_id) == "<|picture|>"
    assert processor.image_token_id == model.config.image_token_id
    assert processor.fingerprint == model.config.fingerprint


def test_tokens_are_compared_when_a_checkpoint_is_opened(tmp_path):
    model, processor = build_vlm(vision_config(), language_model(259), plain_tokenizer(), geometry=GEOMETRY)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    load_vlm(str(tmp_path))
    with pytest.raises(RadioVLMError, match="'<image>' as id 5"):
        check_special_tokens(model.config, build_byte_tokenizer())
    build_byte_tokenizer().save_pretrained(tmp_path)  # someone mixes two folders
    for load in (
        load_vlm,
        lambda folder: eval_load(folder, "cpu", "auto", False),
        lambda folder: training_load(load_recipe(None, [f"model={folder}"]), SimpleNamespace(bf16=False)),
    ):
        with pytest.raises(RadioVLMError, match="same checkpoint folder"):
            load(str(tmp_path))
    shared = copy.deepcopy(model.config)
    shared.special_tokens["video"], shared.video_token_id = "<no such token>", shared.image_token_id
    check_special_tokens(shared, processor.tokenizer)  # frames in the image's placeholder, as NVIDIA's
    short = copy.deepcopy(model.config)
    short.text_config.vocab_size = 100
    with pytest.raises(RadioVLMError, match="only 100 rows"):
        check_special_tokens(short, processor.tokenizer)


def test_parts_keep_their_weights_and_the_result_comes_back(tmp_path):
    torch.manual_seed(0)
    vision, text = RadioModel(vision_config()).eval(), language_model(259)
    states = [copy.deepcopy(part.state_dict()) for part in (vision, text)]
    model, processor = build_vlm(vision, text, plain_tokenizer(), geometry=GEOMETRY)
    assert all(torch.equal(model.vision_model.state_dict()[key], value) for key, value in states[0].items())
    assert not model.vision_model.training
    for key, value in states[1].items():
        assert torch.equal(model.language_model.state_dict()[key][: len(value)], value), key
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load_vlm(str(tmp_path))
    assert all(torch.equal(again.state_dict()[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("kind", [RadioModel, RadioVisionModel, RadioEncoder])
def test_every_kind_of_encoder_is_upgraded_in_place_and_keeps_its_numbers(kind):
    torch.manual_seed(0)
    config = vision_config() if kind is not RadioModel else RadioConfig.from_dict(vision_config().to_dict())
    vision = kind(config).train(False)
    pixels = torch.rand(1, 3, 32, 16)
    with torch.no_grad():
        want = vision(pixels).features
    model, _ = build_vlm(vision, language_model(259), plain_tokenizer(), geometry=GEOMETRY)
    assert model.vision_model is vision and type(vision) is RadioVisionModel and not vision.training
    with torch.no_grad():
        torch.testing.assert_close(vision(pixels).features, want, atol=1e-5, rtol=1e-4)
    # one config object for all: the model's choice of attention reaches every layer
    assert {id(m.config) for m in vision.modules() if hasattr(m, "config")} == {id(model.config.vision_config)}
    model.set_attn_implementation({"vision_config": "eager"})
    assert {layer.attention.config._attn_implementation for layer in vision.encoder.layer} == {"eager"}


def test_heads_are_dropped_with_a_word_and_normalizers_stay(tmp_path, caplog):
    encoder = RadioEncoder.from_pretrained(whole_case().write_remote(tmp_path / "radio"))
    assert encoder.adaptors and encoder.config.cpe_training
    pixels = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        want = encoder(pixels).features
    options = {"vitdet_window_size": 2, "vitdet_num_global": 2}
    with caplog.at_level("INFO"):
        model, _ = build_vlm(encoder, language_model(259), plain_tokenizer(), geometry=GEOMETRY)
    assert "teacher heads stay behind" in caplog.text and "siglip2-g" in caplog.text
    assert not any("adaptors" in name for name in model.state_dict()) and model.config.vision_config.adaptors is None
    with torch.no_grad():
        assert torch.equal(model.vision_model(pixels).features, want), "PHI-S stays"
        windowed, _ = build_vlm(
            encoder, language_model(259), plain_tokenizer(), geometry=GEOMETRY, vision_options=options
        )
        assert (windowed.vision_model(pixels).features - want).abs().max() > 1e-2
    assert windowed.config.geometry["multiple"] == 2 and windowed.config.vision_config.vitdet_window_size == 2


def test_positions_are_drawn_in_training_only_when_asked_for(tmp_path):
    source = whole_case(heads=False).write_remote(tmp_path / "radio")
    for asked in (False, True):
        options = {"cpe_training": True, "pos_dropout": 0.0} if asked else None
        model, _ = build_vlm(
            RadioEncoder.from_pretrained(source), language_model(259), plain_tokenizer(), vision_options=options
        )
        tower, pixels = model.train().vision_model, torch.rand(1, 3, 64, 64)
        assert model.config.vision_config.cpe_training == asked
        assert torch.equal(tower(pixels).features, tower(pixels).features) != asked
        model.save_pretrained(tmp_path / "saved")
        again = RadioVLMForConditionalGeneration.from_pretrained(tmp_path / "saved")
        assert again.vision_model.embeddings.cpe_training == asked


def test_vision_options_are_checked():
    for options, message in (
        ({"hidden_size": 4}, "unknown vision options hidden_size"),
        ({"vitdet_window_size": 2, "vitdet_num_global": 2}, "no windowed block among 2"),
    ):
        with pytest.raises(RadioVLMError, match=message):
            build_vlm(vision_config(), language_model(259), plain_tokenizer(), vision_options=options)


def test_the_schedule_of_a_release_goes_with_its_window():
    config = VISION_PRESETS["C-RADIOv2-VLM-H"].config()
    assert tower_config(config, {"vitdet_window_size": 16}).vitdet_num_global == 8
    assert tower_config(config, {"vitdet_window_size": 16, "vitdet_num_global": 4}).vitdet_num_global == 4
    assert tower_config(config, {"vitdet_window_size": 16, "vitdet_num_windowed": 5}).vitdet_num_global is None
    assert tower_config(config, {"vitdet_window_size": 0}).vitdet_window_size is None


def test_half_precision_parts_give_a_projector_of_the_same_kind():
    text = language_model(259).to(torch.bfloat16)
    vision = RadioModel(vision_config()).to(torch.bfloat16)
    model, _ = build_vlm(vision, text, plain_tokenizer(), geometry=GEOMETRY)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_a_claimed_tie_without_tied_weights_is_taken_back():
    text = language_model(259)
    text.config.tie_word_embeddings = True
    head = text.get_output_embeddings().weight.clone()
    model, _ = build_vlm(vision_config(), text, plain_tokenizer(), geometry=GEOMETRY)
    assert not model.config.tie_word_embeddings
    assert torch.equal(model.get_output_embeddings().weight[:259], head)


def test_generation_stops_at_the_end_of_a_turn():
    text = language_model(259)
    text.generation_config.eos_token_id, text.generation_config.temperature = 7, 0.3
    model, processor = build_vlm(vision_config(), text, plain_tokenizer(None), geometry=GEOMETRY)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert processor.tokenizer.encode("<|im_end|>", add_special_tokens=False) == [end]
    assert set(model.generation_config.eos_token_id) == {2, 7, end}
    assert model.generation_config.temperature == 0.3 and model.generation_config.pad_token_id == 0


@pytest.mark.parametrize("vision", VISION_PRESETS)
@pytest.mark.parametrize("text", LLM_PRESETS)
def test_presets_combine_on_the_meta_device(vision, text):
    with torch.device("meta"):
        model, _ = build_vlm(
            VISION_PRESETS[vision].config(), LLM_PRESETS[text].config(), build_byte_tokenizer(), geometry=GEOMETRY
        )
    parts = [sum(p.numel() for p in part.parameters()) for part in (model.vision_model, model.language_model)]
    assert parts == [VISION_PRESETS[vision].parameters, LLM_PRESETS[text].parameters]


def test_nemotron_nano_v2_vl_has_its_published_size():
    """13.17B: Nano-12B-v2 + C-RADIOv2-VLM-H + a projector of 209.7M."""
    with torch.device("meta"):
        model, _ = build_vlm(
            VISION_PRESETS["C-RADIOv2-VLM-H"].config(),
            LLM_PRESETS["Nemotron-Nano-12B-v2"].config(),
            build_byte_tokenizer(),
        )
    assert sum(p.numel() for p in model.multi_modal_projector.parameters()) == 5120 + 2 * 5120 * 20480
    assert round(sum(p.numel() for p in model.parameters()) / 1e9, 2) == 13.17


def test_fit_embeddings_without_new_tokens_changes_nothing():
    text = language_model(259)
    before = text.get_input_embeddings().weight.clone()
    fit_embeddings(text, 259, 259, [])
    assert torch.equal(text.get_input_embeddings().weight, before)

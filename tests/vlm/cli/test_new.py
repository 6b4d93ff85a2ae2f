"""`radio-vlm new`: presets, ids and folders; what it refuses; the plan at real size without weights."""

import json
from pathlib import Path

import pytest
import torch

from encoders import RadioEncoder
from tests.helpers.radio_fixtures import FIXTURES, Case
from tests.helpers.radio_whole import whole_case
from vlm.cli.main import main
from vlm.cli.parts import parse_pairs
from vlm.errors import RadioVLMError


def radio_case(name: str) -> Case:
    return whole_case(heads=False) if name == "phi-s" else Case(FIXTURES / name)


def new(*words: str) -> int:
    return main(["new", *map(str, words)])


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A RADIO folder and a language-model folder, as `from_pretrained` takes them."""
    from transformers import AutoModelForCausalLM, RadioModel

    from encoders.presets import VISION_PRESETS
    from llm.presets import LLM_PRESETS

    torch.manual_seed(7)
    folder = tmp_path_factory.mktemp("parts")
    RadioModel(VISION_PRESETS["tiny"].config()).save_pretrained(folder / "radio")
    AutoModelForCausalLM.from_config(LLM_PRESETS["tiny"].config()).save_pretrained(folder / "llm")
    LLM_PRESETS["tiny"].tokenizer().save_pretrained(folder / "llm")
    return folder


def test_tiny_preset_makes_a_checkpoint_that_opens(tmp_path, capsys):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    assert new("--preset", "tiny", "--out", tmp_path / "a") == 0
    shown = capsys.readouterr().out
    assert "vision_model" in shown and "multi_modal_projector" in shown and "tokens" in shown
    model, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert type(AutoProcessor.from_pretrained(tmp_path / "a")).__name__ == "RadioVLMProcessor"
    assert model.config.base_models == {"vision": "preset:tiny", "text": "preset:tiny"}
    assert f"{sum(p.numel() for p in model.parameters()):,}" in shown


def test_the_seed_decides_the_weights(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert new("--preset", "tiny", "--seed", seed, "--out", tmp_path / name) == 0
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b and a != c


def test_folders_keep_their_weights(parts, tmp_path):
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, RadioModel

    out = tmp_path / "vlm"
    assert new("--vision", parts / "radio", "--llm", parts / "llm", "--preset", "tiny", "--out", out) == 0
    model = AutoModelForImageTextToText.from_pretrained(out)
    for part, source in (
        (model.vision_model, RadioModel.from_pretrained(parts / "radio")),
        (model.language_model, AutoModelForCausalLM.from_pretrained(parts / "llm")),
    ):
        own = part.state_dict()
        for name, value in source.state_dict().items():
            assert torch.equal(own[name][: value.shape[0]] if value.ndim else own[name], value), name
    assert model.config.base_models == {"vision": "local:radio", "text": "local:llm"}


def test_projector_geometry_and_video_options_arrive(tmp_path):
    out = tmp_path / "vlm"
    options = ["--projector", "norm=layernorm", "activation=gelu", "bias=true", "hidden_size=48"]
    options += ["--geometry", "mode=dynamic", "min_num_patches=4", "max_num_patches=64", "--video", "max_frames=5"]
    assert new("--preset", "tiny", *options, "--out", out) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["projector_config"]["norm"] == "layernorm" and config["projector_config"]["hidden_size"] == 48
    assert config["geometry"]["max_num_patches"] == 64 and config["video"]["max_frames"] == 5


@pytest.mark.parametrize(
    "words, message",
    [
        (["--vision", "nonsense", "--llm", "tiny"], "C-RADIOv4-H"),
        (["--vision", "tiny", "--llm", "nonsense"], "nvidia/NVIDIA-Nemotron-Nano-9B-v2"),
        (["--vision", "./nowhere", "--llm", "tiny"], "no folder ./nowhere"),
        (["--vision", "tiny"], "name both parts"),
        (["--preset", "huge"], "unknown 'huge'; known: tiny"),
        (["--preset", "tiny", "--projector", "hidden_size"], "expected KEY=VALUE"),
        (["--preset", "tiny", "--projector", "type=nonsense"], "pixel_shuffle"),
        (
            ["--preset", "tiny", "--projector", "downsampl=4"],
            "unknown key downsampl; known: activation, bias, downsample",
        ),
        (["--preset", "tiny", "--video", "frames=4"], "unknown key frames; known: fps"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_known_names(words, message, tmp_path, capsys):
    assert new(*words, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_out_is_needed_and_must_not_hold_something_else(tmp_path, capsys):
    assert new("--preset", "tiny") == 2 and "--out is missing" in capsys.readouterr().err
    (tmp_path / "thesis.txt").write_text("years of work")
    assert new("--preset", "tiny", "--out", tmp_path) == 2 and "not empty" in capsys.readouterr().err


def test_an_encoder_that_is_no_radio_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert new("--vision", tmp_path, "--llm", "tiny", "--out", tmp_path / "out") == 2
    assert "not that of a RADIO encoder: its model_type is 'clip'" in capsys.readouterr().err


def test_radio_weights_that_do_not_fit_their_config_are_refused(parts, tmp_path, capsys):
    import shutil

    shutil.copytree(parts / "radio", tmp_path / "radio")
    config = json.loads((tmp_path / "radio/config.json").read_text())
    config["num_hidden_layers"] += 1
    (tmp_path / "radio/config.json").write_text(json.dumps(config))
    assert new("--vision", tmp_path / "radio", "--llm", "tiny", "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert message.startswith("radio-vlm new: --vision: ") and "weights are missing: encoder.layer.3" in message
    assert message.count("\n") == 1 and not (tmp_path / "out").exists()


def test_the_plan_at_real_size_needs_no_weights_and_no_network(tmp_path, capsys):
    assert new("--vision", "nvidia/C-RADIOv4-H", "--llm", "nvidia/NVIDIA-Nemotron-Nano-9B-v2", "--meta") == 0
    shown = capsys.readouterr().out
    assert "nvidia/C-RADIOv4-H" in shown and "language_model" in shown
    assert not list(tmp_path.iterdir())


def test_list_names_presets_and_hub_ids(capsys):
    assert new("--list") == 0
    shown = capsys.readouterr().out
    assert "nvidia/C-RADIOv4-H" in shown and "tiny" in shown


def test_parse_pairs():
    assert parse_pairs(["a=1", "b=0.5", "c=true", "d=none", "e=x", "size=512,256"], "--o") == {
        "a": 1, "b": 0.5, "c": True, "d": None, "e": "x", "size": [512, 256],
    }  # fmt: skip
    with pytest.raises(RadioVLMError, match="--o: expected KEY=VALUE"):
        parse_pairs(["=1"], "--o")


def opened(folder):
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def features_agree(model, encoder) -> None:
    """The tower of a VLM gives the features of the encoder it was made from."""
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want, got = encoder(pixels), model.vision_model(pixels)
    torch.testing.assert_close(got.features, want.features, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(got.summary, want.summary, atol=1e-5, rtol=1e-4)


# beside the plain case what the native class would drop without a word: layer scale and normalizers
@pytest.mark.parametrize("form", ["remote", "hub", "ours"])
@pytest.mark.parametrize("name", ["a_plain", "h_layerscale", "e_intermediates_norm", "phi-s"])
def test_every_form_of_a_radio_checkpoint_opens_in_full(name, form, tmp_path, capsys):
    case = radio_case(name)
    source = case.write_hub(tmp_path / "x.pth.tar") if form == "hub" else case.write_remote(tmp_path / "C-RADIO-mine")
    if form == "ours":
        RadioEncoder.from_pretrained(source).save_pretrained(tmp_path / "ours")
        source = tmp_path / "ours"
    out = tmp_path / "out"
    assert new("--vision", source, "--llm", "tiny", "--out", out) == 0
    shown, model = capsys.readouterr().out, opened(out)
    assert model.config.base_models["vision"] == f"local:{source.name}" and f"local:{source.name}" in shown
    assert "weights used" in shown
    features_agree(model, RadioEncoder.from_pretrained(source))


def test_teacher_heads_stay_behind_by_name(tmp_path, capsys):
    case, out = whole_case(), tmp_path / "out"
    source = case.write_remote(tmp_path / "mine")
    assert RadioEncoder.from_pretrained(source).adaptors, "the folder asks for its heads"
    assert new("--vision", source, "--llm", "tiny", "--out", out) == 0
    shown = capsys.readouterr().out
    heads = sorted(case.facts["adaptor_configs"])
    assert f"heads left out         {', '.join(heads)}" in shown
    model = opened(out)
    assert not any("adaptors" in name for name in model.state_dict()) and not model.config.vision_config.adaptors
    assert model.config.vision_heads_left_out == heads
    assert main(["inspect", "--model", str(out)]) == 0 and ", ".join(heads) in capsys.readouterr().out


def test_windows_and_features_arrive(tmp_path, capsys):
    out = tmp_path / "out"
    source = radio_case("b_vitdet_global2").write_remote(tmp_path / "mine", vitdet_window_size=None)
    words = ["--vision", source, "--llm", "tiny", "--vitdet-window", 2, "--vitdet-num-global", 2]
    words += ["--features", "layers=2,-1", "aggregation=dense", "summary=true", "normalize=layer_norm"]
    assert new(*words, "--cpe-training", "--out", out) == 0
    shown, config = capsys.readouterr().out, json.loads((out / "config.json").read_text())
    assert "windows of 2×2 patches; global in blocks 2, 5" in shown and "blocks 2, 5" in shown
    assert config["vision_config"]["model_type"] == "radio_encoder" and config["vision_config"]["cpe_training"]
    wanted = {"layers": [2, 5], "aggregation": "dense", "summary": True, "normalize": "layer_norm"}
    assert config["vision_features"] == wanted and config["projector_config"]["summary_tokens"] == 2
    features_agree(opened(out), RadioEncoder.from_pretrained(source, vitdet_window_size=2, vitdet_num_global=2))
    assert main(["inspect", "--model", str(out)]) == 0
    assert "windows of 2×2 patches; global in blocks 2, 5" in capsys.readouterr().out


def test_windows_of_a_checkpoint_are_kept_and_0_switches_them_off(tmp_path, capsys):
    args = ["--llm", "tiny", "--meta", "--vision", radio_case("b_vitdet_global2").write_remote(tmp_path / "mine")]
    case = radio_case("b_vitdet_global2")
    assert case.facts["vitdet_window_size"] == 2
    assert new(*args, "--vitdet-window", 0) == 0 and "global in every block" in capsys.readouterr().out
    assert new(*args, "--vitdet-window", 2, "--vitdet-num-global", 3) == 0
    assert "windows of 2×2 patches; global in blocks 1, 3, 5" in capsys.readouterr().out
    RadioEncoder.from_pretrained(args[-1], vitdet_num_global=2).save_pretrained(tmp_path / "ours")
    assert new(*args[:-1], tmp_path / "ours") == 0
    assert "windows of 2×2 patches; global in blocks 2, 5" in capsys.readouterr().out


def test_positions_of_a_vlm_in_training_are_those_of_evaluation_unless_asked(tmp_path):
    source = radio_case("a_plain").write_remote(tmp_path / "mine")
    assert new("--vision", source, "--llm", "tiny", "--out", tmp_path / "a") == 0
    assert new("--vision", source, "--llm", "tiny", "--cpe-training", "--out", tmp_path / "b") == 0
    for name, drawn in (("a", False), ("b", True)):
        tower = opened(tmp_path / name).vision_model.train()
        pixels = torch.rand(1, 3, 64, 64)
        assert torch.equal(tower(pixels).features, tower(pixels).features) != drawn


@pytest.mark.parametrize(
    "words, message",
    [
        (["--features", "layer=1"], "--features: unknown key layer; known: aggregation, layers, normalize, summary"),
        (["--features", "layers=9"], "vision_config has blocks 0 to 2"),
        (["--features", "layers=x"], "must be a list of block numbers"),
        (["--vitdet-num-global", "1"], "--vitdet-num-global needs --vitdet-window"),
        (["--vitdet-window", "-1"], "numbers from 0 on"),
        (["--vitdet-window", "0", "--vitdet-num-global", "1"], "--vitdet-num-global needs --vitdet-window"),
        (["--vitdet-window", "4"], "no windowed block among 3"),
        (["--vitdet-window", "16", "--vitdet-num-global", "1"], "video['max_num_patches'] (64)"),
        (["--vitdet-window", "4", "--vitdet-num-global", "1", "--geometry", "multiple=6"], "vitdet_window_size (4)"),
        (["--projector", "summary_tokens=2"], "unknown key summary_tokens"),
    ],
)
def test_features_and_windows_that_cannot_be_are_refused(words, message, tmp_path, capsys):
    assert new("--preset", "tiny", *words, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, message",
    [
        ("e-radio_v2", "not supported yet"),
        ("radio_v2.5-l", "give the path of its .pth.tar file"),
        ("nvidia/C-RADIOv3-H", "nothing may be downloaded"),
    ],
)
def test_releases_that_cannot_be_planned_say_why(name, message, capsys):
    assert new("--vision", name, "--llm", "tiny", "--meta") == 2
    assert message in capsys.readouterr().err


def test_a_preset_says_what_its_checkpoint_held_once_it_is_loaded(tmp_path, monkeypatch, capsys):
    """As with an id on the hub: the plan comes from the name, the weights and their heads from the checkpoint."""
    from encoders import presets

    source = whole_case().write_remote(tmp_path / "nvidia")
    config = RadioEncoder.from_pretrained(source, weights=False).config
    preset = presets.VisionPreset(hub_id=str(source), config=lambda: config, parameters=0)
    monkeypatch.setitem(presets.VISION_PRESETS, "C-RADIO-mine", preset)
    assert new("--vision", "C-RADIO-mine", "--llm", "tiny", "--meta") == 0
    assert "weights used" not in capsys.readouterr().out
    assert new("--vision", "C-RADIO-mine", "--llm", "tiny", "--out", tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "weights used" in shown and "left out" in shown
    assert opened(tmp_path / "out").config.vision_heads_left_out == ["dino_v3_7b", "siglip2-g"]


def test_a_release_is_planned_by_its_name_with_its_own_schedule(capsys):
    assert new("--vision", "c-radio_v2-vlm-h", "--llm", "tiny", "--vitdet-window", 8, "--meta") == 0
    assert "global in blocks 3, 7, 11, 15, 19, 23, 27, 31" in capsys.readouterr().out


def test_hub_files_with_code_in_them_are_refused(tmp_path, capsys):
    import pickle

    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pth.tar").write_bytes(pickle.dumps({"state_dict": Evil(), "args": {}}))
    assert new("--vision", tmp_path / "evil.pth.tar", "--llm", "tiny", "--out", tmp_path / "out") == 2
    assert "--vision: " in capsys.readouterr().err and not (tmp_path / "ran").exists()


def test_a_language_model_with_a_missing_weight_is_refused_not_filled_in(parts, tmp_path, capsys):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(parts / "llm", tmp_path / "llm")
    weights = load_file(tmp_path / "llm/model.safetensors")
    weights.pop(next(name for name in weights if name.endswith("norm.weight")))
    save_file(weights, tmp_path / "llm/model.safetensors", metadata={"format": "pt"})
    assert new("--vision", "tiny", "--llm", tmp_path / "llm", "--out", tmp_path / "out") == 2
    assert "--llm" in (message := capsys.readouterr().err) and "do not fit its config" in message


def test_dtype(tmp_path):
    from transformers import AutoModelForImageTextToText

    assert new("--preset", "tiny", "--dtype", "bfloat16", "--out", tmp_path) == 0
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto")
    assert model.get_input_embeddings().weight.dtype == torch.bfloat16
    islands = [name for name, value in model.named_parameters() if value.dtype == torch.float32]
    assert any("A_log" in name for name in islands) and any("position_embedding" in name for name in islands)


def test_geometries_have_names_and_modes_replace_the_presets_fields(tmp_path, capsys):
    fold = ("--projector", "downsample=3", "odd_grids=pad")
    assert new("--preset", "tiny", "--geometry", "nemotron-nano-v2-vl", "max_tiles=6", *fold, "--meta") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("512×512", "1240×1754"))]
    assert rows[0][-1] == "121", "32 x 32 patches filled up to 33 x 33: 11 x 11 blocks"
    assert rows[1][1] == "7" and int(rows[1][-1]) == 7 * 121, "six tiles and a thumbnail"
    assert new("--preset", "tiny", "--geometry", "mode=tiles", "tile_size=64", "--out", tmp_path / "m") == 0
    written = json.loads((tmp_path / "m/config.json").read_text())["geometry"]
    assert written["mode"] == "tiles" and "max_num_patches" not in written
    assert new("--preset", "tiny", "--geometry", "nemotron", "--meta") == 2
    assert "nemotron-omni" in capsys.readouterr().err

"""`radio-vlm new`: presets, ids and folders; what it refuses; the plan at real size without weights."""

import json
from pathlib import Path

import pytest
import torch

from vlm.cli.main import main
from vlm.cli.parts import parse_pairs
from vlm.errors import RadioVLMError

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


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


def test_remote_code_radio_folders_are_refused_not_opened_as_vit_h(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    config = {
        "architectures": ["RADIOModel"],
        "args": {"model": "vit_base_patch16_224"},
        "auto_map": {"AutoModel": "x"},
    }
    (tmp_path / "mine/config.json").write_text(json.dumps(config))
    assert new("--vision", tmp_path / "mine", "--llm", "tiny", "--out", tmp_path / "out") == 2
    message = capsys.readouterr().err
    assert "remote-code kind" in message and "ViT-H" in message


def test_an_encoder_that_is_no_radio_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    assert new("--vision", tmp_path, "--llm", "tiny", "--out", tmp_path / "out") == 2
    assert "`clip` model, not a RADIO" in capsys.readouterr().err


def test_radio_weights_that_do_not_fit_their_config_are_refused(parts, tmp_path, capsys):
    import shutil

    shutil.copytree(parts / "radio", tmp_path / "radio")
    config = json.loads((tmp_path / "radio/config.json").read_text())
    config["num_hidden_layers"] += 1
    (tmp_path / "radio/config.json").write_text(json.dumps(config))
    assert new("--vision", tmp_path / "radio", "--llm", "tiny", "--out", tmp_path / "out") == 2
    assert "do not fit its config" in capsys.readouterr().err


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


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A RADIO checkpoint as NVIDIA publishes them (config.json with `args`, original weight names), and its preset."""
    from functools import partial

    from safetensors.torch import load_file, save_file
    from transformers import RadioConfig

    from encoders import presets

    config = partial(
        RadioConfig, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, image_size=256, max_img_size=256,
        num_cls_tokens=3, num_registers=5, summary_idxs=[0, 1], video_temporal_patch_size=None,
    )  # fmt: skip
    preset = presets.VisionPreset(hub_id="nvidia/C-RADIO-fixture", config=config, parameters=0)
    monkeypatch.setitem(presets.VISION_PRESETS, "C-RADIO-fixture", preset)
    weights = load_file(FIXTURES / "radio_plain/weights.safetensors")

    def write(extra: dict | None = None, name: str = "C-RADIO-fixture"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(
            '{"architectures": ["RADIOModel"], "args": {"model": "vit_base_patch16_224"}}'
        )
        save_file(weights | (extra or {}), folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return write


def test_a_published_radio_opens_with_its_presets_sizes_and_all_its_weights(published, tmp_path):
    from transformers import AutoModelForImageTextToText

    adaptor = {"radio_model.adaptors.sam3.head_mlp.fc1.weight": torch.zeros(2, 2)}
    out = tmp_path / "out"
    assert new("--vision", published(adaptor), "--llm", "tiny", "--out", out) == 0, "teacher heads may stay behind"
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert (
        model.config.vision_config.hidden_size == 64 and model.config.base_models["vision"] == "local:C-RADIO-fixture"
    )
    from safetensors.torch import load_file

    given = load_file(FIXTURES / "radio_plain/weights.safetensors")
    query = given["radio_model.model.blocks.3.attn.qkv.weight"][:64]
    found = dict(model.vision_model.named_parameters())
    assert any(torch.equal(value, query) for value in found.values() if value.shape == query.shape)


@pytest.mark.parametrize(
    "extra",
    [
        {"radio_model.model.blocks.0.ls1.grandma": torch.full((64,), 0.1)},
        {"radio_model.feature_normalizer.mean": torch.zeros(64)},
        {"radio_model.model.norm.weight": torch.zeros(64)},
    ],
    ids=["layer scale", "feature normaliser", "final norm"],
)
def test_published_weights_that_would_be_dropped_in_silence_are_refused(published, extra, tmp_path, capsys):
    assert new("--vision", published(extra), "--llm", "tiny", "--out", tmp_path / "out") == 2
    assert "do not fit its config" in capsys.readouterr().err


def test_a_published_radio_of_another_size_than_its_name_says_is_refused(published, tmp_path, capsys):
    assert new("--vision", published(name="C-RADIOv4-H"), "--llm", "tiny", "--out", tmp_path / "out") == 2
    assert "do not fit its config" in capsys.readouterr().err


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

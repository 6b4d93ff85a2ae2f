"""An exported checkpoint opens, computes the same and saves itself again where radio-vlm is not installed."""

import json
import re
import shutil

import pytest
import torch
from transformers import AutoProcessor
from transformers.dynamic_module_utils import get_imports, get_relative_imports

import vlm  # noqa: F401
from tests.helpers.bare_env import ROOTS, build, run_bare
from tests.helpers.bare_reference import check_bare, write_reference
from vlm.export import ExportError, export, write_remote_code
from vlm.self_contained import flatten_imports

ALLOWED = {"torch", "transformers", "PIL", "numpy", "safetensors"}  # transformers brings the last two


@pytest.fixture(scope="module")
def tiny():
    """An untrained tiny model with its processor."""
    from tests.helpers.tiny_vlm import build_tiny

    return build_tiny()


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    """What training leaves: `save_pretrained` of both, and files that do not belong to a hand-over."""
    folder = tmp_path_factory.mktemp("checkpoint") / "stage4"
    for part in tiny:
        part.save_pretrained(folder)
    (folder / "optimizer.pt").write_text("large")
    (folder.parent / "results.json").write_text(
        json.dumps({"stages": {"stage4": {"documents": {"exact_match": 0.5, "controls": {"images_exchanged": 0.1}}}}})
    )
    return folder


@pytest.fixture(scope="module")
def exported(checkpoint):
    return export(checkpoint, checkpoint.parent / "export")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return build(tmp_path_factory.mktemp("bare") / "site")


@pytest.fixture(scope="module")
def reference(tiny, tmp_path_factory):
    """The package's own results for an image and a video given as frames."""
    return write_reference(*tiny, tmp_path_factory.mktemp("reference") / "reference.pt")


def assert_same(found):
    assert found["same_inputs"]
    for auto in ("AutoModel", "AutoModelForImageTextToText"):
        assert found[auto]["class"] == "RadioVLMForConditionalGeneration"
        assert found[auto]["largest_difference"] <= 1e-5
        assert found[auto]["same_generation"]
    assert found["pipeline_same_text"], found["pipeline_text"]


def test_bare_environment_gives_the_same_and_saves_itself_whole(bare, exported, reference, tmp_path):
    found, again = check_bare(bare, exported, reference, tmp_path / "first")
    assert_same(found)
    shutil.rmtree(tmp_path / "first/hf", ignore_errors=True)
    found, twice = check_bare(bare, again, reference, tmp_path / "second")
    assert_same(found)
    code = {path.name: path.read_text() for path in exported.glob("*.py")}
    for folder in (again, twice):
        assert {path.name: path.read_text() for path in folder.glob("*.py")} == code


def test_save_pretrained_alone_is_a_self_contained_folder(bare, checkpoint, reference, tmp_path):
    found, _ = check_bare(bare, checkpoint, reference, tmp_path / "run")
    assert_same(found)


def test_the_code_of_the_model_card_runs_from_a_hub_id(bare, exported, tmp_path):
    """The loader takes another path for hub ids than for folders: here one that stands in the cache already."""
    blocks = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) == 1
    repository, commit = tmp_path / "hf/hub/models--me--demo", "0" * 40
    shutil.copytree(exported, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text(commit)
    head = "from PIL import Image\nfolder = 'me/demo'\nquestion = 'TOTAL?'\nimage = Image.new('RGB', (64, 48))\n"
    done = run_bare(head + blocks[0], bare, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


# towers beyond the native class, and what is used of them
BEYOND = {
    "phi-s": {"features": {"normalize": "layer_norm"}},
    "blocks": {"features": {"layers": [1, 2], "aggregation": "dense", "summary": True, "normalize": "layer_norm"}},
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_tower_with_windows_normalizers_and_heads_opens_bare(name, bare, tmp_path):
    """Its heads stay behind; windows, PHI-S, features of blocks and class tokens give the same numbers bare."""
    from encoders import RadioEncoder
    from tests.helpers.radio_whole import whole_case
    from tests.helpers.tiny_vlm import build_tiny

    source = whole_case().write_remote(tmp_path / "radio")
    encoder = RadioEncoder.from_pretrained(source, vitdet_window_size=2, vitdet_num_global=2)
    assert encoder.adaptors and encoder.config.feature_normalizer
    geometry = {"min_num_patches": 4, "max_num_patches": 256}
    model, processor = build_tiny(vision=encoder, geometry=geometry, **BEYOND[name])
    folder = tmp_path / "stage4"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    exported = export(folder, tmp_path / "export")
    reference = write_reference(model, processor, tmp_path / "reference.pt")
    if name == "phi-s":  # a control: the export test would see a lost normalizer
        kept = torch.load(reference, weights_only=False)
        model.vision_model.feature_normalizer.tx.copy_(torch.eye(64))
        with torch.inference_mode():
            assert (model(**kept["inputs"]).logits - kept["logits"]).abs().max() > 1e-3
    found, again = check_bare(bare, exported, reference, tmp_path / "first")
    assert_same(found)
    config = json.loads((again / "config.json").read_text())["vision_config"]
    assert config["model_type"] == "radio_encoder" and config["vitdet_window_size"] == 2 and not config.get("adaptors")
    card = (exported / "README.md").read_text()
    assert "windows of 2×2 patches" in card and ("2 class tokens" in card) == (name == "blocks")


def test_files_obey_the_loader(exported):
    """What transformers' scanner sees is what the code imports, docstrings included, and every file is there."""
    for path in exported.glob("*.py"):
        text, needed = flatten_imports(path.read_text(), path.name)
        assert text == path.read_text(), "a second pass changes nothing"
        assert set(get_relative_imports(path)) == {module[1:] for module in needed}, path.name
        assert all((exported / f"{module[1:]}.py").is_file() for module in needed)
        foreign = set(get_imports(path)) - ALLOWED
        import sys

        assert foreign <= sys.stdlib_module_names, f"{path.name} needs {foreign}"


def test_only_the_chosen_projector_is_carried(exported):
    names = {path.stem for path in exported.glob("*.py")}
    assert "pixel_shuffle" in names and "mlp" not in names
    assert "pkgutil" not in (exported / "components.py").read_text()


def test_auto_maps(exported):
    config = json.loads((exported / "config.json").read_text())
    assert set(config["auto_map"]) == {
        "AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor", "AutoImageProcessor",
    }  # fmt: skip
    processor = json.loads((exported / "processor_config.json").read_text())
    assert processor["auto_map"]["AutoProcessor"] == "processing_radio_vlm.RadioVLMProcessor"
    assert (
        processor["image_processor"]["auto_map"]["AutoImageProcessor"]
        == "image_processing_radio_vlm.RadioVLMImageProcessor"
    )


def test_hand_over_has_the_weights_byte_for_byte_and_nothing_of_the_training(checkpoint, exported):
    names = {path.name for path in exported.iterdir()}
    assert {"README.md", "config.json", "generation_config.json", "chat_template.jinja", "tokenizer.json"} <= names
    assert "optimizer.pt" not in names
    for path in checkpoint.glob("*.safetensors"):
        assert (exported / path.name).read_bytes() == path.read_bytes()
    assert "| stage4 | 0.500 | 0.100 |" in (exported / "README.md").read_text()


def test_every_named_template_is_handed_over(checkpoint, tmp_path):
    source = tmp_path / "named"
    shutil.copytree(checkpoint, source)
    processor = AutoProcessor.from_pretrained(source)
    processor.chat_template = {"default": processor.chat_template, "short": "{{ messages[0]['content'] }}"}
    processor.save_pretrained(source)
    out = export(source, tmp_path / "out")
    assert AutoProcessor.from_pretrained(out).chat_template == processor.chat_template
    (source / "additional_chat_templates/short.jinja").rename(source / "additional_chat_templates/brief.jinja")
    export(source, out)
    assert set(AutoProcessor.from_pretrained(out).chat_template) == {"default", "brief"}


def test_write_remote_code_writes_what_save_pretrained_writes(tiny, exported, tmp_path):
    written = write_remote_code(*tiny, tmp_path)
    assert {path.name for path in written} == {path.name for path in exported.glob("*.py")}
    assert all(path.read_text() == (exported / path.name).read_text() for path in written)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), "only `radio_vlm` checkpoints"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model"),
        (lambda folder: (folder / "processor_config.json").unlink(), "no processor_config.json"),
    ],
)
def test_a_broken_checkpoint_is_named(checkpoint, tmp_path, spoil, message):
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint, folder)
    spoil(folder)
    with pytest.raises(ExportError, match=message):
        export(folder, tmp_path / "out")


def test_an_earlier_export_is_replaced_whole_and_anything_else_is_left_alone(checkpoint, tmp_path):
    out = export(checkpoint, tmp_path / "out")
    (out / "model-00002-of-00002.safetensors").write_text("stale")
    (out / "notes.txt").write_text("mine")
    export(checkpoint, out)
    names = {path.name for path in out.iterdir()}
    assert "model-00002-of-00002.safetensors" not in names and {"notes.txt", "model.safetensors"} <= names
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.py").write_text("years of work")
    with pytest.raises(ExportError, match="not empty"):
        export(checkpoint, tmp_path / "other")
    assert (tmp_path / "other/thesis.py").is_file()


def test_export_over_itself_and_from_nowhere_are_refused(checkpoint, tmp_path):
    with pytest.raises(ExportError, match="the checkpoint itself"):
        export(checkpoint, checkpoint)
    with pytest.raises(ExportError, match="no folder"):
        export(tmp_path / "nowhere", tmp_path / "out")


def test_the_bare_environment_is_bare(bare):
    assert {"torch", "transformers", "PIL"} <= {path.name for path in bare.iterdir()}
    assert not {"vlm", "accelerate", "peft", "torchvision", "deepspeed"} & {path.name for path in bare.iterdir()}
    assert ROOTS == ("torch", "transformers", "pillow")

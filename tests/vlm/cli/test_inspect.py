"""`radio-vlm inspect`: its numbers are those of the model, the processor and the training code."""

from pathlib import Path

import pytest
from PIL import Image

from vlm.cli.main import main
from vlm.cli.tables import count, text_table

RECIPES = Path(__file__).resolve().parents[3] / "training/recipes/tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from tests.helpers.tiny_vlm import build_tiny

    folder = tmp_path_factory.mktemp("inspect")
    for part in build_tiny():
        part.save_pretrained(folder / "model")
    Image.new("RGB", (160, 96)).save(folder / "page.png")
    return folder


def inspect(capsys, *words) -> str:
    assert main(["inspect", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_parameters_geometry_and_versions(folder, capsys):
    from transformers import AutoModelForImageTextToText

    shown = inspect(capsys, "--model", folder / "model")
    model = AutoModelForImageTextToText.from_pretrained(folder / "model")
    assert f"{sum(p.numel() for p in model.parameters()):,}" in shown
    for needle in (
        "vision_model",
        "multi_modal_projector",
        "language_model",
        "type=pixel_shuffle",
        "torch",
        "mamba-ssm",
    ):
        assert needle in shown, needle


def test_weights_are_not_needed(folder, capsys):
    (folder / "model/model.safetensors").rename(folder / "kept")
    try:
        assert "total" in inspect(capsys, "--model", folder / "model", "--depth", 2)
    finally:
        (folder / "kept").rename(folder / "model/model.safetensors")


def test_tokens_of_an_image(folder, capsys):
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(folder / "model")
    shown = inspect(capsys, "--model", folder / "model", "--image", folder / "page.png")
    row = next(line for line in shown.splitlines() if line.startswith("page.png"))
    assert "160×96" in row and row.split()[-2] == str(processor.num_image_tokens(96, 160))


@pytest.mark.parametrize("stage", sorted(RECIPES.glob("stage*.yaml")), ids=lambda path: path.stem)
def test_trainable_table_of_the_shipped_recipes(folder, capsys, stage):
    shown = inspect(capsys, "--model", folder / "model", "--recipe", stage)
    assert "projector/" in shown and "trains" in shown
    if "new_embeddings" in shown:  # four tokens of width 128, not the whole table
        row = next(line for line in shown.splitlines() if line.startswith("new_embeddings"))
        assert row.split()[2] == "512"


def test_an_unknown_recipe_is_one_line(folder, capsys):
    assert main(["inspect", "--model", str(folder / "model"), "--recipe", "nowhere.yaml"]) == 2
    assert "recipe nowhere.yaml does not exist" in capsys.readouterr().err


def test_tables():
    assert [count(n) for n in (7, 1500, 1_450_000, 8_100_852_736, 31_600_000_000)] == [
        "7",
        "1.50K",
        "1.45M",
        "8.10B",
        "31.6B",
    ]
    assert (
        text_table(("a", "n"), [("x", 10), ("longer", 2)], right=(1,))
        == "a        n\n──────  ──\nx       10\nlonger   2"
    )

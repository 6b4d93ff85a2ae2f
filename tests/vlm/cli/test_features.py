"""`radio-vlm features`: what the page shows is what the encoder computes, and bad input is one line."""

import base64
import io
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from encoders import RadioEncoder
from encoders.feature_maps import fit_basis
from encoders.input_size import nearest_size
from encoders.radio_config import RadioEncoderConfig
from vlm.cli.features_encode import chosen_layers, plan_size
from vlm.cli.features_pictures import sheet_columns
from vlm.cli.main import main
from vlm.errors import RadioVLMError

DEPTH = 8


def head(into: int, out: int) -> dict:
    sizes = {"input_dim": into, "hidden_dim": 24, "output_dim": out, "num_inner": 1, "pre_norm": False}
    return {"version": "v2", **sizes}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An encoder with two teacher heads, and pictures of several kinds."""
    place = tmp_path_factory.mktemp("features")
    torch.manual_seed(0)
    adaptors = {
        "siglip2-g": {"head_idx": 0, "summary": head(32, 16), "feature": head(32, 16) | {"upsample_factor": 1}},
        "dino_v3_7b": {"head_idx": 1, "summary": head(32, 8), "feature": head(32, 8) | {"upsample_factor": 2}},
    }
    config = RadioEncoderConfig(
        hidden_size=32, num_hidden_layers=DEPTH, num_attention_heads=2, max_img_size=128, image_size=128,
        num_cls_tokens=2, num_registers=3, summary_idxs=[0, 1], initializer_range=0.1, adaptors=adaptors,
    )  # fmt: skip
    encoder = RadioEncoder(config)
    encoder.save_pretrained(place / "encoder")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (75, 100, 3), dtype=np.uint8))
    picture.resize((13, 10)).resize((100, 75)).save(place / "photo.png")
    turned = Image.open(place / "photo.png")
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned.save(place / "turned.jpg", exif=exif)
    Image.new("RGB", (64, 48), "tan").save(place / "second.png")
    (place / "text.png").write_text("no picture")
    return place


@pytest.fixture(scope="module")
def clip(place):
    av = pytest.importorskip("av", reason="optional package absent")
    with av.open(str(place / "clip.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for step in range(4):
            picture = Image.new("RGB", (96, 64), "white")
            ImageDraw.Draw(picture).rectangle((20 * step, 16, 20 * step + 24, 40), fill=(200, 30 * step, 60))
            out.mux(stream.encode(av.VideoFrame.from_image(picture)))
        out.mux(stream.encode())
    return place / "clip.mkv"


def show(*words) -> int:
    return main(["features", *map(str, words)])


def embedded(page: str, name: str) -> list[np.ndarray]:
    """The maps of this name on a page, as arrays."""
    found = re.findall(rf"<img class=map[^>]*src='data:image/png;base64,([^']+)' alt='feature map, {name}'", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def pixels_of(picture: Image.Image, height: int, width: int) -> torch.Tensor:
    """Resized as the project's image processor does: bicubic, antialiased, float32, in [0, 1]."""
    pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float()
    return (F.interpolate(pixels, (height, width), mode="bicubic", antialias=True) / 255).clamp(0, 1)


def test_page_shows_what_the_encoder_computes(place, tmp_path, capsys):
    words = ["--encoder", place / "encoder", "--adaptor", "dino_v3", "--layers", 2, 0, -1, "--out", tmp_path / "out"]
    assert show(place / "photo.png", *words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"photo\.png +75×100 +80×96 +5×6 +30 +5 +9 ", shown)
    page = (tmp_path / "out/features.html").read_text()

    encoder = RadioEncoder.from_pretrained(place / "encoder", adaptors=["dino_v3"])
    x = pixels_of(Image.open(place / "photo.png"), 80, 96)
    with torch.inference_mode():
        out = encoder(x, feature_fmt="NCHW")
        blocks = encoder.forward_intermediates(x, list(range(DEPTH)), intermediates_only=True)
    last = fit_basis([out.features])
    (map_of_last,) = embedded(page, "last layer")
    np.testing.assert_array_equal(map_of_last, last.colours(out.features)[0].numpy())
    for number in (0, 2, 7):
        (shown_map,) = embedded(page, f"block {number}")
        colours = fit_basis([blocks[number]]).colours(blocks[number])[0].numpy().astype(int)
        # signs follow the last layer: every channel is the plain map or its complement
        for mine, plain in zip(shown_map.transpose(2, 0, 1), colours.transpose(2, 0, 1)):
            assert min(abs(mine - plain).max(), abs(mine - (255 - plain)).max()) <= 1
    assert not embedded(page, "block 1")
    assert embedded(page, "adaptor dino_v3_7b")[0].shape == (10, 12, 3)
    assert "siglip2-g" in page and "Left out of the checkpoint" in page, "a head that was not loaded is named"
    for number, block in enumerate(blocks):
        mean, std = f"{block.mean():.4f}".replace("-", "−"), f"{block.std(correction=0):.4f}"
        assert f"<tr><td>{number}<td>{mean}<td>{std}" in page


def test_page_needs_nothing_else(place, tmp_path):
    assert show(place / "photo.png", "--encoder", place / "encoder", "--out", tmp_path) == 0
    page = (tmp_path / "features.html").read_text()
    sources = re.findall(r"(?:src|href|srcset|poster)=['\"]?([^'\" >]{0,10})", page)
    assert sources and all(source.startswith("data:") for source in sources)
    assert "url(" not in page and "@import" not in page and "<link" not in page


def test_picture_beside_its_map(place, tmp_path):
    assert show(place / "photo.png", "--encoder", place / "encoder", "--size", 96, 128, "--out", tmp_path) == 0
    (squares,) = embedded((tmp_path / "features.html").read_text(), "last layer")
    assert squares.shape == (6, 8, 3)
    sheet = np.asarray(Image.open(tmp_path / "photo.features.png"))
    right = sheet[:, sheet.shape[1] // 2 + 6 :]
    for row, column in ((0, 0), (2, 3), (5, 7)):  # one patch, one square
        y, x = 16 + (row + 0.5) * (sheet.shape[0] - 32) / 6, (column + 0.5) * (right.shape[1] - 16) / 8
        np.testing.assert_array_equal(right[int(y), int(x)], squares[row, column])
    assert (sheet[0] == 255).all()


def test_the_same_again_gives_the_same_files(place, tmp_path, capsys):
    for out in ("one", "two"):
        assert show(place / "photo.png", "--encoder", place / "encoder", "--out", tmp_path / out) == 0
    files = [(tmp_path / out / "photo.features.png").read_bytes() for out in ("one", "two")]
    assert files[0] == files[1]


def test_frames_of_a_video_share_one_basis(place, clip, tmp_path):
    from vlm.media import load_video

    assert show(clip, "--encoder", place / "encoder", "--layers", 1, "--out", tmp_path) == 0
    frames = load_video(clip, max_frames=16, fps=2.0).frames
    assert len(frames) == 4
    encoder = RadioEncoder.from_pretrained(place / "encoder", adaptors=[])
    with torch.inference_mode():
        features = torch.cat([encoder(frame[None].float() / 255, feature_fmt="NCHW").features for frame in frames])
    page = (tmp_path / "features.html").read_text()
    shown = np.stack(embedded(page, "last layer"))
    np.testing.assert_array_equal(shown, fit_basis([features]).colours(features).numpy())
    apart = np.stack([fit_basis([frame]).colours(frame).numpy() for frame in features])
    assert abs(apart.astype(int) - shown).max() > 30, "with a basis a frame the colours would jump"
    assert len(embedded(page, "block 1")) == 4 and page.count("data-time=") == 4
    with Image.open(tmp_path / "clip.features.apng") as animation:
        assert animation.n_frames == 4 and animation.info["duration"] == 500
    assert Image.open(tmp_path / "clip.features.png").width > 900


def test_shared_basis_compares_files(place, tmp_path):
    both = (place / "photo.png", place / "second.png")
    for name, extra in (("own", ()), ("shared", ("--shared-basis",))):
        assert show(*both, "--encoder", place / "encoder", *extra, "--out", tmp_path / name) == 0
    encoder = RadioEncoder.from_pretrained(place / "encoder", adaptors=[])
    sizes = ((80, 96), (48, 64))
    with torch.inference_mode():
        features = [encoder(pixels_of(Image.open(p), *s), feature_fmt="NCHW").features for p, s in zip(both, sizes)]
    basis = fit_basis(features)
    pages = {name: (tmp_path / name / "features.html").read_text() for name in ("own", "shared")}
    maps = {name: embedded(page, "last layer") for name, page in pages.items()}
    for shown, single, own in zip(maps["shared"], features, maps["own"], strict=True):
        np.testing.assert_array_equal(shown, basis.colours(single)[0].numpy())
        assert not np.array_equal(shown, own)
    assert "share one basis" in pages["shared"] and "share one basis" not in pages["own"]


def test_upright_by_exif_and_files_of_one_name(place, tmp_path, capsys):
    other = tmp_path / "photo.png"
    Image.open(place / "photo.png").save(other)
    before = other.read_bytes()
    words = ["--encoder", place / "encoder", "--out", tmp_path]
    assert show(place / "turned.jpg", other, place / "photo.png", *words) == 0
    assert re.search(r"turned\.jpg +100×75 +96×80 ", capsys.readouterr().out)
    assert other.read_bytes() == before, "a picture is not written over"
    assert (tmp_path / "photo.features.png").read_bytes() == (tmp_path / "photo-2.features.png").read_bytes()


def test_window_and_vision_tower(place, tmp_path, capsys):
    words = ["--encoder", place / "encoder", "--vitdet-window", 2, "--out", tmp_path / "windows"]
    assert show(place / "photo.png", *words) == 0
    assert "64×96" in capsys.readouterr().out, "both sides are multiples of 2 patches"
    page = (tmp_path / "windows/features.html").read_text()
    assert "in windows of 2 × 2 patches (ViTDet); global in blocks 1, 3, 5, 7" in page
    encoder = RadioEncoder.from_pretrained(place / "encoder", adaptors=[], vitdet_window_size=2)
    with torch.inference_mode():
        features = encoder(pixels_of(Image.open(place / "photo.png"), 64, 96), feature_fmt="NCHW").features
    np.testing.assert_array_equal(embedded(page, "last layer")[0], fit_basis([features]).colours(features)[0].numpy())

    from tests.helpers.tiny_vlm import build_tiny

    for part in build_tiny():
        part.save_pretrained(tmp_path / "model")
    assert show(place / "photo.png", "--encoder", tmp_path / "model", "--out", tmp_path / "tower") == 0
    assert "80×96" in capsys.readouterr().out
    page = (tmp_path / "tower/features.html").read_text()
    assert "3 blocks of width 128" in page
    for extra, message in (
        (("--vitdet-window", 2), "--vitdet-window 2: .* is a whole model"),
        (("--adaptor", "clip"), "--adaptor clip: the vision tower of .* holds none"),
    ):
        assert show(place / "photo.png", "--encoder", tmp_path / "model", *extra, "--out", tmp_path / "no") == 2
        assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("media", "words", "message"),
    [
        ("missing.png", (), "image file does not exist"),
        ("missing.mp4", (), "video file does not exist"),
        ("text.png", (), "not an image in a format Pillow knows"),
        ("photo.png", ("--adaptor", "clap"), "clap.*siglip2-g"),
        ("photo.png", ("--layers", "1", "8"), "--layers 8: the encoder's 8 blocks are numbered 0 to 7"),
        ("photo.png", ("--size", "100", "64"), "--size 100 64: .* multiples of 16 .* nearest size is 96 64"),
        ("photo.png", ("--max-size", "15"), "--max-size 15: a side has at least 16"),
        ("photo.png", ("--dtype", "int8"), "--dtype int8: known are"),
        ("photo.png", ("--device", "quantum"), "--device quantum: "),
        ("photo.png", ("--max-frames", "0"), "must be positive"),
        ("photo.png", ("--encoder", "no/such/folder"), "--encoder: .*no/such/folder"),
        ("photo.png", ("--out", "photo.png"), "--out: .*is a file"),
    ],
)
def test_bad_input_is_one_line(place, tmp_path, capsys, monkeypatch, media, words, message):
    monkeypatch.chdir(place)
    assert show(media, "--encoder", "encoder", "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err.strip()
    assert re.fullmatch(rf"radio-vlm features: .*{message}.*", error), error
    assert not (tmp_path / "out").exists(), "nothing half-written"


def test_features_that_are_not_finite_are_named(place, tmp_path, capsys):
    encoder = RadioEncoder.from_pretrained(place / "encoder", adaptors=[])
    with torch.no_grad():
        encoder.encoder.layer[2].mlp.fc1.bias[3] = 3e38  # finite weights whose product is not
        encoder.encoder.layer[2].mlp.fc2.weight[:, 3] = 1e3
    encoder.save_pretrained(tmp_path / "broken")
    assert show(place / "photo.png", "--encoder", tmp_path / "broken", "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "photo.png: features of block 2: 960 of 960 values are NaN or infinite" in error and "float32" in error
    assert not (tmp_path / "out").exists()


def test_what_loading_noted_is_on_the_page():
    from vlm.cli.features_page import left_out

    report = SimpleNamespace(notes=["windows were not trained <here>"], left_out={"a.weight": "why", "b.weight": "why"})
    shown = left_out(SimpleNamespace(report=report))
    assert "windows were not trained &lt;here&gt;" in shown and "(2 weights)" in shown and "a.weight, b.weight" in shown
    assert "Every weight" in left_out(SimpleNamespace(report=SimpleNamespace(notes=[], left_out={})))
    assert left_out(SimpleNamespace()) == ""


def planner(step: int = 16, window: int | None = None, most: int | None = None) -> SimpleNamespace:
    config = SimpleNamespace(patch_size=16, vitdet_window_size=window, max_resolution=most, num_hidden_layers=32)
    return SimpleNamespace(
        min_resolution_step=step,
        config=config,
        get_nearest_supported_resolution=lambda h, w: nearest_size(h, w, step),
    )


@pytest.mark.parametrize(
    ("step", "most", "size", "longest", "planned"),
    [
        (16, None, (75, 100), None, (80, 96)),
        (16, None, (3000, 4000), None, (768, 1024)),
        (16, 512, (3000, 4000), None, (384, 512)),
        (16, None, (4, 5), None, (16, 16)),
        (16, None, (5, 4000), None, (16, 1024)),
        (16, None, (1016, 500), 1016, (1008, 496)),  # rounding up must not pass the bound
        (256, None, (480, 640), None, (512, 512)),
        (256, 128, (480, 640), None, (256, 256)),
    ],
)
def test_sizes_are_planned(step, most, size, longest, planned):
    assert plan_size(planner(step, most=most), *size, exact=None, longest=longest) == planned


def test_a_size_that_does_not_fit_the_window_names_the_nearest():
    windowed = planner(256, window=16)
    assert plan_size(windowed, 10, 10, exact=(256, 512), longest=None) == (256, 512)
    with pytest.raises(RadioVLMError, match=r"multiples of 256 \(patch 16 × window 16\); the nearest size is 512 768"):
        plan_size(windowed, 10, 10, exact=(500, 700), longest=None)


def test_layers_by_default_are_ends_of_quarters():
    assert chosen_layers(planner(), None) == [7, 15, 23]
    assert chosen_layers(planner(), [31, 3, -1]) == [3, 31]


def test_sheets_fill_their_rows():
    for cells, shape in ((16, 3.2), (12, 3.2), (1, 3.2), (6, 1.1), (7, 1.8)):
        columns = sheet_columns(cells, shape)
        assert 1 <= columns <= cells and (cells % columns == 0 or cells == 7)

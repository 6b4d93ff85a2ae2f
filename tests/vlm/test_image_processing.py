"""Pixels: values, order of patches and views, memory forms, and the resize against Pillow as an independent judge."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers.processing import picture
from vlm.geometry import GEOMETRIES, plan_picture
from vlm.image_processing_radio_vlm import RadioVLMImageProcessor, picture_size, resize, to_patches, to_tensor
from vlm.rgb import to_rgb

GEOMETRY = {"min_num_patches": 4, "max_num_patches": 64}


def test_patches_are_row_major_and_channel_major_inside():
    image = torch.arange(3 * 32 * 48, dtype=torch.float32).reshape(1, 3, 32, 48)
    patches = to_patches(image, 16)
    assert patches.shape == (1, 6, 768)
    for row in range(2):
        for column in range(3):
            block = image[0, :, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
            assert torch.equal(patches[0, row * 3 + column], block.flatten())


def test_without_resize_pixels_are_exact():
    image = picture(32, 32)
    patches, plan = RadioVLMImageProcessor({"mode": "fixed", "size": [32, 32]}).image_patches(image)
    assert plan.maps == ((2, 2),) and patches.dtype == torch.float32
    expected = to_patches(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255, 16)[0]
    assert torch.equal(patches, expected)


@pytest.mark.parametrize("size", [(37, 53), (300, 20), (1, 1), (640, 480)])
def test_resize_stays_in_range_and_uint8_is_its_rounding(size: tuple[int, int]):
    processor = RadioVLMImageProcessor(GEOMETRY)
    image = picture(*size)
    exact, grid = processor.image_patches(image)
    small, same = processor.image_patches(image, torch.uint8)
    assert grid == same and exact.min() >= 0 and exact.max() <= 1 and small.dtype == torch.uint8
    assert (small.float() / 255 - exact).abs().max() <= 0.5 / 255 + 1e-6


def test_resize_agrees_with_pillow():
    image = Image.fromarray(np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)).convert("RGB")
    ours = resize(to_tensor(image)[None], 48, 64)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - np.asarray(image.resize((64, 48), Image.Resampling.BICUBIC), dtype=np.float32)).max() <= 1.0


def test_overshoot_is_kept_on_request():
    edge = Image.fromarray(np.repeat(np.repeat([[0, 255] * 8], 16, 0).astype(np.uint8)[..., None], 3, 2))
    kept = RadioVLMImageProcessor({"mode": "fixed", "size": [64, 64]}, clamp=False).image_patches(edge)[0]
    cut = RadioVLMImageProcessor({"mode": "fixed", "size": [64, 64]}).image_patches(edge)[0]
    assert kept.max() > 1 and cut.max() <= 1 and torch.equal(kept.clamp(0, 1), cut)


def test_every_form_of_an_image_gives_the_same_patches():
    image = picture(40, 56)
    array = np.asarray(image)
    processor = RadioVLMImageProcessor(GEOMETRY)
    expected = processor.image_patches(image)[0]
    for form in (array, array.transpose(2, 0, 1), torch.from_numpy(array.copy()), torch.from_numpy(array / 255.0)):
        assert torch.allclose(processor.image_patches(form)[0], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5), (7, 8, 9)])
def test_other_shapes_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="shape"):
        to_tensor(np.zeros(shape, dtype=np.uint8))


def test_batch_equals_single_and_order_is_kept():
    processor = RadioVLMImageProcessor(GEOMETRY)
    images = [picture(20 + 13 * i, 90 - 11 * i, seed=i) for i in range(5)]
    batch = processor([images[:2], images[2:]], return_tensors="pt")
    singles = [processor.image_patches(image) for image in images]
    assert torch.equal(batch["pixel_values"], torch.cat([patches for patches, _ in singles]))
    assert batch["image_grid_hw"].tolist() == [list(grid) for _, plan in singles for grid in plan.maps]


def test_tubelets_hold_their_frames_in_order_and_repeat_the_last():
    frames = torch.stack([to_tensor(picture(32, 48, seed=i)) for i in range(5)])
    processor = RadioVLMImageProcessor({"mode": "fixed", "size": [32, 32]})
    single, thw1 = processor.video_patches(frames, {"temporal_patch_size": 1})
    double, thw2 = processor.video_patches(frames, {"temporal_patch_size": 2})
    assert thw1 == (5, 2, 2) and thw2 == (3, 2, 2) and double.shape == (12, 2 * 768)
    by_frame = single.reshape(5, 4, 768)
    for tubelet in range(3):
        first, second = by_frame[2 * tubelet], by_frame[min(2 * tubelet + 1, 4)]
        assert torch.equal(double.reshape(3, 4, 2, 768)[tubelet], torch.stack([first, second], dim=1))


def test_frames_of_different_sizes_share_the_first_ones_grid():
    patches, thw = RadioVLMImageProcessor(GEOMETRY).video_patches([picture(32, 64), picture(80, 20)], {})
    assert thw[0] == 2 and patches.shape[0] == thw[0] * thw[1] * thw[2]


def modes() -> dict[str, Image.Image]:
    rgb = picture(8, 8)
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    palette = rgb.quantize(16)
    palette.info["transparency"] = 0
    return {
        "1": rgb.convert("1"),
        "L": rgb.convert("L"),
        "LA": rgb.convert("LA"),
        "P": rgb.quantize(16),
        "P+transparency": palette,
        "RGBA": rgb.convert("RGBA"),
        "CMYK": rgb.convert("CMYK"),
        "YCbCr": rgb.convert("YCbCr"),
        "I;16": Image.fromarray(deep),
        "I": Image.fromarray(deep.astype(np.int32)),
        "F": Image.fromarray(deep.astype(np.float32)),
    }


@pytest.mark.parametrize("mode", modes())
def test_every_mode_becomes_rgb(mode: str):
    image = to_rgb(modes()[mode])
    assert image.mode == "RGB" and image.size == (8, 8)
    if mode in ("I;16", "I", "F"):
        assert np.asarray(image)[0, 0, 0] == 0 and np.asarray(image)[-1, -1, 0] == 255


def test_transparent_is_white_and_exif_turns():
    clear = Image.new("RGBA", (4, 2), (255, 0, 0, 0))
    assert np.asarray(to_rgb(clear)).min() == 255
    turned = picture(4, 8)
    turned.getexif()[0x0112] = 6
    assert to_rgb(turned).size == (4, 8)


def test_damaged_exif_does_not_cost_the_image():
    image = picture(8, 8)
    image.info["exif"] = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage"
    assert to_rgb(image).tobytes() == picture(8, 8).tobytes()


def test_saves_and_loads(tmp_path):
    processor = RadioVLMImageProcessor({"mode": "fixed", "size": [64, 32]}, clamp=False)
    processor.save_pretrained(tmp_path)
    again = RadioVLMImageProcessor.from_pretrained(tmp_path)
    assert again.geometry == processor.geometry and again.clamp is False


@pytest.mark.parametrize("name", GEOMETRIES)
def test_views_are_cut_from_a_canvas_resized_once(name: str):
    """Against the plain way: resize the whole canvas, slice each view out of it, cut the slices into patches."""
    image = picture(211, 333)
    processor = RadioVLMImageProcessor(GEOMETRIES[name])
    patches, plan = processor.image_patches(image)
    assert plan == plan_picture(211, 333, processor.geometry) and len(patches) == plan.num_patches
    expected = []
    for canvas in plan.canvases:
        whole = resize(to_tensor(image)[None], canvas.grid_h * 16, canvas.grid_w * 16)
        high, wide = (side * 16 for side in canvas.view)
        for row in range(canvas.rows):
            for col in range(canvas.cols):
                view = whole[..., row * high : (row + 1) * high, col * wide : (col + 1) * wide]
                expected.append(to_patches(view, 16)[0])
    assert torch.allclose(patches, (torch.cat(expected) / 255).clamp(0, 1), atol=3e-6)
    tubelets, thw = processor.video_patches([image] * 3, {"temporal_patch_size": 2})
    assert len(tubelets) == thw[0] * thw[1] * thw[2] and thw[0] == 2


def test_a_plan_of_others_is_followed():
    processor = RadioVLMImageProcessor(GEOMETRY)
    plan = plan_picture(32, 64, processor.geometry)
    assert processor.image_patches(picture(400, 400), plan=plan)[1] is plan
    assert processor.video_patches([picture(400, 400)], plan=plan)[1] == (1, *plan.maps[0])


def test_images_of_one_prompt_share_its_budget_and_others_do_not(caplog):
    processor = RadioVLMImageProcessor({**GEOMETRY, "max_prompt_patches": 100})
    images = [picture(300, 400, seed=i) for i in range(3)]
    with caplog.at_level("WARNING"):
        together = processor(images, return_tensors="pt")
    assert "3 pages of up to 60 patches shrink to at most" in caplog.text
    caplog.clear()
    assert len(together["pixel_values"]) <= 100 < 3 * plan_picture(300, 400, processor.geometry).num_patches
    apart = processor([[image] for image in images], return_tensors="pt")
    assert len(apart["pixel_values"]) == 3 * plan_picture(300, 400, processor.geometry).num_patches
    assert not caplog.records


def test_picture_size_is_that_of_the_tensor():
    turned = picture(4, 8)
    turned.getexif()[0x0112] = 6
    broken = picture(4, 8)
    broken.info["exif"] = b"Exif\x00\x00MM\x00*\xff\xff\xff\xff garbage"
    array = np.asarray(picture(4, 8))
    for image in (picture(4, 8), turned, broken, array, array.transpose(2, 0, 1), array[..., 0], torch.zeros(1, 4, 8)):
        assert picture_size(image) == tuple(to_tensor(image).shape[1:]) == RadioVLMImageProcessor.picture_size(image)
    assert picture_size(turned) == (8, 4)
    with pytest.raises(ValueError, match="shape"):
        picture_size(np.zeros((2, 3, 4, 5)))


def test_a_video_without_frames_is_refused():
    with pytest.raises(ValueError, match="without frames"):
        RadioVLMImageProcessor(GEOMETRY).video_patches([])

"""Tiles and scales from the picture to the language model: counts agree, features are those of the views alone."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from projectors.components import num_tokens
from tests.helpers.tiny_vlm import build_tiny
from vlm.errors import SampleError

TILES = {"mode": "tiles", "tile_size": 64, "max_tiles": 6}
SCALES = {"mode": "multi_scale", "scales": [64, 128], "max_tiles": 6}


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def user(*items) -> list[dict]:
    kinds = ["image" if isinstance(item, Image.Image) else "video" for item in items]
    content = [{"type": kind, kind: item} for kind, item in zip(kinds, items)]
    asked = {"role": "user", "content": [*content, {"type": "text", "text": "?"}]}
    return [asked, {"role": "assistant", "content": "ok"}]


def test_tiles_are_pictures_of_their_own_and_one_run_of_tokens():
    model, processor = build_tiny(geometry=TILES)
    encoded = processor.encode(user(picture(100, 300), picture(60, 60)))
    grids = encoded["image_grid_hw"].tolist()
    assert len(grids) > 3 and all(grid == [4, 4] for grid in grids)
    per_image = processor.num_image_tokens(100, 300), processor.num_image_tokens(60, 60)
    assert per_image[1] == 4 and sum(per_image) == 4 * len(grids)
    types = encoded["mm_token_type_ids"]
    runs = (types[1:] != types[:-1]).sum() + 1
    assert int((types == 1).sum()) == sum(per_image) and runs == 5, "text, image, text, image, text: no seams of tiles"
    model(**processor.collate([encoded])).loss.backward()


@pytest.mark.parametrize("last", ["dynamic", "square"])
def test_scales_are_encoded_view_by_view_and_laid_side_by_side(last):
    """Slow twin: crops of each resized canvas through the encoder one by one."""
    model, processor = build_tiny(geometry={**SCALES, "last_scale": last})
    image = picture(90, 200)
    patches, plan = processor.image_processor.image_patches(image)
    (grid_h, grid_w), = plan.maps
    assert len(plan.canvases) == 2 and (plan.canvases[0].rows, plan.canvases[0].cols) == (1, 1)
    assert (grid_h == grid_w) == (last == "square")
    start, scales = 0, []
    with torch.inference_mode():
        for canvas in plan.canvases:
            h, w = canvas.view
            rows = []
            for _ in range(canvas.rows):
                row = []
                for _ in range(canvas.cols):
                    own = patches[start : start + h * w]
                    start += h * w
                    row.append(model.vision_model(own, grids=[(h, w)]).features.view(h, w, -1))
                rows.append(torch.cat(row, 1))
            whole = torch.cat(rows, 0).permute(2, 0, 1)
            scales.append(F.adaptive_avg_pool2d(whole[None], (grid_h, grid_w))[0].permute(1, 2, 0).flatten(0, 1))
        want = model.multi_modal_projector(torch.cat(scales, -1), [(grid_h, grid_w)])
        got = model.get_image_features(patches, torch.tensor(plan.maps))
    assert start == len(patches) and len(got) == num_tokens(model.config.projector_config, grid_h, grid_w)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def test_scales_take_images_videos_and_text_in_one_batch():
    model, processor = build_tiny(geometry=SCALES, features={"summary": True})
    frames = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    samples = [processor.encode(user(picture(90, 200), frames)), processor.encode(user(frames))]
    samples.append(processor.encode([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]))
    model.train()
    model(**processor.collate(samples)).loss.backward()
    model(**processor.collate(samples[2:])).loss.backward()
    assert all(p.grad is not None for p in model.multi_modal_projector.parameters())
    other, _ = build_tiny(geometry={**SCALES, "scales": [64, 192], "max_tiles": 9})
    assert model.config.fingerprint != other.config.fingerprint


@pytest.mark.parametrize(("scales", "count"), [(None, 3), (64, 1), ([64, 192], 2)])
def test_the_projector_is_as_wide_as_there_are_scales(scales, count):
    geometry = {"mode": "multi_scale", "max_tiles": 12} | ({"scales": scales} if scales else {})
    model, _ = build_tiny(geometry=geometry)
    one, _ = build_tiny()
    assert model.multi_modal_projector.linear_1.in_features == count * one.multi_modal_projector.linear_1.in_features


def test_a_prompt_never_has_more_patches_than_its_bound(caplog):
    geometry = {"min_num_patches": 64, "max_num_patches": 256, "max_prompt_patches": 300}
    _, processor = build_tiny(geometry=geometry)
    pages = [picture(300, 200, seed) for seed in range(3)]
    with caplog.at_level(logging.WARNING):
        encoded = processor.encode(user(*pages), sample_id="invoice-7")
    assert len(encoded["pixel_values"]) <= 300
    assert "invoice-7" in caplog.text and "max_prompt_patches=300" in caplog.text and "3 pages" in caplog.text
    caplog.clear()
    assert len(processor.encode(user(pages[0]))["pixel_values"]) > 100 and not caplog.text, "alone it keeps its size"
    with pytest.raises(SampleError, match="max_prompt_patches") as error:
        processor.encode(user(*[picture(8, 8)] * 80), sample_id="album")
    assert error.value.reason == "too_many_patches" and error.value.sample_id == "album"


def test_a_checkpoint_of_scales_and_pruning_opens_alike(tmp_path):
    from vlm.build import load_vlm

    model, processor = build_tiny(geometry=SCALES, video={"pruning_rate": 0.5, "temporal_pool": 2})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, same = load_vlm(str(tmp_path))
    frames = torch.randint(0, 256, (8, 3, 64, 96), dtype=torch.uint8)
    batch = processor.collate([processor.encode(user(picture(90, 200), frames))])
    assert torch.equal(same.collate([same.encode(user(picture(90, 200), frames))])["input_ids"], batch["input_ids"])
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(**batch).loss, model.eval()(**batch).loss)

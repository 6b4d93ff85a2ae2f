"""Cropped positions: those of evaluation, and those that RADIO's own training draws."""

import pytest
import torch

from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel
from tests.helpers.radio_fixtures import FIXTURES, Case

GRID = (4, 6)


def tiny(**options) -> RadioVisionModel:
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, max_img_size=64, patch_size=4)
    options = {**sizes, "cpe_training": True, "initializer_range": 0.5, **options}
    return RadioVisionModel(RadioEncoderConfig(num_cls_tokens=2, num_registers=2, **options))


@pytest.fixture(scope="module")
def recorded() -> tuple[RadioVisionModel, dict[str, torch.Tensor]]:
    case = Case(FIXTURES / "i_cpe_train")
    table = case.weights["radio_model.model.patch_generator.pos_embed"]
    model = tiny(max_img_size=256, patch_size=16)
    with torch.no_grad():
        model.embeddings.position_embedding.copy_(table)
    return model, case.outputs


# ---- drawn windows --------------------------------------------------------------------------------------------------


def test_drawn_windows_equal_the_reference(recorded):
    model, outputs = recorded
    torch.manual_seed(123)
    drawn = model.train().embeddings.training_positions(GRID, 4)
    torch.testing.assert_close(drawn, outputs["train.pos"], atol=1e-5, rtol=0)
    assert not torch.allclose(drawn[0], drawn[1], atol=0.1)
    torch.testing.assert_close(model.eval().embeddings.positions(GRID), outputs["eval.pos"], atol=1e-5, rtol=0)


def test_frames_of_a_video_share_a_window_as_in_the_reference(recorded):
    model, outputs = recorded
    torch.manual_seed(123)
    with model.cpe_video_mode(2):
        drawn = model.train().embeddings.training_positions(GRID, 4)
    torch.testing.assert_close(drawn, outputs["train.video_t2.pos"], atol=1e-5, rtol=0)
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[2], drawn[3])
    assert not torch.allclose(drawn[1], drawn[2], atol=0.1)


def test_video_mode_ends_and_nests(recorded):
    embeddings = recorded[0].embeddings
    with embeddings.video_mode(2):
        with embeddings.video_mode(3):
            with pytest.raises(ValueError, match="batch of 4 pictures is no whole number of videos of 3 frames"):
                embeddings.training_positions(GRID, 4)
        embeddings.training_positions(GRID, 4)
    assert embeddings.video_frames == 1
    with pytest.raises(RuntimeError), embeddings.video_mode(2):
        raise RuntimeError
    assert embeddings.video_frames == 1


def test_windows_lie_inside_the_table():
    """A table of ones reads as ones wherever a window lies: no zeros from outside. Windows have the documented size."""
    model = tiny().train()
    side = model.embeddings.max_rows
    with torch.no_grad():
        model.embeddings.position_embedding.fill_(1)
        torch.testing.assert_close(model.embeddings.training_positions(GRID, 64), torch.ones(64, 24, 32))
        # a table of its own coordinates shows where each window lies
        place = torch.linspace(0, 1, side)
        y, x = torch.meshgrid(place, place, indexing="ij")
        table = torch.stack([y, x]).repeat(16, 1, 1).view(32, -1).T
        model.embeddings.position_embedding.copy_(table[None])
        drawn = model.embeddings.training_positions(GRID, 512)[..., :2].view(512, *GRID, 2)
    height, width = drawn[:, -1, 0, 0] - drawn[:, 0, 0, 0], drawn[:, 0, -1, 1] - drawn[:, 0, 0, 1]
    assert drawn.min() >= -1e-5 and drawn.max() <= 1 + 1e-5
    smallest = 0.1**0.5 * 0.75
    assert smallest - 1e-5 < height.min() < 0.35 and smallest - 1e-5 < width.min() < 0.35
    assert height.max() > 0.95 and width.max() > 0.95
    aspect = (width / height)[(width < 0.999) & (height < 0.999)]  # of those that the table did not cut off
    assert 9 / 16 - 1e-3 < aspect.min() < 0.62 and 1.6 < aspect.max() < 16 / 9 + 1e-3


def test_a_grid_of_the_tables_size_takes_the_table_as_it_is():
    model = tiny().train()
    positions = model.embeddings.training_positions((16, 16), 3)
    assert torch.equal(positions, model.embeddings.position_embedding)
    torch.testing.assert_close(model.eval().embeddings.positions((16, 16)), positions)


def test_gradients_reach_the_table_through_drawn_windows():
    model = tiny(pos_dropout=0.0).train()
    torch.manual_seed(1)
    model(torch.rand(2, 3, 16, 24)).features.square().sum().backward()
    touched = model.embeddings.position_embedding.grad.abs().sum(-1) > 0
    assert 0 < touched.sum() < 256


# ---- dropout --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [GRID, (16, 16)])
def test_dropout_removes_the_positions_of_whole_pictures(grid):
    model = tiny(pos_dropout=0.1).train()
    torch.manual_seed(0)
    patches = torch.zeros(2000, grid[0] * grid[1], 32) if grid == GRID else torch.zeros(500, 256, 32)
    with torch.no_grad():
        positions = model.embeddings._add_positions(patches, grid)
    zeroed = (positions == 0).flatten(1)
    dropped = zeroed.all(1)
    assert not zeroed[~dropped].all(1).any() and zeroed[~dropped].float().mean() < 0.01
    assert abs(dropped.float().mean().item() - 0.1) < 0.04


def test_dropout_of_everything_leaves_patches_alone():
    model = tiny(pos_dropout=1.0).train()
    patches = torch.rand(3, 24, 32)
    assert torch.equal(model.embeddings._add_positions(patches, GRID), patches)
    assert not torch.allclose(model.eval().embeddings._add_positions(patches, GRID), patches, atol=0.1)


# ---- evaluation -----------------------------------------------------------------------------------------------------


def test_nothing_is_drawn_in_evaluation():
    model, pixels = tiny().eval(), torch.rand(4, 3, 16, 24)
    with torch.no_grad():
        state = torch.random.get_rng_state()
        first = model(pixels).features
        with model.cpe_video_mode(3):  # 4 pictures are no multiple: no effect
            assert torch.equal(model(pixels).features, first)
        assert torch.equal(torch.random.get_rng_state(), state)
        assert not torch.allclose(model.train()(pixels).features, first, atol=0.05)
        with pytest.raises(ValueError, match="4 pictures is no whole number of videos of 3"), model.cpe_video_mode(3):
            model(pixels)


def test_without_cpe_training_train_equals_eval():
    model, pixels = tiny(cpe_training=False), torch.rand(2, 3, 16, 24)
    packed = model.embeddings._image_to_patches(pixels).flatten(0, 1)
    with torch.no_grad():
        expected = model.eval()(pixels).features
        model.train()
        torch.testing.assert_close(model(pixels).features, expected)
        for how in ("dense", "packed"):
            got = model(packed, grids=[GRID, GRID], how=how).features
            torch.testing.assert_close(got, expected.flatten(0, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", ["dense", "packed"])
def test_packed_pictures_draw_windows_too(how):
    model = tiny().train()
    patches = torch.rand(1, 24, 48).repeat(4, 1, 1).flatten(0, 1)  # four times the same picture
    with torch.no_grad():
        features = model(patches, grids=[GRID] * 4, how=how).features.view(4, 24, 32)
    assert not torch.allclose(features[0], features[1], atol=0.05)


@pytest.mark.parametrize("grid", [(4, 6), (6, 4), (1, 16), (16, 16), (20, 3), (3, 20)])
def test_evaluation_crops_the_top_left_of_a_square(grid):
    """A landscape picture has the upper rows of the table, resized to its longer side; upsized beyond it."""
    model = tiny().eval()
    table, longer = model.embeddings.position_embedding, max(grid)
    square = table.view(1, 16, 16, 32).permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(square, size=(longer, longer), mode="bilinear", align_corners=False)
    expected = square[..., : grid[0], : grid[1]].flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.embeddings.positions(grid), expected)


def test_channels_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"shape \(1, 4, 8, 8\): expected \(B, 3, H, W\)"):
        tiny()(torch.rand(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\) or \(B, 6, H, W\)"):
        tiny(video_temporal_patch_size=2)(torch.rand(1, 9, 8, 8))
    with pytest.raises(ValueError, match="expected"):
        tiny()(torch.rand(3, 8, 8))

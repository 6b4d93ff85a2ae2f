"""Feature maps: the basis against a plain SVD, fixed signs, one basis for many maps, what cannot be coloured."""

import pytest
import torch

from encoders import feature_maps
from encoders.feature_maps import RunningStats, align_signs, check_finite, fit_basis


def features(*shape: int, seed: int = 0, rank: int = 6) -> torch.Tensor:
    """Float32 maps with a few strong directions of different strength, an offset and a little noise."""
    generator = torch.Generator().manual_seed(seed)
    *batch, width, h, w = shape
    strength = torch.tensor([8.0 * 0.6**i for i in range(rank)])
    directions = torch.randn(rank, width, generator=torch.Generator().manual_seed(99))
    points = torch.randn(*batch, h, w, rank, generator=generator) * strength @ directions
    points = points + 3 + 0.1 * torch.randn(points.shape, generator=generator)
    return points.movedim(-1, -3)


def slow_basis(maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and first three right singular vectors of all patches, signs fixed: the definition, written out."""
    points = torch.cat([m.movedim(-3, -1).reshape(-1, m.shape[-3]) for m in maps]).double()
    vectors = torch.linalg.svd(points - points.mean(0), full_matrices=False).Vh[:3]
    for vector in vectors:
        if vector[vector.abs().argmax()] < 0:
            vector *= -1
    return points.mean(0), vectors


def test_basis_is_that_of_a_plain_svd():
    maps = [features(48, 9, 7), features(2, 48, 5, 11, seed=1)]
    basis = fit_basis(maps)
    mean, vectors = slow_basis(maps)
    torch.testing.assert_close(basis.mean, mean)
    torch.testing.assert_close(basis.components, vectors, atol=1e-9, rtol=0)
    points = torch.cat([m.movedim(-3, -1).reshape(-1, 48) for m in maps]).double() - mean
    share = torch.linalg.svdvals(points).square()
    torch.testing.assert_close(basis.explained, share[:3] / share.sum())
    torch.testing.assert_close(basis.project(maps[1]), (maps[1].double().movedim(-3, -1) - mean) @ vectors.T)


def test_wide_features_give_the_same_without_their_covariance(monkeypatch):
    maps = [features(64, 20, 30)]
    exact = fit_basis(maps)
    monkeypatch.setattr(feature_maps, "EXACT_UP_TO", 16)
    monkeypatch.setattr(feature_maps, "_by_covariance", None)
    wide = fit_basis(maps)
    torch.testing.assert_close(wide.components, exact.components, atol=1e-4, rtol=0)
    torch.testing.assert_close(wide.explained, exact.explained, atol=1e-8, rtol=0)
    assert (wide.colours(maps[0]).int() - exact.colours(maps[0]).int()).abs().max() <= 1


def test_blocks_bound_the_memory_and_change_nothing(monkeypatch):
    maps = [features(32, 12, 10)]
    whole = fit_basis(maps)
    monkeypatch.setattr(feature_maps, "_ROWS", 17)
    blocks = list(feature_maps._centred(maps, whole.mean))
    assert [len(block) for block in blocks] == [17] * 7 + [1] and blocks[0].dtype == torch.float64
    assert torch.equal(fit_basis(maps).colours(maps[0]), whole.colours(maps[0]))


def test_signs_do_not_depend_on_the_order_of_the_patches():
    one = features(24, 8, 8)
    turned = one.flip(-1).transpose(-1, -2)
    torch.testing.assert_close(fit_basis([one]).components, fit_basis([turned]).components, atol=1e-9, rtol=0)
    largest = fit_basis([one]).components.gather(1, fit_basis([one]).components.abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_one_basis_keeps_colours_comparable():
    """A patch that moves through a video keeps its colour under one basis; with a basis a frame it does not."""
    frames = features(2, 16, 6, 6)
    frames[1] = frames[1] * 1.7 + 1
    frames[1, :, 5, 5] = frames[0, :, 1, 2]
    shared = fit_basis([frames]).colours(frames)
    assert torch.equal(shared[0, 1, 2], shared[1, 5, 5])
    apart = [fit_basis([frame]).colours(frame) for frame in frames]
    assert not torch.equal(apart[0][1, 2], apart[1][5, 5])


def test_signs_follow_a_reference_of_another_width_and_grid():
    """The same scores at twice the resolution, through directions that the sign rule alone turns round."""
    maps = [features(24, 16, 20), features(24, 12, 12, seed=1)]
    reference = fit_basis(maps)
    into = torch.linalg.qr(torch.randn(40, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)).Q.T
    into = into * -into.gather(1, into.abs().argmax(1, keepdim=True)).sign()
    others = []
    for one in maps:
        wide = (reference.project(one) @ into).movedim(-1, -3)
        others.append(wide.repeat_interleave(2, -1).repeat_interleave(2, -2))
    basis = fit_basis(others)
    aligned = align_signs(basis, others, reference, maps)
    torch.testing.assert_close(aligned.components, into, atol=1e-6, rtol=0)
    for one, other in zip(maps, others):
        wanted = reference.colours(one).repeat_interleave(2, 0).repeat_interleave(2, 1)
        assert (aligned.colours(other).int() - wanted.int()).abs().max() <= 12  # percentiles of repeated patches differ
        assert (basis.colours(other).int() - wanted.int()).abs().max() > 200
    again = align_signs(aligned, others, reference, maps)
    assert torch.equal(again.components, aligned.components) and torch.equal(again.low, aligned.low)


def test_colours_fill_the_range_and_outliers_do_not_flatten_them():
    maps = features(16, 30, 30)
    basis = fit_basis([maps])
    colours = basis.colours(maps)
    assert colours.dtype == torch.uint8 and colours.shape == (30, 30, 3)
    assert (colours.amin((0, 1)) == 0).all() and (colours.amax((0, 1)) == 255).all()
    assert (colours.float().std((0, 1)) > 40).all()
    saturated = ((colours == 0) | (colours == 255)).float().mean((0, 1))
    assert (saturated < 2.5 * feature_maps.TAIL).all()
    wild = maps.clone()
    wild[:, 0, 0] += 1000 * basis.components[1].float()
    assert (fit_basis([wild]).colours(wild).float().std((0, 1))[1:] > 40).all()


def test_what_does_not_vary_is_grey():
    flat = torch.full((8, 4, 4), 2.5)
    assert (fit_basis([flat]).colours(flat) == 128).all()
    assert (fit_basis([flat[:, :1, :1]]).colours(flat[:, :1, :1]) == 128).all()
    ramp = flat.clone()
    ramp[3] += torch.arange(16.0).view(4, 4)
    colours = fit_basis([ramp]).colours(ramp)
    assert colours[..., 0].unique().numel() > 8 and (colours[..., 1:] == 128).all()
    two = torch.randn(2, 5, 5)
    assert (fit_basis([two]).colours(two)[..., 2] == 128).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(value):
    bad = features(8, 4, 5)
    bad[2, 1, 1:4] = value
    with pytest.raises(ValueError, match="layer 7: 3 of 160 values are NaN or infinite"):
        fit_basis([features(8, 4, 5), bad], what="layer 7")
    check_finite(features(8, 4, 5))


def test_widths_must_agree():
    with pytest.raises(ValueError, match=r"one width, not \[8, 16\]"):
        fit_basis([features(8, 4, 4), features(16, 4, 4)])
    with pytest.raises(ValueError, match="none at all"):
        fit_basis([])
    with pytest.raises(ValueError, match="width 8, not 16"):
        fit_basis([features(8, 4, 4)]).colours(features(16, 4, 4))


def test_running_stats_are_those_of_everything_at_once():
    parts = [torch.randn(3, 50) * 4 + 100, torch.randn(7, 2, 9) - 5]
    stats = RunningStats()
    for part in parts:
        stats.add(part)
    together = torch.cat([part.flatten() for part in parts]).double()
    assert stats.mean == pytest.approx(together.mean().item())
    assert stats.std == pytest.approx(together.std(correction=0).item())

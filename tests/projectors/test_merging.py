"""Token merging: a slow twin written from the definition, exact budgets, means, unmerge, order, ties, chunks."""

import pytest
import torch

from projectors import merging
from projectors.components import build_projector, default_config, keeps_places, num_tokens
from projectors.merging import Merging, fitting_stride, match
from tests.helpers.radio_like import merged_error, pooled_error, radio_like

GRIDS = [(1, 1), (1, 2), (1, 17), (23, 1), (2, 2), (3, 3), (4, 6), (5, 7), (9, 9), (16, 16), (13, 31), (48, 48)]


def slow_merge(x: torch.Tensor, grid: tuple[int, int], num_tokens: int, stride: int, sizes: list[float]):
    """One picture `(N, C)`, patch by patch: tokens, sizes, and the output that each patch is part of."""
    h, w = grid
    unit = [row / row.norm() for row in x.double()]
    goals = [i for i in range(h * w) if i // w % stride == 0 and i % w % stride == 0]
    wishes = []  # (similarity, source, its best destination)
    for source in sorted(set(range(h * w)) - set(goals)):
        similarities = [float(unit[source] @ unit[goal]) for goal in goals]
        best = max(range(len(goals)), key=lambda k: (similarities[k], -k))
        wishes.append((similarities[best], source, goals[best]))
    wishes.sort(key=lambda wish: (-wish[0], wish[1]))
    merged = {source: goal for _, source, goal in wishes[: h * w - num_tokens]}
    places = [i for i in range(h * w) if i not in merged]
    groups = {place: [place] for place in places}
    for source, goal in merged.items():
        groups[goal].append(source)
    totals = [sum(sizes[i] for i in groups[place]) for place in places]
    tokens = [sum(sizes[i] * x[i].double() for i in groups[place]) / total for place, total in zip(places, totals)]
    target = [places.index(merged.get(i, i)) for i in range(h * w)]
    return torch.stack(tokens), totals, target, places


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (6, 1), (4, 6), (5, 7), (8, 8)])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_slow_twin(grid, stride, weighted):
    torch.manual_seed(0)
    count = grid[0] * grid[1]
    x = torch.randn(3, count, 6)
    sizes = torch.randint(1, 5, (3, count)).float() if weighted else None
    lowest = -(-grid[0] // stride) * -(-grid[1] // stride)
    for wanted in sorted({lowest, (lowest + count) // 2, count}):
        found = match(x, grid, wanted, stride)
        tokens, totals = found.merge(x, sizes)
        for picture in range(3):
            own = sizes[picture].tolist() if weighted else [1.0] * count
            want, want_sizes, target, places = slow_merge(x[picture], grid, wanted, stride, own)
            torch.testing.assert_close(tokens[picture], want.float())
            assert totals[picture].tolist() == want_sizes
            assert found.target[picture].tolist() == target and found.places[picture].tolist() == places


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("keep", [0.05, 0.25, 0.5, 1.0])
def test_budget_mean_unmerge_and_order(grid, keep):
    """Exact counts; the mean of a picture survives; what nothing merged into comes back unchanged; raster order."""
    torch.manual_seed(0)
    count = grid[0] * grid[1]
    config = default_config({"type": "token_merging", "keep": keep}, 8, 16)
    budget = num_tokens(config, *grid)
    assert budget == max(1, int(count * keep + 0.5))
    x = torch.randn(2, count, 8) + 2
    found = build_projector(config, 8, 16).match(x, grid)
    tokens, sizes = found.merge(x)
    assert tokens.shape == (2, budget, 8) and sizes.sum(1).tolist() == [count, count]
    mean = (tokens * sizes[..., None]).sum(1) / count
    assert ((mean - x.mean(1)).norm() / x.mean(1).norm()) <= 1e-5
    back = found.unmerge(tokens)
    alone = sizes.gather(1, found.target) == 1
    assert torch.equal(back[alone], x[alone]) and (alone.any() or keep < 0.5 or count < 4)
    assert (found.places.diff(dim=1) > 0).all(), "outputs stay in raster order"
    assert torch.equal(found.target.gather(1, found.places), torch.arange(budget).expand(2, -1))
    if keep == 1.0:
        assert torch.equal(tokens, x) and torch.equal(back, x)


def test_unmerged_tokens_are_exact_with_sizes_and_in_half_precision():
    x = torch.randn(1, 64, 8).bfloat16()
    sizes = torch.rand(1, 64) + 0.1
    found = match(x, (8, 8), 30, 3)
    tokens, _ = found.merge(x, sizes)
    alone = torch.bincount(found.target[0], minlength=30)[found.target[0]] == 1
    assert tokens.dtype == torch.bfloat16 and 0 < alone.sum() < 64
    assert torch.equal(found.unmerge(tokens)[0, alone], x[0, alone])


def test_repeated_merging_keeps_the_mean_only_with_sizes():
    x = radio_like(12, 12)
    first = match(x, (12, 12), 48, 3)
    once, sizes = first.merge(x)
    second = match(once, (1, 48), 16, 4)
    twice, total = second.merge(once, sizes)
    assert total.sum() == 144
    torch.testing.assert_close((twice * total[..., None]).sum(1) / 144, x.mean(1), rtol=1e-5, atol=1e-6)
    careless, counts = second.merge(once)
    assert ((careless * counts[..., None]).sum(1) / 48 - x.mean(1)).abs().max() > 1e-3
    assert first.unmerge(second.unmerge(twice)).shape == x.shape


def test_chunks_of_similarities_change_nothing(monkeypatch):
    x = torch.randn(2, 20 * 21, 8)
    whole = match(x, (20, 21), 105, 3)
    monkeypatch.setattr(merging, "_MAX_SIMILARITIES", 1000)
    chunks = match(x, (20, 21), 105, 3)
    assert torch.equal(whole.target, chunks.target) and torch.equal(whole.places, chunks.places)


@pytest.mark.parametrize("width", [3, 64, 130])
def test_ties_go_to_what_comes_first(width):
    """Blank paper: all similarities are equal but for rounding, which must not decide."""
    blank = torch.randn(1, 1, width).expand(1, 99, width) * torch.rand(1, 99, 1).add(0.5)  # equal but for the length
    found = match(blank, (9, 11), 30, 3)
    goals = [r * 11 + c for r in (0, 3, 6) for c in (0, 3, 6, 9)]
    sources = [i for i in range(99) if i not in goals]
    assert found.places[0].tolist() == sorted(goals + sources[69:])
    assert found.target[0][sources[:69]].tolist() == [0] * 69
    together = match(torch.cat([blank, torch.randn(2, 99, width), blank]), (9, 11), 30, 3)
    assert torch.equal(together.target[0], found.target[0]) and torch.equal(together.target[3], found.target[0])


def test_gradients_are_those_of_the_means():
    x = torch.randn(1, 24, 4, dtype=torch.float64, requires_grad=True)
    found = match(x, (4, 6), 8, 3)
    assert torch.autograd.gradcheck(lambda x: found.merge(x)[0], x)
    sizes = found.merge(x)[1]
    found.merge(x)[0].sum().backward()
    torch.testing.assert_close(x.grad[0, :, 0], (1 / sizes.gather(1, found.target))[0].double())


def test_zero_features_are_no_reason_to_fail():
    x = torch.zeros(1, 16, 4)
    tokens, sizes = match(x, (4, 4), 4, 3).merge(x)
    assert tokens.shape == (1, 4, 4) and tokens.isfinite().all() and sizes.sum() == 16


def test_what_does_not_fit_is_named():
    x = torch.randn(1, 24, 4)
    with pytest.raises(ValueError, match="grid of 4x6 to 3.*stride 2 keeps 6"):
        match(x, (4, 6), 3, 2)
    with pytest.raises(ValueError, match="24 tokens of a grid of 4x5"):
        match(x, (4, 5), 10, 2)
    with pytest.raises(ValueError, match="to 25"):
        match(x, (4, 6), 25, 2)


def test_the_stride_grows_until_the_destinations_fit():
    for grid in GRIDS:
        for budget in (1, 2, 5, 40):
            stride = fitting_stride(*grid, budget, 3)
            assert stride >= 3 and -(-grid[0] // stride) * -(-grid[1] // stride) <= budget
            assert stride == 3 or -(-grid[0] // (stride - 1)) * -(-grid[1] // (stride - 1)) > budget


def test_max_tokens_bounds_every_picture():
    config = default_config({"type": "token_merging", "max_tokens": 20}, 8, 16)
    grids = [(4, 4), (8, 10), (16, 16), (40, 2), (64, 64)]
    assert [num_tokens(config, *grid) for grid in grids] == [4, 20, 20, 20, 20]
    out = build_projector(config, 8, 16)(torch.randn(sum(h * w for h, w in grids), 8), grids)
    assert len(out) == 84 and not keeps_places(config)


@pytest.mark.parametrize("grid", [(16, 16), (24, 18), (17, 23), (48, 48)])
def test_reconstruction_is_better_than_that_of_averages(grid):
    """A quarter of the tokens: merged patches say more than 2 x 2 averages on maps with borders and small things. The
    control: in noise nothing is alike, and little is gained."""
    budget = -(-grid[0] // 2) * -(-grid[1] // 2)
    for seed in range(3):
        x = radio_like(*grid, seed=seed)
        assert merged_error(x, grid, grid[0] * grid[1] // 4, 3) < 0.65 * pooled_error(x, grid)
    noise = torch.randn(1, grid[0] * grid[1], 64)
    assert merged_error(noise, grid, budget, 3) > 0.75 * pooled_error(noise, grid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": 0}, "'keep'"),
        ({"keep": 1.5}, "'keep'"),
        ({"keep": "half"}, "'keep'"),
        ({"keep": True}, "'keep'"),
        ({"stride": 0}, "'stride'"),
        ({"stride": 2.5}, "'stride'"),
        ({"max_tokens": 0}, "'max_tokens'"),
        ({"max_tokens": "many"}, "'max_tokens'"),
        ({"norm": "batchnorm"}, "'norm'"),
    ],
)
def test_impossible_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        build_projector(default_config({"type": "token_merging", **change}, 8, 16), 8, 16)


def test_a_merging_can_be_used_for_other_maps_of_the_same_grid():
    """Matched on features, applied to anything: here to the places themselves."""
    x = radio_like(6, 8)
    found = match(x, (6, 8), 12, 3)
    assert isinstance(found, Merging)
    places = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij"), -1).view(1, 48, 2)
    centres, sizes = found.merge(places)
    torch.testing.assert_close((centres * sizes[..., None]).sum(1) / 48, torch.tensor([[2.5, 3.5]]))

"""Every registered projector keeps its promises: counts, packing, class tokens, gradients, bfloat16, exports."""

import pytest
import torch

from projectors import components
from projectors.components import (
    build_projector,
    count_facts,
    default_config,
    get_projector,
    grid_multiple,
    keeps_places,
    num_tokens,
    project,
    projector_names,
    static_source,
)
from projectors.registry import register_projector

# sides that 2, 3 and 4 divide or not, strips, a single patch, more than one block
GRIDS = [(6, 6), (4, 6), (3, 5), (1, 13), (13, 1), (1, 1), (12, 8), (7, 2), (4, 6), (9, 10)]


def fitting(config: dict, grids: list[tuple[int, int]] = GRIDS) -> list[tuple[int, int]]:
    """Those of the grids that the projector accepts."""
    side = grid_multiple(config)
    kept = [grid for grid in grids if not (grid[0] % side or grid[1] % side)]
    assert len(kept) >= 2
    return kept


def built(name: str, **change):
    torch.manual_seed(0)
    config = default_config({"type": name, **change}, 8, 16)
    return config, build_projector(config, 8, 16)


def pictures(grids) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(h * w, 8, generator=generator) for h, w in grids]


@pytest.mark.parametrize("name", projector_names())
def test_counts_and_gradients(name):
    """As many tokens as `num_tokens` says, and a gradient that is not zero for every parameter and every picture."""
    config, projector = built(name)
    grids = fitting(config)
    parts = [part.requires_grad_() for part in pictures(grids)]
    out = projector(torch.cat(parts), grids)
    assert out.shape == (sum(num_tokens(config, *grid) for grid in grids), 16)
    (out * torch.randn_like(out)).sum().backward()
    for parameter, tensor in projector.named_parameters():
        assert tensor.grad is not None and tensor.grad.abs().max() > 0, parameter
    assert all(part.grad.abs().max() > 0 for part in parts)


@pytest.mark.parametrize("name", projector_names())
def test_num_tokens_is_exact_over_many_grids(name):
    config, projector = built(name)
    side = grid_multiple(config)
    for h in range(side, 14 * side, side):
        for w in (side, 2 * side, 5 * side, 8 * side, 13 * side):
            with torch.no_grad():
                found = len(projector(torch.randn(h * w, 8), [(h, w)]))
            assert found == num_tokens(config, h, w) > 0, (h, w)


@pytest.mark.parametrize("name", projector_names())
def test_packed_pictures_equal_single_pictures(name):
    config, projector = built(name)
    grids = fitting(config)
    parts = pictures(grids)
    together = projector(torch.cat(parts), grids)
    alone = torch.cat([projector(part, [grid]) for part, grid in zip(parts, grids)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    swapped = projector(torch.cat(parts[::-1]), grids[::-1])
    assert not torch.allclose(together, swapped)


@pytest.mark.parametrize("name", projector_names())
@pytest.mark.parametrize("grid", [(4, 6), (3, 5)])
def test_equal_grids_take_the_fast_path_to_the_same_tokens(name, grid):
    """One batch of equal grids equals its pictures one by one, and the same pictures with another grid between."""
    config, projector = built(name)
    if grid[0] % grid_multiple(config):
        with pytest.raises(ValueError, match="3x5"):
            projector(torch.randn(30, 8), [grid] * 2)
        return
    parts = pictures([grid] * 3)
    fast = projector(torch.cat(parts), [grid] * 3)
    alone = torch.cat([projector(part, [grid]) for part in parts])
    torch.testing.assert_close(fast, alone, atol=1e-5, rtol=1e-5)
    mixed = projector(torch.cat([*parts, torch.randn(16, 8)]), [*[grid] * 3, (2, 8)])
    torch.testing.assert_close(mixed[: len(fast)], fast, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", projector_names())
def test_bfloat16_stays_close(name):
    """Weights and features in bfloat16, and float32 weights under autocast, give the tokens of float32."""
    config, projector = built(name)
    grids = fitting(config)
    features = (torch.cat(pictures(grids)) * 30).bfloat16().float()  # RADIO's features are in the tens
    with torch.no_grad():
        exact = projector(features, grids)
        with torch.autocast("cpu", torch.bfloat16):
            cast = projector(features, grids)
        half = projector.bfloat16()(features.bfloat16(), grids)
    assert half.dtype == torch.bfloat16
    for found in (cast, half):
        assert (found.float() - exact).norm() / exact.norm() < 0.03


@pytest.mark.parametrize("name", projector_names())
def test_training_after_inference_and_the_same_tokens_twice(name):
    """What is cached in inference mode can be trained through."""
    config, projector = built(name)
    grid = (grid_multiple(config) * 11, grid_multiple(config) * 3)
    features = torch.randn(grid[0] * grid[1] * 2, 8)
    with torch.inference_mode():
        first = projector(features, [grid] * 2)
    second = projector(features, [grid] * 2)
    second.sum().backward()
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", projector_names())
def test_features_that_do_not_belong_to_the_grids_are_refused(name):
    with pytest.raises(ValueError, match="25 features.*24 patches"):
        built(name)[1](torch.randn(25, 8), [(4, 6)])


@pytest.mark.parametrize("name", projector_names())
def test_keys_that_decide_counts_are_in_the_facts(name):
    """Every default key whose change moves a count is a count key; facts are JSON and follow the change."""
    config, _ = built(name)
    facts = count_facts(config)
    assert facts["type"] == name and count_facts({**config, "summary_tokens": 2})["summary_tokens"] == 2
    assert "summary_tokens" not in facts and count_facts({"type": name}).keys() == facts.keys()
    for key, value in config.items():
        for other in (2, 3, 4, 0.5, "pad"):
            if key == "type" or type(other) is not type(value) or other == value:
                continue
            changed = {**config, key: other}
            if any(num_tokens(changed, *grid) != num_tokens(config, *grid) for grid in [(12, 12), (24, 36)]):
                assert count_facts(changed) != facts, key


@pytest.mark.parametrize("name", projector_names())
def test_projectors_that_keep_places_do(name):
    """Where a projector says so, a change of the last patch leaves the other corner's token alone; a resampler's
    queries look everywhere, and its tokens are comparable by being the same query's."""
    config, projector = built(name)
    grid, features = (12, 12), torch.randn(144, 8)
    other = features.clone()
    other[-1] = torch.randn(8)
    moved = (projector(features, [grid]) - projector(other, [grid])).abs().amax(-1) > 1e-6
    assert moved.any()
    if keeps_places(config) and name != "resampler":
        assert moved.sum() == 1 and moved[-1]


def test_old_fingerprints_stay_what_they_were():
    old = {"type": "pixel_shuffle", "downsample": None, "ps_version": "v2", "odd_grids": "reject"}
    for config in (
        {},
        {"type": "pixel_shuffle", "downsample": 4, "ps_version": "v1", "odd_grids": "pad"},
        get_projector("pixel_shuffle").defaults(8, 16),
        get_projector("mlp").defaults(8, 16),
    ):
        assert count_facts(config) == {key: config.get(key, value) for key, value in old.items()}


def test_answers_for_a_projector_that_only_has_the_three_methods(monkeypatch):
    from projectors import registry

    class Plain(torch.nn.Module):
        @staticmethod
        def defaults(d_vision, d_text):
            return {"type": "plain", "downsample": 2}

    monkeypatch.setitem(registry._PROJECTORS, "plain", Plain)
    config = default_config({"type": "plain"}, 8, 16)
    assert grid_multiple(config) == 2 and keeps_places(config)
    assert count_facts(config) == {"type": "plain", "downsample": 2, "ps_version": "v2", "odd_grids": "reject"}
    with pytest.raises(ValueError, match=r"\['head'\].*'plain' has no head"):
        default_config({"type": "plain", "head": "llava"}, 8, 16)


@pytest.mark.parametrize("name", projector_names())
def test_class_tokens_stand_before_the_patches_of_their_picture(name):
    torch.manual_seed(0)
    config = {**get_projector(name).defaults(8, 16), "summary_tokens": 3}
    projector, grids = build_projector(config, 8, 16, d_summary=4), [(2, 4), (4, 2), (6, 2)]
    features, summary = torch.randn(28, 8), torch.randn(3, 3, 4)
    tokens = project(projector, config, features, grids, summary)
    assert len(tokens) == sum(num_tokens(config, *grid) for grid in grids)
    plain = {key: value for key, value in config.items() if key != "summary_tokens"}
    alone = project(projector, plain, features, grids).split([num_tokens(plain, *grid) for grid in grids])
    start = 0
    for own, patches in zip(summary, alone):
        assert num_tokens(plain, 2, 2) + 3 == num_tokens(config, 2, 2)
        torch.testing.assert_close(tokens[start : start + 3], projector.summary_head(own))
        torch.testing.assert_close(tokens[start + 3 : start + 3 + len(patches)], patches)
        start += 3 + len(patches)
    tokens.sum().backward()
    assert all(p.grad is not None for p in projector.parameters())
    assert not hasattr(build_projector(plain, 8, 16), "summary_head")


def test_registry_refuses_duplicates_and_lists_known_names():
    with pytest.raises(ValueError, match="registered twice"):

        @register_projector("mlp")
        class Other(torch.nn.Module):
            pass

    with pytest.raises(ValueError, match=f"known projectors: {', '.join(projector_names())}"):
        get_projector("nonsense")


@pytest.mark.parametrize("name", projector_names())
def test_static_stand_in_imports_only_the_chosen_projector(name):
    text = static_source(name)
    compile(text, "components.py", "exec")
    assert get_projector(name).__name__ in text and "importlib" not in text and "pkgutil" not in text
    assert all(f'"{exported}"' in text for exported in components.__all__ if exported != "static_source")

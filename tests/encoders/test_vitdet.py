"""ViTDet windows: schedules of the releases, the order of patches, and every way of running equals every other."""

import pytest
import torch

from encoders import vitdet
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel
from encoders.versions import RELEASES
from encoders.vitdet import Windows, run_windowed, window_order, window_schedule

DEPTHS = {"b": 12, "l": 24, "h": 32, "so400m": 27, "g": 40, "vlm-h": 32}
GRIDS = [(4, 6), (2, 2), (4, 6), (2, 8)]
TUBES = [(2, 4), (4, 6)]


def global_blocks(depth: int, **schedule) -> list[int]:
    return [i for i, windowed in enumerate(window_schedule(depth, **schedule)) if not windowed]


def tiny(window: int | None = 2, depth: int = 5, **options) -> RadioVisionModel:
    """Random weights, layer scales included; patches of 4 pixels."""
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=depth, num_attention_heads=4, patch_size=4, max_img_size=32)
    if window:
        options = {"vitdet_window_size": window, "vitdet_num_windowed": 1, **options}
    config = RadioEncoderConfig(**sizes, num_cls_tokens=2, num_registers=3, initializer_range=0.2, **options)
    model = RadioVisionModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_scale" in name or "bias" in name:
                parameter.copy_(torch.randn_like(parameter))
    return model


def patches(grids: list[tuple[int, int]], frames: int = 1) -> torch.Tensor:
    return torch.rand(sum(h * w for h, w in grids), frames * 48)


# ---- schedule -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "schedule", "expected"),
    [
        (32, {"num_global": 4}, [7, 15, 23, 31]),
        (32, {}, [7, 15, 23, 31]),  # 4 if nothing is said
        (24, {"num_global": 4}, [5, 11, 17, 23]),
        (12, {"num_global": 4}, [2, 5, 8, 11]),
        (27, {"num_global": 4}, [5, 11, 17, 23, 26]),
        (32, {"num_global": 8}, [3, 7, 11, 15, 19, 23, 27, 31]),
        (40, {"num_global": 8}, [4, 9, 14, 19, 24, 29, 34, 39]),
        (32, {"num_windowed": 5}, [5, 11, 17, 23, 29, 31]),
        (32, {"num_windowed": 5, "num_global": 8}, [5, 11, 17, 23, 29, 31]),
        (6, {"num_windowed": 1}, [1, 3, 5]),
        (3, {"num_windowed": 9}, [2]),
        (2, {"num_global": 1}, [1]),
    ],
)
def test_global_blocks_are_those_of_the_releases(depth, schedule, expected):
    assert global_blocks(depth, **schedule) == expected


@pytest.mark.parametrize("schedule", [{"num_global": 4}, {}, {"num_windowed": 0}])
def test_a_schedule_without_windowed_blocks_is_refused(schedule):
    with pytest.raises(ValueError, match="no windowed block among 7.*at most 3"):
        window_schedule(7, **schedule)
    with pytest.raises(ValueError, match="no windowed block"):
        tiny(depth=7, vitdet_num_windowed=None if "num_windowed" not in schedule else 0)


def test_every_release_trained_with_windows_has_a_schedule():
    for name, release in RELEASES.items():
        if release.vitdet:
            depth = DEPTHS.get(name.split("_", 1)[1].split("-", 1)[-1].removesuffix("-norm"), 32)
            schedule = window_schedule(depth, release.vitdet_num_global, release.vitdet_num_windowed)
            assert any(schedule) and not schedule[-1]


# ---- order ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns", "window"), [(4, 6, 2), (6, 3, 3), (8, 4, 4), (3, 5, 1)])
def test_window_order_against_a_loop(rows, columns, window):
    expected = []
    for top in range(0, rows, window):
        for left in range(0, columns, window):
            expected += [y * columns + x for y in range(top, top + window) for x in range(left, left + window)]
    assert window_order(rows, columns, window).tolist() == expected


@pytest.mark.parametrize("grids", [[(4, 6)], [(4, 6), (2, 2), (2, 4)]])
def test_cut_and_join(grids):
    """Tokens numbered by picture and place: windows hold the right ones, prefixes none, and all come back."""
    prefix, window = 3, 2
    windows = Windows(grids, prefix, window, torch.device("cpu"))
    total = sum(prefix + h * w for h, w in grids)
    tokens = torch.arange(2 * total, dtype=torch.float32).view(2, total, 1)
    prefixes, cut = windows.cut(tokens[:, windows.order])
    assert prefixes.shape == (2, prefix * len(grids), 1)
    expected_prefixes, expected = [], []
    for row in range(2):
        start = row * total
        for h, w in grids:
            expected_prefixes += range(start, start + prefix)
            first = start + prefix
            for top in range(0, h, window):
                for left in range(0, w, window):
                    expected.append([first + (top + y) * w + left + x for y in range(window) for x in range(window)])
            start = first + h * w
    assert prefixes.flatten().tolist() == expected_prefixes
    assert cut[..., 0].tolist() == expected
    assert torch.equal(windows.join(prefixes, cut)[:, windows.inverse], tokens)


def test_windows_do_not_see_each_other_and_prefix_tokens_sit_out():
    model, (h, w) = tiny(depth=2), (4, 4)
    tokens = torch.randn(1, 5 + h * w, 32)
    schedule, windows = (True, True), Windows([(h, w)], 5, 2, torch.device("cpu"))
    with torch.no_grad():
        before = run_windowed(model.encoder.layer, [tokens], schedule, windows)
        changed = tokens.clone()
        changed[:, 5] += 1  # the first patch, in the first window: patches 0, 1, 4, 5
        changed[:, 0] += 1  # a class token
        after = run_windowed(model.encoder.layer, [changed], schedule, windows)
    assert torch.equal(before[:, :5], tokens[:, :5]) and torch.equal(after[:, :5], changed[:, :5])
    differs = (before != after).any(-1)[0, 5:].nonzero().flatten().tolist()
    assert differs == [0, 1, 4, 5]


# ---- every way of running -------------------------------------------------------------------------------------------


def run_and_differentiate(model: RadioVisionModel, pixels, tubelets, grids, how: str):
    """Features, summary, and the gradients of every parameter and of the pixels."""
    model.zero_grad()
    pixels = pixels.clone().requires_grad_()
    tubelets = None if tubelets is None else tubelets.clone().requires_grad_()
    out = model(pixels, tubelets=tubelets, grids=grids, how=how)
    weight = torch.linspace(-1, 1, out.features.numel()).view_as(out.features)  # not constant over a norm's output
    ((out.features * weight).sum() + (out.summary**2).sum()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    gradients["inputs"] = torch.cat([stream.grad.flatten() for stream in (pixels, tubelets) if stream is not None])
    return out, gradients


def one_by_one(model: RadioVisionModel, pixels, tubelets, grids, pictures: int):
    """The same through dense batches of one, pictures and tubelets as images of 3 and 6 channels."""
    model.zero_grad()
    pixels = pixels.clone().requires_grad_()
    tubelets = None if tubelets is None else tubelets.clone().requires_grad_()
    streams = list(pixels.split([h * w for h, w in grids[:pictures]]))
    if tubelets is not None:
        streams += tubelets.split([h * w for h, w in grids[pictures:]])
    features, summaries = [], []
    for stream, (h, w) in zip(streams, grids):
        image = stream.view(h, w, -1, 4, 4).permute(2, 0, 3, 1, 4).reshape(1, -1, 4 * h, 4 * w)
        out = model(image)
        features.append(out.features[0])
        summaries.append(out.summary)
    features, summary = torch.cat(features), torch.cat(summaries)
    weight = torch.linspace(-1, 1, features.numel()).view_as(features)
    ((features * weight).sum() + (summary**2).sum()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    gradients["inputs"] = torch.cat([stream.grad.flatten() for stream in (pixels, tubelets) if stream is not None])
    return features, summary, gradients


@pytest.mark.parametrize("how", ["dense", "packed", "auto"])
@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("video", [False, True])
def test_packed_equals_one_by_one_forward_and_gradient(how, window, video):
    model = tiny(window, video_temporal_patch_size=2 if video else None, final_norm=True, patch_norm=True)
    grids, tubelets = GRIDS + (TUBES if video else []), patches(TUBES, 2) if video else None
    pixels = patches(GRIDS)
    features, summary, expected = one_by_one(model, pixels, tubelets, grids, len(GRIDS))
    out, gradients = run_and_differentiate(model, pixels, tubelets, grids, how)
    torch.testing.assert_close(out.features, features, atol=2e-5, rtol=0)
    torch.testing.assert_close(out.summary, summary, atol=2e-5, rtol=0)
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        if name.endswith("k_proj.bias"):  # shifts all scores of a query alike: its gradient is rounding
            continue
        scale = expected[name].abs().max()
        assert scale > 1e-3, name
        torch.testing.assert_close(gradient / scale, expected[name] / scale, atol=2e-5, rtol=0, msg=name)


def test_the_order_of_pictures_does_not_matter():
    model, pixels = tiny(), patches(GRIDS)
    parts = list(pixels.split([h * w for h, w in GRIDS]))
    with torch.no_grad():
        forward = model(pixels, grids=GRIDS, how="packed")
        backward = model(torch.cat(parts[::-1]), grids=GRIDS[::-1], how="dense")
    turned = torch.cat(list(forward.features.split([h * w for h, w in GRIDS]))[::-1])
    torch.testing.assert_close(backward.features, turned, atol=2e-5, rtol=0)
    torch.testing.assert_close(backward.summary, forward.summary.flip(0), atol=2e-5, rtol=0)


@pytest.mark.parametrize("how", ["dense", "packed"])
def test_pieces_without_gradients_equal_the_whole(how, monkeypatch):
    model, pixels = tiny(), patches(GRIDS)
    calls = []
    model.encoder.layer[0].register_forward_hook(lambda module, args, out: calls.append(out.shape[0]))
    whole = model(pixels, grids=GRIDS, how=how).features.detach()  # with gradients: in one piece
    once = len(calls)
    monkeypatch.setitem(vitdet.CHUNK_TOKENS, "cpu", 9)  # 2 windows of 4 tokens at a time
    with torch.no_grad():
        pieces = model(pixels, grids=GRIDS, how=how).features
    assert len(calls) - once > once and max(calls[once:]) <= 2, "it did run in pieces"
    torch.testing.assert_close(pieces, whole, atol=2e-5, rtol=0)
    with torch.no_grad():
        monkeypatch.setitem(vitdet.CHUNK_TOKENS, "cpu", 1)  # less than a window: one at a time
        torch.testing.assert_close(model(pixels, grids=GRIDS, how=how).features, whole, atol=2e-5, rtol=0)


def test_one_window_over_the_whole_picture_still_leaves_prefix_tokens_out():
    model, pixels = tiny(4, depth=2), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        windowed = model(pixels)
        model.config.vitdet_window_size = None
        everywhere = model(pixels)
    assert not torch.allclose(windowed.features, everywhere.features, atol=1e-2)


@pytest.mark.parametrize("how", ["dense", "packed"])
def test_intermediates_of_packed_pictures_equal_dense_ones(how):
    model = tiny(intermediate_normalizer={"rot_per_layer": True})
    torch.nn.init.normal_(model.intermediate_normalizer.rotation)
    torch.nn.init.normal_(model.intermediate_normalizer.means)
    images = [torch.rand(1, 3, 4 * h, 4 * w) for h, w in GRIDS]
    pixels = torch.cat([model.embeddings._image_to_patches(image)[0] for image in images])
    with torch.no_grad():
        for aggregation in ("sparse", "dense"):
            got = model(pixels, grids=GRIDS, how=how, layers=[0, 3], aggregation=aggregation)
            single = [
                model.forward_intermediates(
                    image, [0, 3], output_fmt="NLC", intermediates_only=True, aggregation=aggregation
                )
                for image in images
            ]
            for k, features in enumerate(got.intermediates):
                expected = torch.cat([one[k][0] for one in single])
                torch.testing.assert_close(features, expected, atol=5e-5, rtol=0)


# ---- sizes ----------------------------------------------------------------------------------------------------------


def test_sizes_that_windows_do_not_divide_are_refused_with_the_nearest():
    model = tiny(2)
    assert model.min_resolution_step == 8
    said = r"12 x 16 pixels.*multiples of 8 \(patch_size 4 x vitdet_window_size 2\).*16 x 16"
    with pytest.raises(ValueError, match=said):
        model(torch.rand(1, 3, 12, 16))
    with pytest.raises(ValueError, match="12 x 8"):
        model(patches([(3, 2)]), grids=[(3, 2)])
    with pytest.raises(ValueError, match="12 x 16"):
        model.forward_intermediates(torch.rand(1, 3, 12, 16), [0])
    assert model.get_nearest_supported_resolution(12, 21) == (16, 24)  # halves to the even multiple


@pytest.mark.parametrize("window", [0, -1, 2.0])
def test_windows_are_whole_numbers(window):
    with pytest.raises(ValueError, match="vitdet_window_size"):
        RadioEncoderConfig(vitdet_window_size=window)


def test_hidden_states_are_in_raster_order_under_windows():
    model, pixels = tiny(), torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        out = model(pixels, output_hidden_states=True)
        taken = model.forward_intermediates(pixels, 5, output_fmt="NLC", intermediates_only=True)
    assert len(out.hidden_states) == 6
    for state, features in zip(out.hidden_states[1:], taken):
        torch.testing.assert_close(state[:, 5:], features)
    torch.testing.assert_close(out.hidden_states[-1], out.last_hidden_state)

"""Which blocks are taken, what is averaged, and which requests are refused."""

import pytest
import torch

from encoders.feature_normalizers import IntermediateNormalizer
from encoders.intermediates import IntermediateCollector, take_indices
from encoders.radio_config import RadioEncoderConfig
from encoders.radio_vision import RadioVisionModel

DEPTH = 6


@pytest.fixture(scope="module")
def model() -> RadioVisionModel:
    torch.manual_seed(0)
    sizes = dict(hidden_size=32, num_hidden_layers=DEPTH, num_attention_heads=4, patch_size=4, max_img_size=32)
    config = RadioEncoderConfig(
        **sizes, num_cls_tokens=2, num_registers=3, initializer_range=0.2, final_norm=True, feature_normalizer=True
    )
    model = RadioVisionModel(config).eval()
    torch.nn.init.normal_(model.feature_normalizer.tx)
    return model


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def blocks(model, pixels) -> list[torch.Tensor]:
    """Output of every block, by hooks."""
    states = []
    hooks = [layer.register_forward_hook(lambda _, args, out: states.append(out)) for layer in model.encoder.layer]
    with torch.no_grad():
        model(pixels)
    for hook in hooks:
        hook.remove()
    return states


def only(model, pixels, *args, **options) -> list[torch.Tensor]:
    with torch.no_grad():
        return model.forward_intermediates(pixels, *args, intermediates_only=True, output_fmt="NLC", **options)


# ---- indices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("indices", "taken"),
    [
        (1, [5]),
        (6, [0, 1, 2, 3, 4, 5]),
        ([0], [0]),
        ([4, 1], [1, 4]),
        ((-1, 0), [0, 5]),
        ([-6, -1], [0, 5]),
        ([2, 2, -4], [2]),
    ],
)
def test_indices(indices, taken):
    assert take_indices(indices, DEPTH) == taken


WRONG = [0, 7, -1, None, [], "2", 2.0, True, [6], [-7], [0, 9], [1.0], ["1"], [True], [None]]


@pytest.mark.parametrize("indices", WRONG)
def test_indices_that_are_refused(model, pixels, indices):
    """None too, which is not iterable for the reference."""
    with pytest.raises(ValueError, match="indices"):
        take_indices(indices, DEPTH)
    with pytest.raises(ValueError, match="indices"):
        model.forward_intermediates(pixels, indices)


def test_options_that_are_refused(model, pixels):
    with pytest.raises(ValueError, match="output_fmt='NHWC'; known: NLC, NCHW"):
        model.forward_intermediates(pixels, 1, output_fmt="NHWC")
    with pytest.raises(ValueError, match="aggregation='mean'; known: sparse, dense"):
        model.forward_intermediates(pixels, 1, aggregation="mean")
    with pytest.raises(ValueError, match="norm_alpha_scheme='alpha'; known: post-alpha, pre-alpha, none"):
        model.forward_intermediates(pixels, 1, norm_alpha_scheme="alpha")
    with pytest.raises(ValueError, match="does not fit"):
        model.forward_intermediates(torch.rand(1, 3, 9, 8), 1)


# ---- what is returned -----------------------------------------------------------------------------------------------


def test_sparse_is_the_output_of_the_block_itself(model, pixels, blocks):
    for indices, taken in ((2, [4, 5]), ([3, 0], [0, 3]), ([-1, 5], [5])):
        got = only(model, pixels, indices)
        assert len(got) == len(taken)
        for features, index in zip(got, taken):
            torch.testing.assert_close(features, blocks[index][:, 5:])


def test_dense_is_the_mean_since_the_index_before(model, pixels, blocks):
    got = only(model, pixels, [1, 4], aggregation="dense")
    torch.testing.assert_close(got[0], (blocks[0] + blocks[1])[:, 5:] / 2)
    torch.testing.assert_close(got[1], (blocks[2] + blocks[3] + blocks[4])[:, 5:] / 3)
    every = only(model, pixels, DEPTH, aggregation="dense")
    for features, block in zip(every, blocks):
        torch.testing.assert_close(features, block[:, 5:])


def test_norm_is_applied_to_each_entry_and_to_the_final_output(model, pixels, blocks):
    def norm(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, (32,), model.final_norm.weight, model.final_norm.bias, 1e-6)

    mean = (blocks[0] + blocks[1]) / 2
    torch.testing.assert_close(only(model, pixels, [1], norm=True, aggregation="dense")[0], norm(mean)[:, 5:])
    with torch.no_grad():
        plain, _ = model.forward_intermediates(pixels, [1])
        normed, _ = model.forward_intermediates(pixels, [1], norm=True)
        expected = model(pixels)
    torch.testing.assert_close(plain.last_hidden_state, blocks[-1])
    torch.testing.assert_close(normed.last_hidden_state, expected.last_hidden_state)
    torch.testing.assert_close(normed.summary, expected.summary)


def test_prefix_tokens_and_layouts(model, pixels, blocks):
    with torch.no_grad():
        final, entries = model.forward_intermediates(pixels, [2], return_prefix_tokens=True)
    (summary, features), idxs = entries[0], model.config.summary_idxs
    torch.testing.assert_close(summary, blocks[2][:, idxs].flatten(1))
    assert features.shape == (2, 32, 2, 3) and final.features.shape == (2, 32, 2, 3)
    for y in range(2):
        for x in range(3):
            torch.testing.assert_close(features[:, :, y, x], blocks[2][:, 5 + 3 * y + x])


def test_the_final_output_passes_the_feature_normalizer_and_entries_do_not(model, pixels, blocks):
    with torch.no_grad():
        final, entries = model.forward_intermediates(pixels, [5], output_fmt="NLC", norm=True)
        torch.testing.assert_close(final.features, model(pixels).features)
        torch.testing.assert_close(final.features, model.feature_normalizer(entries[0]))
    assert not torch.allclose(final.features, entries[0], atol=0.1)


def test_stop_early_runs_no_block_after_the_last_index(model, pixels, blocks):
    ran = []
    hooks = [
        layer.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, layer in enumerate(model.encoder.layer)
    ]
    with torch.no_grad():
        final, entries = model.forward_intermediates(pixels, [0, 3], stop_early=True, output_fmt="NLC")
        assert ran == [0, 1, 2, 3]
        torch.testing.assert_close(final.last_hidden_state, blocks[3])
        ran.clear()
        model.forward_intermediates(pixels, [0, 3])
        assert ran == list(range(DEPTH))
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(entries[1], blocks[3][:, 5:])


# ---- the normalizer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rot_per_layer", [False, True])
def test_alpha_schemes_by_hand(rot_per_layer):
    """Two blocks, the second is taken: centred each by its own mean, rotated like the second, scaled as asked."""
    torch.manual_seed(0)
    normalizer = IntermediateNormalizer(2, 4, rot_per_layer)
    for buffer in (normalizer.alphas, normalizer.means, normalizer.rotation):
        buffer.normal_()
    tokens = [torch.randn(1, 5, 4), torch.randn(1, 5, 4)]
    rotation = normalizer.rotation[1] if rot_per_layer else normalizer.rotation
    y = [(tokens[k][:, 2:] - normalizer.means[k]) @ rotation.T for k in range(2)]
    a = normalizer.alphas
    patches = {
        "post-alpha": (a[0] + a[1]) / 2 * (y[0] + y[1]) / 2,
        "pre-alpha": (a[0] * y[0] + a[1] * y[1]) / 2,
        "none": (tokens[0] + tokens[1])[:, 2:] / 2,
    }
    is_patch = torch.tensor([False, False, True, True, True])
    for scheme, expected in patches.items():
        collector = IntermediateCollector(2, [1], "dense", normalizer, scheme, is_patch=is_patch)
        for index, one in enumerate(tokens):
            collector(index, one)
        torch.testing.assert_close(collector.outputs[0][:, 2:], expected)
        torch.testing.assert_close(collector.outputs[0][:, :2], (tokens[0] + tokens[1])[:, :2] / 2)  # prefix: alpha 1
    for scheme in ("post-alpha", "pre-alpha"):
        collector = IntermediateCollector(2, [1], "sparse", normalizer, scheme, is_patch=is_patch)
        for index, one in enumerate(tokens):
            collector(index, one)
        torch.testing.assert_close(collector.outputs[0][:, 2:], a[1] * y[1])


def test_gradients_reach_the_blocks_that_are_averaged(model, pixels):
    features = model.forward_intermediates(pixels, [2], aggregation="dense", intermediates_only=True, output_fmt="NLC")
    (features[0] ** 2).sum().backward()
    reached = [layer.mlp.fc2.weight.grad is not None for layer in model.encoder.layer]
    model.zero_grad()
    assert reached == [True, True, True, False, False, False]

"""Normalizers against the reference's outputs and plain loops; Hadamard matrices and the fit of PHI-S by definition."""

import pytest
import torch

from encoders.feature_normalizers import FeatureNormalizer, IntermediateNormalizer, fit_phi_s, hadamard
from tests.helpers.radio_heads import load_case

WIDTHS = (1, 2, 4, 12, 20, 24, 28, 36, 44, 144, 240, 384, 768, 1024, 1152, 1280, 1408, 1536, 1664)


def test_reference_outputs():
    config, weights, outputs = load_case("f_feature_normalizer")
    normalizer = FeatureNormalizer(config["embed_dim"])
    prefix = "feature_normalizer."
    normalizer.load_state_dict({k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    for picture in config["input_keys"]:
        patches = outputs[f"{picture}.tokens"][:, config["num_skip"] :]
        wanted = outputs[f"{picture}.backbone.features"]
        assert (normalizer(patches) - wanted).abs().max() < 5e-5
        assert (patches - wanted).abs().max() > 1, "the control: without the normalizer"


def test_fresh_normalizers_are_the_identity():
    x = torch.randn(2, 7, 12)
    assert torch.equal(FeatureNormalizer(12)(x), x)
    for rot_per_layer in (False, True):
        y, alpha = IntermediateNormalizer(3, 12, rot_per_layer).normalize(x, 1, 2, 2)
        assert torch.equal(y, x) and torch.equal(alpha, torch.ones(1, 7, 1))


def filled(rot_per_layer: bool) -> IntermediateNormalizer:
    torch.manual_seed(0)
    normalizer = IntermediateNormalizer(3, 12, rot_per_layer)
    for buffer in normalizer.buffers():
        buffer.normal_()
    return normalizer


@pytest.mark.parametrize("rot_per_layer", [False, True])
def test_intermediate_normalizer_is_its_definition(rot_per_layer):
    normalizer, x = filled(rot_per_layer), torch.randn(2, 7, 12)
    rotation = normalizer.rotation[2] if rot_per_layer else normalizer.rotation
    y, alpha = normalizer.normalize(x, layer=1, rotation_of=2, prefix=3)
    for token in range(7):
        if token < 3:
            assert torch.equal(y[:, token], x[:, token]) and alpha[0, token] == 1
        else:
            wanted = torch.stack([rotation @ (row - normalizer.means[1]) for row in x[:, token]])
            torch.testing.assert_close(y[:, token], wanted, atol=1e-5, rtol=1e-5)
            assert alpha[0, token] == normalizer.alphas[1]
    assert alpha.shape == (1, 7, 1)
    again = normalizer.normalize(x, layer=-2, rotation_of=-1, prefix=3)
    assert torch.equal(again[0], y) and torch.equal(again[1], alpha)
    other = normalizer.normalize(x, layer=1, rotation_of=0, prefix=3)[0]
    assert torch.equal(other, y) != rot_per_layer


def test_mask_of_packed_pictures_equals_one_by_one():
    normalizer = filled(True)
    pictures = [torch.randn(1, 3 + length, 12) for length in (4, 1, 6)]
    masks = [torch.arange(picture.shape[1]) >= 3 for picture in pictures]
    y, alpha = normalizer.normalize(torch.cat(pictures, dim=1), 0, 2, torch.cat(masks))
    singles = [normalizer.normalize(picture, 0, 2, 3) for picture in pictures]
    torch.testing.assert_close(y, torch.cat([single[0] for single in singles], dim=1), atol=2e-5, rtol=0)
    assert torch.equal(alpha, torch.cat([single[1] for single in singles], dim=1))


def test_gradient_reaches_prefix_and_patches():
    x = torch.randn(1, 5, 12, requires_grad=True)
    y, alpha = filled(False).normalize(x, 0, 0, 2)
    (y * alpha).sum().backward()
    assert torch.equal(x.grad[:, :2], torch.ones(1, 2, 12)) and x.grad[:, 2:].abs().sum() > 0


def test_half_precision_is_computed_in_float32():
    """A mean of 100 and a spread of 1: in bfloat16 the matrix product would lose the spread to rounding."""
    normalizer = FeatureNormalizer(64)
    normalizer.mean.fill_(100.0)
    normalizer.tx.copy_(hadamard(64) * 8)
    x = (100 + torch.randint(-4, 5, (50, 64)) / 2).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = normalizer(x)
    exact = (x.double() - 100) @ normalizer.tx.double().T
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-6)


def test_bad_indices_and_masks():
    normalizer, x = filled(False), torch.zeros(1, 5, 12)
    with pytest.raises(ValueError, match="block 3.*has 3 blocks"):
        normalizer.normalize(x, 0, 3, 2)
    with pytest.raises(ValueError, match="6 prefix tokens in a sequence of 5"):
        normalizer.normalize(x, 0, 0, 6)
    with pytest.raises(ValueError, match=r"boolean \(5,\)"):
        normalizer.normalize(x, 0, 0, torch.ones(5))


@pytest.mark.parametrize("order", WIDTHS)
def test_hadamard(order):
    matrix = hadamard(order)
    assert matrix.shape == (order, order)
    assert (matrix @ matrix.T - torch.eye(order, dtype=torch.float64)).abs().max() < 1e-12
    assert (matrix.abs() * order**0.5 - 1).abs().max() < 1e-12


@pytest.mark.parametrize(
    "order, nearest", [(3, "2 and 4"), (92, "88 and 96"), (1154, "1152 and 1156"), (0, "are 1$"), (-5, "are 1$")]
)
def test_orders_without_a_hadamard_matrix(order, nearest):
    with pytest.raises(ValueError, match=f"order {order} .*{nearest}"):
        hadamard(order)


@pytest.mark.parametrize("dim, rows", [(12, 400), (64, 300), (36, 20)])
def test_fit_phi_s(dim, rows):
    """Equal variances with mean 1 whatever the spectrum, even of fewer rows than channels; an isotropic scale."""
    torch.manual_seed(0)
    spectrum = torch.logspace(-2, 2, dim)
    features = torch.randn(rows, dim) @ (spectrum[:, None] * torch.linalg.qr(torch.randn(dim, dim))[0]) + 5
    mean, tx = fit_phi_s(features)
    assert mean.dtype == tx.dtype == torch.float32
    normalizer = FeatureNormalizer(dim)
    normalizer.load_state_dict({"mean": mean, "tx": tx})
    y = normalizer(features)
    assert y.mean(0).abs().max() < 1e-3
    torch.testing.assert_close(y.var(0), torch.ones(dim), atol=1e-3, rtol=0)
    assert features.var(0).max() / features.var(0).min() > 1.5, "the control: there was something to equalise"
    # one rotation times one number: distances keep their ratios
    product = tx.double() @ tx.double().T
    scale = product.diagonal().mean()
    assert (product - scale * torch.eye(dim)).abs().max() < 1e-5 * scale


def test_features_that_cannot_be_fitted():
    x = torch.randn(10, 12)
    with pytest.raises(ValueError, match="NaN"):
        fit_phi_s(torch.where(torch.arange(12) == 3, torch.nan, x))
    with pytest.raises(ValueError, match="do not vary"):
        fit_phi_s(x[:1].repeat(10, 1))
    with pytest.raises(ValueError, match=r"\(1, 12\)"):
        fit_phi_s(x[:1])
    with pytest.raises(ValueError, match="nearest usable are 8 and 12"):
        fit_phi_s(torch.randn(30, 10))

"""`RadioEncoder` against an independent, slow implementation on random checkpoints of shapes that no fixture has."""

import pytest
import torch

from encoders import RadioCheckpointError, RadioEncoder
from tests.helpers.radio_fixtures import FIXTURES, Case
from tests.helpers.random_radio import random_radio, write_hub, write_remote
from tests.helpers.slow_radio import PublicRadio, slow_intermediates, slow_radio

TOLERANCE = 5e-5
FORMS = ("remote", "hub")
THREE = ("siglip2-g", "dino_v3_7b", "sam3")
ADAPTORS = {
    "v1 heads": {"siglip2-g": {"summary": "v1", "feature": "v1", "inner": 2}},
    "v1 heads, upsampled": {"sam3": {"summary": "v1", "feature": "v1", "inner": 0, "up": 2}},
    "v2 heads, upsampled by 3": {"dino_v3_7b": {"up": 3}, "sam3": {"inner": 0}},
    "v2 heads with pre_norm": {"siglip2-g": {"pre_norm": True, "inner": 2}},
    "attention head, upsampled": {"siglip2-g": {"feature": "attn", "up": 2, "inner": 0}},
    "attention head with pre_norm": {"dino_v3_7b": {"feature": "attn", "pre_norm": True}},
}
# what the checkpoint is made of; sizes are in patches of 8 pixels (14 where it says so)
FAMILIES = {
    "plain": {},
    "layer scale grandma": {"scale": "grandma"},
    "layer scale gamma": {"scale": "gamma"},
    "final norm": {"model_norm": True},
    "norm of the joined tokens": {"patch_normalizer": True},
    "dinov2": {"dino": True},
    "dinov2, heads, normalizer": {"dino": True, "adaptors": {"dino_v3_7b": {}, "siglip2-g": {}}, "normalizer": True},
    "patches of 14": {"patch_size": 14, "cpe_max_size": 98, "width": 48},
    "table of a size that patches do not divide": {"patch_size": 14, "cpe_max_size": 100},
    "no bias in qkv": {"qkv_bias": False},
    "odd hidden width": {"width": 36, "hidden": 135, "num_heads": 3},  # 3.75 times, as 4304 is no multiple of 1152
    "hidden width that a float ratio misses": {"width": 48, "hidden": 173},
    "stored as bfloat16": {"dtype": torch.bfloat16},
    "stored as float16": {"dtype": torch.float16, "adaptors": {"sam3": {}}},
    "feature normalizer and heads": {"normalizer": True, "adaptors": {name: {} for name in THREE}},
    "everything": {
        "scale": "grandma",
        "model_norm": True,
        "patch_normalizer": True,
        "normalizer": True,
        "inter_normalizer": "per_layer",
        "adaptors": {"siglip2-g": {"feature": "attn"}, "sam3": {"summary": "v1", "up": 2}},
    },
    **{name: {"adaptors": adaptors} for name, adaptors in ADAPTORS.items()},
}


def close(got: torch.Tensor, want: torch.Tensor, what: str) -> float:
    assert got.shape == want.shape, (what, got.shape, want.shape)
    error = (got - want).abs().max().item()
    assert error <= TOLERANCE, f"{what}: {error}"
    return error


def opened(model: PublicRadio, form: str, tmp_path, **options) -> RadioEncoder:
    if form == "remote":
        source = write_remote(model, tmp_path / "remote")
    else:
        source = write_hub(model, tmp_path / "c-radio_v4-h.pth.tar", damp="damp" in form, spectral="spectral" in form)
    options.setdefault("adaptors", sorted(model.upsample))
    encoder = RadioEncoder.from_pretrained(str(source), **options)
    ignored = {"radio_model.summary_idxs"} if model.dino and form == "remote" else set()
    assert set(encoder.report.left_out) == ignored
    return encoder


@torch.no_grad()
def compare(encoder: RadioEncoder, model: PublicRadio, pixels: torch.Tensor, form: str, **windows) -> float:
    """Largest error over summary, features, and those of every head, in both layouts."""
    want, got = slow_radio(model, pixels, form, **windows), encoder(pixels)
    errors = [close(got.summary, want.summary, "summary"), close(got.features, want.features, "features")]
    assert want.features.std() > 0.1 and set(got.adaptors or {}) == set(want.adaptors)
    maps = encoder(pixels, feature_fmt="NCHW")
    for name, (summary, features) in want.adaptors.items():
        errors.append(close(got.adaptors[name].summary, summary, f"{name} summary"))
        errors.append(close(got.adaptors[name].features, features, f"{name} features"))
        up = model.upsample[name]
        grid = [side * up for side in want.grid]
        close(maps.adaptors[name].features, features.transpose(1, 2).unflatten(2, grid), f"{name} map")
    close(maps.features, want.features.transpose(1, 2).unflatten(2, want.grid), "map")
    return max(errors)


def pictures(*shape: int, seed: int = 5) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# ---- the twin itself, so that it is not wrong in the same way -------------------------------------------------------


@pytest.mark.parametrize("name", ["a_plain", "b_vitdet_global2", "d_single_cls", "h_layerscale"])
def test_the_twin_equals_the_reference(name):
    case = Case(FIXTURES / name)
    model = PublicRadio(case.weights, case.args(), case.facts["patch_size"], case.facts["num_heads"])
    window = case.facts.get("vitdet_window_size")
    windows = {"window": window, "num_global": case.facts["vitdet_num_global"]} if window else {}
    for key, pixels in case.inputs.items():
        if pixels.shape[-2:] != (272, 96):  # many tokens
            out = slow_radio(model, pixels, **windows)
            close(out.summary, case.outputs[f"{key}.summary"], key)
            close(out.features, case.outputs[f"{key}.features"], key)


# ---- families -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_family(family, form, tmp_path):
    model = random_radio(**FAMILIES[family])
    p = model.patch_size
    encoder = opened(model, form, tmp_path)
    for grid in ((3, 5), (9, 2)):  # inside the table; a side beyond it
        compare(encoder, model, pictures(2, 3, grid[0] * p, grid[1] * p), form)


@pytest.mark.parametrize("form", ["hub damp", "hub spectral"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_parametrised_weights_of_hub_files(form, qkv_bias, tmp_path):
    model = random_radio(qkv_bias=qkv_bias, scale="gamma")
    compare(opened(model, form, tmp_path), model, pictures(1, 3, 24, 40), "hub")


@pytest.mark.parametrize("form", FORMS)
def test_video_tubelets_have_a_projection_of_their_own(form, tmp_path):
    model = random_radio(video=2, adaptors={"sam3": {}})
    encoder = opened(model, form, tmp_path)
    assert encoder.config.video_temporal_patch_size == 2
    compare(encoder, model, pictures(2, 3, 16, 24), form)
    compare(encoder, model, pictures(2, 6, 16, 24), form)


# ---- class and register tokens --------------------------------------------------------------------------------------

TWICE = ({"name": "a"}, {"name": "b"}, {"name": "c", "use_summary": False}, {"name": "a"}, {"name": "b"})
LAYOUTS = {
    "register_multiple": ({"register_multiple": 10}, 3, 7),
    "an exact multiple adds a full group": ({"register_multiple": 3}, 3, 3),
    "cpe_num_registers wins over register_multiple": ({"cpe_num_registers": 2, "register_multiple": 8}, 3, 2),
    "no registers": ({"register_multiple": None}, 3, 0),
    "one class token for all": ({"cls_token_per_teacher": False}, 1, 7),
    "teachers trained twice": ({"teachers": TWICE, "register_multiple": 8}, 3, 5),
    "teachers trained three times": ({"teachers": TWICE + TWICE[:3] + TWICE, "register_multiple": 4}, 3, 1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_token_layout(layout, form, tmp_path):
    options, classes, registers = LAYOUTS[layout]
    model = random_radio(**options, adaptors={"b" if "teachers" in options else "dino_v3_7b": {}})
    encoder = opened(model, form, tmp_path)
    assert encoder.embeddings.cls_register_token.shape[0] == classes + registers == encoder.config.num_summary_tokens
    compare(encoder, model, pictures(2, 3, 16, 24), form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("slot", [1, 6, None])
def test_a_token_slot_may_point_into_the_registers(slot, form, tmp_path):
    teachers = ({"name": "a"}, {"name": "b"}, {"name": "c", "use_summary": False, "token_slot": slot})
    model = random_radio(teachers=teachers, adaptors={"a": {}, "c": {}})
    encoder = opened(model, form, tmp_path)
    assert encoder.adaptors["c"].head_idx == (2 if slot is None else slot)
    compare(encoder, model, pictures(2, 3, 16, 24), form)


def test_summary_rules_differ_where_names_repeat(tmp_path):
    """torch.hub takes the first token of a name; the remote code every entry, unless the weights say which."""
    teachers = ({"name": "a"}, {"name": "b", "use_summary": False}, {"name": "a"})
    model = random_radio(teachers=teachers, store_summary=False)
    hub, pixels = opened(model, "hub", tmp_path), pictures(1, 3, 16, 24)
    assert hub.config.summary_idxs == [0]
    compare(hub, model, pixels, "hub")
    # entries 0 and 2, of 2 class tokens: the remote code fails at its first picture
    with pytest.raises(RadioCheckpointError, match=r"remote.*summary_idxs \[0, 2\].*num_cls_tokens=2"):
        opened(model, "remote", tmp_path)

    stored = random_radio(teachers=teachers)
    stored.weights["radio_model.summary_idxs"] = torch.tensor([1, 0])  # in this order
    encoder = opened(stored, "remote", tmp_path)
    assert encoder.config.summary_idxs == [1, 0]
    compare(encoder, stored, pixels, "remote")
    assert not torch.equal(encoder(pixels).summary, hub(pixels).summary)


# ---- ViTDet ---------------------------------------------------------------------------------------------------------

SCHEDULES = {
    "depth no multiple": (7, {"num_global": 2}),
    "one global block": (5, {"num_global": 1}),
    "num_windowed": (6, {"num_windowed": 1}),
    "num_windowed, depth no multiple": (7, {"num_windowed": 2}),
    "num_windowed wins": (6, {"num_windowed": 4, "num_global": 2}),
    "more windowed blocks than there are": (4, {"num_windowed": 9}),
    "default of a release": (9, {}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_windows(schedule, form, tmp_path):
    depth, windows = SCHEDULES[schedule]
    model = random_radio(depth=depth, width=16, num_heads=2, scale="gamma", adaptors={"siglip2-g": {"feature": "attn"}})
    options = {f"vitdet_{name}": value for name, value in windows.items()}
    encoder = opened(model, form, tmp_path, vitdet_window_size=2, **options)
    pixels = pictures(2, 3, 32, 48)
    compare(encoder, model, pixels, form, window=2, **windows)
    everywhere = slow_radio(model, pixels, form)
    assert (everywhere.features - encoder(pixels).features).abs().max() > 0.01, "windows must matter"


@pytest.mark.parametrize("family", ["dinov2", "everything", "patches of 14"])
def test_windows_of_other_families(family, tmp_path):
    model = random_radio(**{**FAMILIES[family], "depth": 5})
    encoder = opened(model, "remote", tmp_path, vitdet_window_size=3, vitdet_num_global=2)
    p = model.patch_size
    compare(encoder, model, pictures(2, 3, 3 * p, 6 * p), "remote", window=3, num_global=2)


# ---- intermediate features ------------------------------------------------------------------------------------------

CALLS = {
    "sparse": {"indices": [0, 2, 5]},
    "last two": {"indices": 2},
    "negative, unordered": {"indices": [-1, 1]},
    "dense": {"indices": [2, 4], "aggregation": "dense"},
    "dense, pre-alpha": {"indices": [2, 5], "aggregation": "dense", "norm_alpha_scheme": "pre-alpha"},
    "dense, no normalizer": {"indices": [1, 5], "aggregation": "dense", "norm_alpha_scheme": "none"},
    "sparse, no normalizer": {"indices": [3], "norm_alpha_scheme": "none"},
    "sparse, pre-alpha": {"indices": [3], "norm_alpha_scheme": "pre-alpha"},
    "norm": {"indices": [1, 5], "norm": True},
    "dense, norm, stop early": {"indices": [1, 3], "norm": True, "stop_early": True, "aggregation": "dense"},
}
KINDS = {
    "no normalizer": {"model_norm": True},
    "one rotation": {"inter_normalizer": "shared", "normalizer": True},
    "a rotation per block": {"inter_normalizer": "per_layer", "model_norm": True, "adaptors": {"sam3": {}}},
    "dinov2": {"dino": True, "inter_normalizer": "shared"},
}


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_forward_intermediates(kind, window, tmp_path):
    """Under windows too, where the reference crashes."""
    model = random_radio(depth=6, width=16, num_heads=2, **KINDS[kind])
    options = {"vitdet_window_size": window, "vitdet_num_windowed": 1} if window else {}
    windows = {"window": window, "num_windowed": 1} if window else {}
    encoder = opened(model, "remote", tmp_path, **options)
    pixels = pictures(2, 3, 16, 48)
    for call, arguments in CALLS.items():
        final, want = slow_intermediates(model, pixels, **arguments, **windows)
        with torch.no_grad():
            got_final, got = encoder.forward_intermediates(pixels, return_prefix_tokens=True, **arguments)
            only = encoder.forward_intermediates(pixels, intermediates_only=True, output_fmt="NLC", **arguments)
        assert len(got) == len(want) == len(only)
        for (summary, features), (want_summary, want_features), plain in zip(got, want, only):
            close(summary, want_summary, f"{call}: summary")
            close(features, want_features.transpose(1, 2).unflatten(2, final.grid), f"{call}: map")
            close(plain, want_features, f"{call}: features")
        close(got_final.summary, final.summary, f"{call}: final summary")
        close(got_final.features.flatten(2).transpose(1, 2), final.features, f"{call}: final features")
        for name, (summary, _) in final.adaptors.items():
            close(got_final.adaptors[name].summary, summary, f"{call}: {name}")


# ---- packed pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["dense", "packed"])
@pytest.mark.parametrize("window", [None, 2])
def test_packed_pictures_with_heads_equal_the_twin_one_by_one(how, window, tmp_path):
    heads = {"siglip2-g": {"feature": "attn"}, "dino_v3_7b": {"up": 2}}
    model = random_radio(depth=4, normalizer=True, model_norm=True, scale="gamma", adaptors=heads)
    options = {"vitdet_window_size": window, "vitdet_num_global": 2} if window else {}
    windows = {"window": window, "num_global": 2} if window else {}
    encoder = opened(model, "hub", tmp_path, **options)
    grids = [(2, 4), (4, 2), (2, 4), (2, 2)]
    singles = [pictures(1, 3, 8 * h, 8 * w, seed=i) for i, (h, w) in enumerate(grids)]
    patches = torch.cat([encoder.embeddings._image_to_patches(one)[0] for one in singles])
    with torch.no_grad():
        got = encoder(patches, grids=grids, how=how)
    want = [slow_radio(model, one, "hub", **windows) for one in singles]
    close(got.summary, torch.cat([one.summary for one in want]), "summary")
    close(got.features, torch.cat([one.features[0] for one in want]), "features")
    for name in heads:
        close(got.adaptors[name].summary, torch.cat([one.adaptors[name][0] for one in want]), name)
        close(got.adaptors[name].features, torch.cat([one.adaptors[name][1][0] for one in want]), name)

"""Opening a checkpoint: nothing happens in silence, nothing is half-loaded; and how an opened encoder behaves."""

import argparse
import gc
import json
import logging
import weakref

import pytest
import torch
from torch import nn
from transformers import AutoModel, RadioModel

from encoders import RadioCheckpointError, RadioEncoder
from encoders.radio_vision import RadioVisionModel
from encoders.weight_names import RenamedTensors, rename
from tests.helpers.radio_fixtures import FIXTURES, Case
from tests.helpers.random_radio import hub_state, random_radio, write_hub, write_remote

HEADS = {"siglip2-g": {"feature": "attn"}, "dino_v3_7b": {"up": 2}, "sam3": {}}
BLOCK = "radio_model.model.blocks.1.mlp.fc1.weight"


@pytest.fixture(scope="module")
def remote(tmp_path_factory) -> str:
    """A remote-code folder with heads and a feature normalizer."""
    return str(write_remote(random_radio(adaptors=HEADS, normalizer=True), tmp_path_factory.mktemp("whole") / "remote"))


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))


def opened(model, tmp_path, form: str = "remote", **options) -> RadioEncoder:
    source = write_remote(model, tmp_path / "r") if form == "remote" else write_hub(model, tmp_path / "x.pth.tar")
    return RadioEncoder.from_pretrained(source, **options)


# ---- the report -----------------------------------------------------------------------------------------------------

SAM = {"name": "sam3", "use_summary": False}
SECOND = ({"name": "siglip2-g"}, {"name": "dino_v3_7b"}, SAM, SAM)  # trained at two resolutions
IGNORED = {  # what a plain ViT or a training leaves in such files
    "radio_model.model.cls_token": (1, 1, 32),
    "radio_model.model.head.weight": (10, 32),
    "radio_model.model.norm.weight": (32,),
    "radio_model.model.norm.bias": (32,),
}


@pytest.mark.parametrize("form", ["remote", "hub"])
@pytest.mark.parametrize("asked", [None, [], ["sam3"], list(HEADS)])
def test_every_stored_weight_is_used_or_left_out_with_a_reason(form, asked, tmp_path):
    model = random_radio(adaptors=HEADS, normalizer=True, inter_normalizer="shared", scale="gamma", teachers=SECOND)
    model.weights |= {name: torch.rand(shape) for name, shape in IGNORED.items()}
    stored = dict(model.weights) if form == "remote" else hub_state(model)
    encoder = opened(model, tmp_path, form, adaptors=asked)
    report, plan = encoder.report, rename(stored, model.args["teachers"])[0]
    used = {source.name for name, source in plan.items() if name in encoder.state_dict()}
    assert used | set(report.left_out) == set(stored) and not used & set(report.left_out)
    assert report.used == len(encoder.state_dict()) and all(report.left_out.values())
    loaded = list(HEADS) if form == "remote" and asked is None else asked or []  # the folder's `adaptor_names`
    assert set(encoder.adaptors) == set(loaded) and set(report.heads_left_out) == set(HEADS) - set(loaded)
    for name in report.heads_left_out:
        reasons = {reason for stored, reason in report.left_out.items() if name in reason}
        assert reasons == {f"head of teacher {name}, not asked for; adaptors=['{name}'] loads it"}
    assert report.kind == ("remote_code" if form == "remote" else "hub")
    text = str(report)
    assert f"{report.used} weights used" in text and "model_norm" in text
    assert all(reason in text for reason in report.left_out.values())


def test_a_later_entry_of_a_teacher_is_left_out_with_its_reason(tmp_path):
    model = random_radio(adaptors={"sam3": {}}, teachers=SECOND)
    write_hub(model, tmp_path / "one.pth.tar")
    content = torch.load(tmp_path / "one.pth.tar", weights_only=False)
    again = {k.replace(".2.", ".3.", 1): v + 1 for k, v in content["state_dict"].items() if k.startswith("_heads.2.")}
    content["state_dict"] |= again
    torch.save(content, tmp_path / "one.pth.tar")
    encoder = RadioEncoder.from_pretrained(tmp_path / "one.pth.tar", adaptors="sam3")
    assert set(encoder.report.left_out) == set(again)
    assert all("later entry of the same teacher" in reason for reason in encoder.report.left_out.values())


def test_without_weights_everything_is_checked_and_nothing_read(remote, tmp_path):
    encoder = RadioEncoder.from_pretrained(remote, weights=False)
    assert all(tensor.is_meta for tensor in encoder.state_dict().values())
    assert encoder.report.used == len(encoder.state_dict())
    model = random_radio()
    model.weights.pop(BLOCK)
    with pytest.raises(RadioCheckpointError, match="missing"):
        opened(model, tmp_path, weights=False)


# ---- what does not fit ----------------------------------------------------------------------------------------------


def nan(weight: torch.Tensor) -> torch.Tensor:
    weight = weight.clone()
    weight.view(-1)[7] = float("nan")
    return weight


WRONG = {
    "a weight that nobody knows": (lambda w: w | {"radio_model.model.extra.weight": torch.rand(3)}, "extra.weight"),
    "an unknown weight in a block": (lambda w: w | {BLOCK.replace("fc1", "fc9"): torch.rand(3)}, "mlp.fc9.weight"),
    "a missing weight": (lambda w: {k: v for k, v in w.items() if k != BLOCK}, r"1 weights.*layer.1.mlp.fc1.weight"),
    "a weight of another width": (
        lambda w: w | {BLOCK: w[BLOCK][:-1]},
        r"layer.1.mlp.fc1.weight is \(127, 32\), expected \(128, 32\)",
    ),
    "NaN in a weight": (lambda w: w | {BLOCK: nan(w[BLOCK])}, "blocks.1.mlp.fc1.weight holds NaN or Inf"),
    "Inf in a weight": (lambda w: w | {BLOCK: w[BLOCK] / 0}, "blocks.1.mlp.fc1.weight holds NaN or Inf"),
    "a fused weight that does not divide": (
        lambda w: w | {BLOCK.replace("mlp.fc1", "attn.qkv"): torch.rand(95, 32)},
        "blocks.1.attn.qkv.weight",
    ),
    "one layer scale of many": (lambda w: w | {"radio_model.model.blocks.1.ls1.gamma": torch.rand(32)}, "missing"),
    "a head without its last layer": (
        lambda w: {k: v for k, v in w.items() if "sam3.feat_mlp.final.2" not in k},
        "feature head of adaptor 'sam3'",
    ),
    "a normalizer of another width": (
        lambda w: w | {"radio_model.feature_normalizer.mean": torch.rand(31)},
        "feature_normalizer.mean",
    ),
    "half a normalizer": (
        lambda w: {k: v for k, v in w.items() if "feature_normalizer.tx" not in k},
        "feature_normalizer.tx",
    ),
}


@pytest.mark.parametrize("form", ["remote", "hub"])
@pytest.mark.parametrize("what", WRONG)
def test_weights_that_do_not_fit_are_named(what, form, tmp_path):
    """Public names where weights are unknown or damaged, ours where the model lacks them; always the file."""
    change, said = WRONG[what]
    model = random_radio(adaptors={"sam3": {}}, normalizer=True)
    model.weights = change(model.weights)
    for weights in (True, False) if "NaN" not in what and "Inf" not in what else (True,):
        with pytest.raises(RadioCheckpointError, match=said) as error:
            opened(model, tmp_path, form, adaptors=["sam3"], weights=weights)
        assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("what", ["a missing weight", "a weight of another width", "NaN in a weight"])
def test_nothing_is_half_loaded(what, tmp_path, monkeypatch):
    """No model survives the error, and no weight is read before everything fits."""
    built, read = [], []
    init, reader = RadioVisionModel.__init__, RenamedTensors.read

    def remembered(self, *args) -> None:
        built.append(weakref.ref(self))
        init(self, *args)

    monkeypatch.setattr(RadioVisionModel, "__init__", remembered)
    monkeypatch.setattr(RenamedTensors, "read", lambda self, name, *a: read.append(name) or reader(self, name, *a))
    model = random_radio()
    model.weights = WRONG[what][0](model.weights)
    with pytest.raises(RadioCheckpointError) as error:
        opened(model, tmp_path)
    del error
    gc.collect()
    assert built and all(reference() is None for reference in built)
    described = {"summary_idxs", "input_conditioner.norm_mean", "input_conditioner.norm_std"}
    assert (set(read) <= described) == ("NaN" not in what)


def test_a_config_that_promises_what_the_weights_lack(tmp_path):
    model = random_radio()
    for part, said in (("feature_normalizer_config", "mean"), ("inter_feature_normalizer_config", "means")):
        with pytest.raises(RadioCheckpointError, match=f"{part}.*{said} is missing"):
            opened_with = write_remote(model, tmp_path / part, **{part: {"embed_dim": 32}})
            RadioEncoder.from_pretrained(opened_with)
    with pytest.raises(RadioCheckpointError, match="sam3.*holds no teacher heads"):
        RadioEncoder.from_pretrained(write_remote(model, tmp_path / "names", adaptor_names=["sam3"]))


def test_adaptors_that_are_not_held_list_those_that_are(remote):
    with pytest.raises(RadioCheckpointError, match="no adaptor 'clip' in .*it holds dino_v3_7b, sam3, siglip2-g|holds"):
        RadioEncoder.from_pretrained(remote, adaptors=["clip"])
    with pytest.raises(RadioCheckpointError) as error:
        RadioEncoder.from_pretrained(remote, adaptors=["sam3", "clip"])
    assert all(name in str(error.value) for name in HEADS)
    encoder = RadioEncoder.from_pretrained(remote, adaptors=["siglip2", "dino_v3"])
    assert list(encoder.adaptors) == ["siglip2-g", "dino_v3_7b"]
    with pytest.raises(RadioCheckpointError, match="no adaptor 'sam3' in this encoder .* holds siglip2-g, dino_v3_7b"):
        encoder.load_text_tower("sam3")


# ---- damaged files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, 0.99])
@pytest.mark.parametrize("form", ["remote", "hub"])
def test_truncated_files(keep, form, tmp_path):
    if form == "remote":
        source = write_remote(random_radio(), tmp_path / "remote")
        file = source / "model.safetensors"
    else:
        source = file = write_hub(random_radio(), tmp_path / "x.pth.tar")
    content = file.read_bytes()
    file.write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(RadioCheckpointError, match=file.name):
        RadioEncoder.from_pretrained(source)


class Touch:
    """Runs when it is unpickled by something that trusts it."""

    def __init__(self, path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("where", ["args", "state_dict", "beside"])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(where, tmp_path):
    model, trap = random_radio(), Touch(tmp_path / "it-ran")
    state, args = hub_state(model), argparse.Namespace(**model.args)
    if where == "args":
        args.hook = trap
    elif where == "state_dict":
        state["base_model.extra"] = trap
    content = {"state_dict": state, "args": args, **({"optimizer": trap} if where == "beside" else {})}
    torch.save(content, tmp_path / "x.pth.tar")
    with pytest.raises(RadioCheckpointError, match="x.pth.tar"):
        RadioEncoder.from_pretrained(tmp_path / "x.pth.tar")
    assert not (tmp_path / "it-ran").exists()


def test_sources_that_are_not_there(tmp_path):
    """By name of a release or id, with nothing in the cache and no network."""
    for name in ("c-radio_v4-h", "nvidia/C-RADIOv4-H", "someone/something"):
        with pytest.raises(RadioCheckpointError, match="offline|cannot be fetched"):
            RadioEncoder.from_pretrained(name, cache_dir=tmp_path, local_files_only=True)
    with pytest.raises(RadioCheckpointError, match="no Hugging Face repository of its own; give the path"):
        RadioEncoder.from_pretrained("radio_v2.5-h")
    with pytest.raises(RadioCheckpointError, match="no folder or file"):
        RadioEncoder.from_pretrained(str(tmp_path / "nothing" / "here"))
    with pytest.raises(RadioCheckpointError, match="no RADIO checkpoint"):
        RadioEncoder.from_pretrained(tmp_path)


# ---- pixels and sizes -----------------------------------------------------------------------------------------------


def test_nan_pixels_are_an_error(remote, pixels):
    encoder = RadioEncoder.from_pretrained(remote)
    broken = pixels.clone()
    broken[1, 0, 0, 0] = float("nan")
    with torch.no_grad():
        with pytest.raises(ValueError, match="values are NaN or infinite; look at pixel_values: NaN or Inf"):
            encoder(broken)
        with pytest.raises(ValueError, match="pixel_values"):
            encoder(pixel_values=encoder.embeddings._image_to_patches(broken).flatten(0, 1), grids=[(2, 4)] * 2)
        encoder.encoder.layer[0].mlp.fc1.bias.data.fill_(float("inf"))
        with pytest.raises(ValueError, match="look at the weights and their dtype torch.float32"):
            encoder(pixels)


def test_sizes_and_the_nearest_that_fit(remote, tmp_path):
    case = Case(FIXTURES / "a_plain")
    recorded = RadioEncoder.from_pretrained(case.write_remote(tmp_path / "plain"))
    assert case.facts["nearest"]
    for size, nearest in case.facts["nearest"].items():
        height, width = map(int, size.split("x"))
        assert recorded.get_nearest_supported_resolution(height, width) == tuple(nearest)
        with pytest.raises(ValueError, match=f"{height} x {width} pixels.*nearest size is {nearest[0]} x {nearest[1]}"):
            recorded(torch.rand(1, 3, height, width))
    assert recorded.min_resolution_step == 16

    encoder = RadioEncoder.from_pretrained(remote, vitdet_window_size=2, vitdet_num_global=1)
    assert encoder.min_resolution_step == 16 and encoder.get_nearest_supported_resolution(24, 5) == (32, 16)
    with pytest.raises(ValueError, match="patch_size 8 x vitdet_window_size 2.*nearest size is 32 x 16"):
        encoder(torch.rand(1, 3, 24, 16))
    with pytest.raises(ValueError, match="0 x 16"):
        encoder(torch.rand(1, 3, 0, 16))


# ---- conditioning ---------------------------------------------------------------------------------------------------


def test_pixels_are_conditioned_exactly_once(remote, pixels):
    encoder = RadioEncoder.from_pretrained(remote)
    patches, grids = encoder.embeddings._image_to_patches(pixels).flatten(0, 1), [(2, 4)] * 2
    with torch.no_grad():
        before, packed = encoder(pixels), encoder(patches, grids=grids)
        taken = encoder.forward_intermediates(pixels, [0], intermediates_only=True)[0]
        conditioner = encoder.make_preprocessor_external()
        outside = conditioner(pixels)
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (encoder.config.norm_mean, encoder.config.norm_std))
        torch.testing.assert_close(outside, (pixels - mean) / std)
        assert isinstance(encoder.make_preprocessor_external(), nn.Identity), "the second call hands out nothing more"
        torch.testing.assert_close(encoder(outside).features, before.features)
        torch.testing.assert_close(encoder(outside).summary, before.summary)
        patches = encoder.embeddings._image_to_patches(outside).flatten(0, 1)
        torch.testing.assert_close(encoder(patches, grids=grids).features, packed.features)
        again = encoder.forward_intermediates(outside, [0], intermediates_only=True)[0]
        torch.testing.assert_close(again, taken)
        assert not torch.allclose(encoder(pixels).features, before.features, atol=0.1)


# ---- dtype ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bfloat16", "torch.bfloat16"])
def test_bfloat16(dtype, remote, pixels):
    exact, half = RadioEncoder.from_pretrained(remote), RadioEncoder.from_pretrained(remote, dtype=dtype)
    kept = {name for name, tensor in half.state_dict().items() if tensor.dtype == torch.float32}
    assert kept == {
        "embeddings.position_embedding",
        "feature_normalizer.mean",
        "feature_normalizer.tx",
        "input_conditioner.norm_mean",
        "input_conditioner.norm_std",
    }
    assert half.dtype == half.embeddings.patch_projection.weight.dtype == torch.bfloat16
    assert half.embeddings.positions((2, 4)).dtype == torch.float32
    with torch.no_grad():
        want, got = exact(pixels), half(pixels)
    assert got.features.dtype == torch.bfloat16 and got.adaptors["sam3"].features.dtype == torch.float32
    for name, (a, b) in {
        "features": (got.features, want.features),
        "summary": (got.summary, want.summary),
        "head": (got.adaptors["siglip2-g"].features, want.adaptors["siglip2-g"].features),
    }.items():
        error = (a.float() - b).pow(2).mean().sqrt() / b.std()
        assert 0 < error < 0.03, (name, error)


def test_the_dtype_is_that_of_the_checkpoint_unless_asked(tmp_path):
    half = random_radio(dtype=torch.bfloat16)
    half.args["dtype"] = "bfloat16"

    def dtypes(**options) -> set[torch.dtype]:
        encoder = opened(half, tmp_path, **options)
        return {encoder.dtype, *(parameter.dtype for parameter in encoder.encoder.parameters())}

    assert dtypes() == {torch.bfloat16}
    assert dtypes(dtype=torch.float32) == dtypes(dtype="float32") == {torch.float32}
    half.args.pop("dtype")
    assert dtypes() == dtypes(dtype="auto") == {torch.bfloat16}
    with pytest.raises(ValueError, match="float31"):
        opened(half, tmp_path, dtype="float31")


# ---- training -------------------------------------------------------------------------------------------------------


def test_an_opened_encoder_is_in_evaluation_and_freezes(remote, pixels):
    encoder = RadioEncoder.from_pretrained(remote)
    assert not encoder.training and all(parameter.requires_grad for parameter in encoder.parameters())
    encoder.train()
    assert encoder.freeze() is encoder and not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder(pixels).features.requires_grad
    evaluated = encoder(pixels).features
    encoder.train()  # as a parent does to its parts
    with torch.no_grad():
        assert torch.allclose(encoder(pixels).features, evaluated, atol=1e-6), "positions stay those of evaluation"


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_gradient_checkpointing_changes_nothing(window, packed, remote, pixels):
    options = {"vitdet_window_size": window, "vitdet_num_windowed": 1} if window else {}
    encoder = RadioEncoder.from_pretrained(remote, **options)
    calls = []
    encoder.encoder.layer[1].mlp.register_forward_hook(lambda *_: calls.append(1))

    def run() -> tuple[list[torch.Tensor], dict[str, torch.Tensor], int]:
        calls.clear()
        encoder.zero_grad()
        torch.manual_seed(7)  # training draws position windows
        if packed:
            patches = encoder.embeddings._image_to_patches(pixels).flatten(0, 1)
            out = encoder.train()(patches, grids=[(2, 4), (4, 2)], how="packed")
        else:
            out = encoder.train()(pixels)
        outs = [out.features, out.summary, *(part for head in out.adaptors.values() for part in head)]
        sum((part.float() ** 2).sum() for part in outs).backward()
        return outs, {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}, len(calls)

    outs, gradients, once = run()
    encoder.gradient_checkpointing_enable()
    again, repeated, twice = run()
    assert twice == 2 * once, "blocks did run again in the backward pass"
    for a, b in zip(again, outs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert set(repeated) == set(gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(repeated[name], gradient, atol=1e-4, rtol=1e-4, msg=name)


# ---- windows --------------------------------------------------------------------------------------------------------


def cached(root, repository: str, model):
    """A repository in the Hugging Face cache."""
    folder = root / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    write_remote(model, folder / "snapshots" / ("0" * 40), version="c-radio_v3-h")
    return {"cache_dir": root, "local_files_only": True}


def test_a_release_that_was_not_trained_with_windows(tmp_path, caplog):
    model = random_radio(depth=8)
    cache = cached(tmp_path / "cache", "nvidia/C-RADIOv3-H", model)
    for name in ("c-radio_v3-h", "nvidia/C-RADIOv3-H"):
        assert RadioEncoder.from_pretrained(name, **cache).report.release == "c-radio_v3-h"
        with pytest.raises(RadioCheckpointError, match="c-radio_v3-h was not trained with ViTDet.*leave it out"):
            RadioEncoder.from_pretrained(name, vitdet_window_size=2, **cache)
    insisted = RadioEncoder.from_pretrained("c-radio_v3-h", vitdet_window_size=2, vitdet_num_global=2, **cache)
    assert insisted.config.vitdet_window_size == 2

    local = write_hub(model, tmp_path / "c-radio_v3-h.pth.tar")
    with caplog.at_level(logging.WARNING):
        encoder = RadioEncoder.from_pretrained(local, vitdet_window_size=2)
    assert encoder.config.vitdet_window_size == 2 and "not trained with ViTDet" in encoder.report.notes[0]
    assert "not trained with ViTDet" in caplog.text and encoder.report.notes[0] in str(encoder.report)
    assert not RadioEncoder.from_pretrained(local).report.notes


def test_schedules(tmp_path):
    model = random_radio(depth=8)
    old = write_remote(model, tmp_path / "old", version="radio_v2.1", vitdet_window_size=2)
    encoder = RadioEncoder.from_pretrained(old)  # the folder's window, the release's schedule
    config = encoder.config
    assert (config.vitdet_window_size, config.vitdet_num_global, config.vitdet_num_windowed) == (2, None, 5)
    config = RadioEncoder.from_pretrained(old, vitdet_window_size=4, vitdet_num_global=2).config
    assert (config.vitdet_window_size, config.vitdet_num_global, config.vitdet_num_windowed) == (4, 2, None)
    assert RadioEncoder.from_pretrained(old, vitdet_window_size=0).config.vitdet_window_size is None
    with pytest.raises(ValueError, match="vitdet_num_global without vitdet_window_size"):
        RadioEncoder.from_pretrained(write_remote(model, tmp_path / "new"), vitdet_num_global=2)
    with pytest.raises(RadioCheckpointError, match="old.*no windowed block among 8"):
        RadioEncoder.from_pretrained(old, vitdet_num_global=5)
    for nothing in ({"vitdet_num_windowed": 0}, {"vitdet_num_global": 0}, {"vitdet_window_size": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(nothing))}=-?[01]"):
            RadioEncoder.from_pretrained(old, **nothing)


# ---- saving ---------------------------------------------------------------------------------------------------------


def test_auto_model_opens_what_was_saved(remote, pixels, tmp_path):
    encoder = RadioEncoder.from_pretrained(remote, vitdet_window_size=2, vitdet_num_global=1)
    plain = opened(random_radio(scale="grandma"), tmp_path)
    for name, one, kind in (("whole", encoder, RadioEncoder), ("plain", plain, RadioModel)):
        one.save_pretrained(tmp_path / name)
        again = AutoModel.from_pretrained(tmp_path / name)
        assert type(again) is kind and not again.training
        with torch.no_grad():
            want, got = one(pixels), again(pixels)
        torch.testing.assert_close(got.features, want.features, atol=1e-5, rtol=0)
        torch.testing.assert_close(got.summary, want.summary, atol=1e-5, rtol=0)
        assert set(getattr(got, "adaptors", None) or {}) == set(want.adaptors or {})
    assert json.loads((tmp_path / "whole/config.json").read_text())["vitdet_window_size"] == 2


# ---- what newcomers do ----------------------------------------------------------------------------------------------


def test_options_that_do_not_exist_are_refused(remote):
    for wrong in ({"adaptor": "siglip2-g"}, {"vitdet_window": 2}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            RadioEncoder.from_pretrained(remote, **wrong)


def test_heads_answer_to_the_short_name_they_were_asked_by(tmp_path):
    model = random_radio(adaptors=HEADS)
    encoder = opened(model, tmp_path, "remote")
    (name,) = [head for head in encoder.adaptors if head.startswith("dino")]
    out = encoder(torch.rand(1, 3, *[4 * encoder.min_resolution_step] * 2))
    assert out.adaptors["dino"] is out.adaptors[name]
    with pytest.raises(KeyError, match="there are"):
        out.adaptors["clap"]


def test_intermediates_that_are_not_finite_and_pixels_of_bytes(remote, pixels, caplog):
    encoder = RadioEncoder.from_pretrained(remote)
    with pytest.raises(ValueError, match="pixel_values"):
        encoder.forward_intermediates(pixels * float("nan"), indices=[0])
    encoder(pixels)
    assert "divide by 255" not in caplog.text
    encoder(pixels * 255)
    assert "divide by 255" in caplog.text


def test_packed_input_of_the_wrong_form_is_named(remote, pixels):
    encoder = RadioEncoder.from_pretrained(remote)
    patch = encoder.config.patch_size
    grid = [[side // patch for side in pixels.shape[-2:]]] * len(pixels)
    patches = encoder.embeddings._image_to_patches(pixels).flatten(0, 1)
    assert torch.equal(encoder(patches, image_grid_hw=grid).features, encoder(pixels).features.flatten(0, 1))
    for wrong in (pixels, patches[:, :-1]):
        with pytest.raises(ValueError, match="flattened patches"):
            encoder(wrong, image_grid_hw=grid)
    with pytest.raises(ValueError, match="NCHW"):
        encoder(patches, image_grid_hw=grid, feature_fmt="NCHW")


@pytest.mark.parametrize(
    "name, start, hint",
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        ("radio.pth.tar", b"<!DOCTYPE html><html>", "web page"),
    ],
)
def test_files_that_often_stand_for_a_checkpoint(tmp_path, name, start, hint):
    (tmp_path / name).write_bytes(start + b" " * 200)
    (tmp_path / "config.json").write_text('{"model_type": "radio"}')
    with pytest.raises(RadioCheckpointError, match=hint):
        RadioEncoder.from_pretrained(tmp_path / name if name.endswith("tar") else tmp_path)

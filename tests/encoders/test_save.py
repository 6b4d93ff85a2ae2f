"""What `RadioEncoder.save_pretrained` writes: a plain backbone is transformers' own, anything more says so."""

import json

import pytest
import torch
from transformers import AutoModel, RadioModel

from encoders import RadioEncoder
from tests.helpers.radio_fixtures import FIXTURES, Case
from tests.helpers.radio_whole import whole_case

PIXELS = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def outputs(model) -> list[torch.Tensor]:
    with torch.inference_mode():
        out = model.eval()(PIXELS)
    heads = sorted((getattr(out, "adaptors", None) or {}).items())
    return [out.summary, out.features, *(part for _, head in heads for part in head)]


@pytest.mark.parametrize("name", ["a_plain", "h_layerscale", "d_single_cls"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_plain_backbone_opens_with_transformers_alone(name, dtype, tmp_path):
    encoder = RadioEncoder.from_pretrained(Case(FIXTURES / name).write_remote(tmp_path / "remote"), dtype=dtype)
    encoder.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["model_type"] == "radio" and config["architectures"] == ["RadioModel"]
    native, info = RadioModel.from_pretrained(tmp_path / "saved", dtype=torch.float32, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert type(AutoModel.from_pretrained(tmp_path / "saved")) is RadioModel
    for got, want in zip(outputs(native), outputs(encoder.float()), strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shards", [False, True])
def test_what_is_more_than_native_says_so_and_comes_back_whole(shards, tmp_path):
    encoder = RadioEncoder.from_pretrained(
        whole_case().write_remote(tmp_path / "remote"), vitdet_window_size=2, vitdet_num_global=2
    )
    encoder.save_pretrained(tmp_path / "saved", **({"max_shard_size": "300KB"} if shards else {}))
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["model_type"] == "radio_encoder" and config["architectures"] == ["RadioEncoder"]
    for again in (RadioEncoder.from_pretrained(tmp_path / "saved"), AutoModel.from_pretrained(tmp_path / "saved")):
        assert type(again) is RadioEncoder and not again.report.left_out
        assert {**again.config.to_dict(), "architectures": 0} == {**encoder.config.to_dict(), "architectures": 0}
        assert all(torch.equal(got, want) for got, want in zip(outputs(again), outputs(encoder), strict=True))


def test_the_native_class_would_have_been_wrong(tmp_path):
    """The control: the same weights in the native class give other features, hence the other type."""
    encoder = RadioEncoder.from_pretrained(whole_case(heads=False).write_remote(tmp_path / "remote"))
    encoder.save_pretrained(tmp_path / "saved")
    config = {**json.loads((tmp_path / "saved/config.json").read_text()), "model_type": "radio"}
    (tmp_path / "saved/config.json").write_text(json.dumps(config))
    native = RadioModel.from_pretrained(tmp_path / "saved")
    assert (outputs(native)[1] - outputs(encoder)[1]).abs().max() > 0.1

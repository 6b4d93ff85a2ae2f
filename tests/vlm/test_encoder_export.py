"""An encoder handed over opens with AutoModel where radio-vlm is not installed: heads, normalizer, windows included."""

import json
from pathlib import Path

import pytest
import torch

from encoders import RadioEncoder
from tests.helpers.bare_env import build, run_bare
from tests.helpers.radio_fixtures import FIXTURES, Case
from tests.helpers.radio_whole import whole_case
from vlm.cli.main import main
from vlm.encoder_export import is_encoder
from vlm.self_contained import flatten_imports

CHECK = Path(__file__).parents[1] / "helpers/bare_encoder_check.py"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    return build(tmp_path_factory.mktemp("bare") / "site")


def export(*words) -> int:
    return main(["export", *map(str, words)])


def check(encoder: RadioEncoder, out: Path, bare: Path, place: Path) -> dict:
    """What the bare environment found, compared with the encoder's own outputs."""
    pixels = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        own = encoder(pixels)
    outputs = {"summary": own.summary, "features": own.features}
    for name, head in (own.adaptors or {}).items():
        outputs |= {f"{name}.summary": head.summary, f"{name}.features": head.features}
    place.mkdir()
    torch.save({"pixels": pixels, "outputs": outputs}, place / "reference.pt")
    done = run_bare(CHECK.read_text(), bare, place, str(out), str(place / "reference.pt"), str(place / "again"))
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    for differences in (found["first"], found["again"]):
        assert set(differences) == set(outputs) and max(differences.values()) <= 1e-5
    return found


@pytest.mark.parametrize("form", ["ours", "hub"])
def test_an_encoder_with_everything_opens_bare(form, bare, tmp_path, capsys):
    case = whole_case(phi_s=form == "ours")
    source, heads = case.write_remote(tmp_path / "remote"), ["siglip2-g", "dino_v3_7b"]
    encoder = RadioEncoder.from_pretrained(source, adaptors=heads, vitdet_window_size=2, vitdet_num_global=2)
    encoder.save_pretrained(tmp_path / "ours")
    out = tmp_path / "out"
    if form == "ours":
        assert export(tmp_path / "ours", out) == 0
    else:
        source = case.write_hub(tmp_path / "c-radio_v4-h.pth.tar")
        assert export(source, out, "--adaptors", "siglip2-g", "dino_v3") == 0
        encoder = RadioEncoder.from_pretrained(source, adaptors=heads)
    found = check(encoder, out, bare, tmp_path / "run")
    assert found["class"] == "RadioVisionModel" and found["config"] == "RadioEncoderConfig"
    for path in out.glob("*.py"):
        assert flatten_imports(path.read_text(), path.name)[0] == path.read_text()
    card = (out / "README.md").read_text()
    assert all(head in card for head in heads) and "trust_remote_code=True" in card
    assert ("windows of 2 x 2" in card) == (form == "ours") and "NVIDIA Open Model License" in card
    again = RadioEncoder.from_pretrained(out)
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(again(pixels).features, encoder(pixels).features), "with the package it opens as before"


def test_a_plain_backbone_needs_no_code(bare, tmp_path):
    source, out = Case(FIXTURES / "a_plain").write_remote(tmp_path / "remote"), tmp_path / "out"
    assert export(source, out) == 0
    assert not list(out.glob("*.py")) and "trust_remote_code" not in (out / "README.md").read_text()
    found = check(RadioEncoder.from_pretrained(source), out, bare, tmp_path / "run")
    assert found["class"] == "RadioModel" and found["config"] == "RadioConfig"


def test_an_earlier_export_is_replaced_and_anything_else_left_alone(tmp_path, capsys):
    source, out = whole_case().write_remote(tmp_path / "remote"), tmp_path / "out"
    assert export(source, out) == 0 and list(out.glob("*.py"))
    plain = Case(FIXTURES / "a_plain").write_remote(tmp_path / "plain")
    assert export(plain, out) == 0 and not list(out.glob("*.py")), "code of the earlier export is gone"
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.py").write_text("years of work")
    assert export(source, tmp_path / "other") == 2 and "not empty" in capsys.readouterr().err
    assert export(source, source) == 2 and "the checkpoint itself" in capsys.readouterr().err
    assert (tmp_path / "other/thesis.py").is_file() and (source / "model.safetensors").is_file()


def test_what_cannot_be_exported_is_one_line(tmp_path, capsys):
    source = whole_case().write_remote(tmp_path / "remote")
    assert export(source, tmp_path / "out", "--adaptors", "clip") == 2
    assert "no adaptor 'clip'" in capsys.readouterr().err and not (tmp_path / "out").exists()
    (tmp_path / "llama").mkdir()
    (tmp_path / "llama/config.json").write_text('{"model_type": "llama"}')
    assert not is_encoder(tmp_path / "llama") and not is_encoder(tmp_path / "nowhere")
    assert export(tmp_path / "llama", tmp_path / "out", "--adaptors", "sam3") == 2
    assert "is no RADIO encoder" in capsys.readouterr().err
    assert export(tmp_path / "llama", tmp_path / "out") == 2
    assert "and RADIO encoders are exported" in capsys.readouterr().err

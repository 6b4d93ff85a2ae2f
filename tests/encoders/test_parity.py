"""Every output tensor of the public reference, from every form of checkpoint, within 5e-5."""

import pytest
import torch

from encoders import RadioCheckpointError, RadioEncoder
from tests.helpers.radio_fixtures import FIXTURES, Case, cases
from tests.helpers.radio_parity import compare, options, sources
from tests.helpers.shared import shared_path

WHOLE = [name for name in cases() if (FIXTURES / name / "inputs.safetensors").is_file() and name != "i_cpe_train"]


@pytest.mark.parametrize("name", WHOLE)
def test_fixtures(name, tmp_path):
    case = Case(FIXTURES / name)
    for form, source in sources(case, tmp_path).items():
        if form == "ours":
            encoder = RadioEncoder.from_pretrained(source)  # as it was saved: heads and windows included
        else:
            encoder = RadioEncoder.from_pretrained(source, **options(case))
        compare(encoder, case)


def test_all_recorded_cases(tmp_path):
    root = shared_path("fixtures/radio")
    names = [name for name in cases(root) if name != "i_cpe_train"]
    assert len(names) >= 12
    for name in names:
        case = Case(root / name)
        for source in sources(case, tmp_path / name).values() if (tmp_path / name).mkdir() is None else ():
            compare(RadioEncoder.from_pretrained(source, **options(case)), case)


def test_heads_of_a_release_come_from_its_hub_file(tmp_path):
    """As on the hub: the backbone as safetensors and the remote code's config, the heads in a torch.hub file."""
    case = Case(FIXTURES / "h_layerscale")
    heads = Case.__new__(Case)
    vars(heads).update(vars(case))
    torch.manual_seed(0)
    width = case.facts["embed_dim"]
    shapes = {"fc1.weight": (24, width), "fc1.bias": (24,), "final.0.weight": (24,), "final.0.bias": (24,)}
    shapes |= {"final.2.weight": (40, 24), "final.2.bias": (40,)}
    heads.weights = dict(case.weights)
    for half in ("head_mlp", "feat_mlp"):
        heads.weights |= {f"radio_model.adaptors.t1.{half}.{name}": torch.rand(shape) for name, shape in shapes.items()}
    repository = tmp_path / "models--nvidia--C-RADIOv4-H"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text("0" * 40)
    snapshot = case.write_remote(repository / "snapshots" / ("0" * 40))
    heads.write_hub(snapshot / "c-radio_v4-h_half.pth.tar")

    cached = {"cache_dir": tmp_path, "local_files_only": True}
    plain = RadioEncoder.from_pretrained("nvidia/C-RADIOv4-H", **cached)
    assert plain.report.kind == "remote_code" and not plain.adaptors
    with_head = RadioEncoder.from_pretrained("nvidia/C-RADIOv4-H", adaptors=["t1"], **cached)
    assert with_head.report.kind == "hub" and list(with_head.adaptors) == ["t1"]
    pixels = case.inputs["wide"]
    assert torch.equal(plain(pixels).features, with_head(pixels).features)
    with pytest.raises(RadioCheckpointError, match="it holds t1"):
        RadioEncoder.from_pretrained("c-radio_v4-h", adaptors=["sam3"], **cached)

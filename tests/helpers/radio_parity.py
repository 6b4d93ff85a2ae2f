"""Comparing `RadioEncoder` with the recorded outputs of the public reference; used by tests and by `make check`."""

from pathlib import Path

import torch

from encoders import RadioEncoder
from tests.helpers.radio_fixtures import Case

TOLERANCE = 5e-5


def options(case: Case) -> dict:
    facts = case.facts
    names = ("vitdet_window_size", "vitdet_num_global", "vitdet_num_windowed")
    return {"adaptors": facts.get("adaptor_names"), **{name: facts.get(name) for name in names}}


@torch.no_grad()
def produce(encoder: RadioEncoder, case: Case) -> dict[str, torch.Tensor]:
    """What the fixture recorded, under its names, from our encoder."""
    got = {}
    for key, pixels in case.inputs.items():
        out, maps = encoder(pixels), encoder(pixels, feature_fmt="NCHW")
        grid = [side // case.facts["patch_size"] for side in pixels.shape[-2:]]
        conditioned = encoder.input_conditioner(pixels)
        patches = encoder.condition(encoder.embeddings._image_to_patches(pixels).flatten(0, 1))
        embedded = encoder.embeddings(
            patches, grids=[tuple(grid)] * len(pixels), groups=[(tuple(grid), list(range(len(pixels))))]
        )
        got |= {
            f"{key}.tokens": out.last_hidden_state,
            f"{key}.conditioned": conditioned,
            f"{key}.embeddings": embedded[0],
            f"{key}.pos_embed": encoder.embeddings.positions(tuple(grid)),
        }
        for name in ("", ".backbone", ".final"):
            got |= {f"{key}{name}.summary": out.summary, f"{key}{name}.features": out.features}
            got[f"{key}{name}.features_nchw"] = maps.features
        for name, head in (out.adaptors or {}).items():
            got |= {f"{key}.{name}.summary": head.summary, f"{key}.{name}.features": head.features}
            got[f"{key}.{name}.features_nchw"] = maps.adaptors[name].features
        for call, arguments in (case.facts.get("calls") or {}).items():
            for i, entry in enumerate(encoder.forward_intermediates(pixels, **arguments)):
                if arguments.get("return_prefix_tokens"):
                    got[f"{key}.{call}.{i}.summary"], entry = entry
                got[f"{key}.{call}.{i}.features"] = entry
        if case.facts.get("vitdet_window_size"):
            window, encoder.config.vitdet_window_size = encoder.config.vitdet_window_size, None
            everywhere = encoder(pixels)
            got |= {f"{key}.global_summary": everywhere.summary, f"{key}.global_features": everywhere.features}
            encoder.config.vitdet_window_size = window
            assert not torch.allclose(everywhere.features, out.features, atol=0.1), "windows must matter"
    return got


def compare(encoder: RadioEncoder, case: Case, tolerance: float = TOLERANCE) -> float:
    """Largest absolute error over every tensor that the fixture recorded."""
    got = produce(encoder, case)
    wanted = {name: value for name, value in case.outputs.items() if not name.startswith("fold_")}
    assert set(wanted) <= set(got), "every recorded tensor is compared"
    worst = 0.0
    for name, value in wanted.items():
        assert got[name].shape == value.shape, name
        error = (got[name] - value).abs().max().item()
        assert error <= tolerance, f"{name}: {error}"
        worst = max(worst, error)
    return worst


def sources(case: Case, tmp_path: Path) -> dict[str, str]:
    """The case in every form of checkpoint, that of our own `save_pretrained` included."""
    if case.facts.get("spectral_reparam"):  # the fixture has hub names
        return {"hub": str(case.write_hub(tmp_path / "case.pth.tar"))}
    remote = str(case.write_remote(tmp_path / "remote"))
    RadioEncoder.from_pretrained(remote, **options(case)).save_pretrained(tmp_path / "ours")
    return {
        "remote": remote,
        "hub": str(case.write_hub(tmp_path / "case.pth.tar")),
        "hub_ema": str(case.write_hub(tmp_path / "ema.pth.tar", ema=True)),
        "ours": str(tmp_path / "ours"),
    }

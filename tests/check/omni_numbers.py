"""Parity with transformers' native `nemotron_h_omni`: patch grids, EVS masks, features and logits.

Recorded numbers come from the shared folder, or from `tests/fixtures/omni` where that is absent; live ones from the
native class in this process, on weights and pictures drawn anew. Mamba steps have the native bound, see
`tests/vlm/test_omni_parity.py`; what the configuration's own bound changes is a row too.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.check.targets import Number, table  # noqa: E402

TOLERANCE = "<= 1e-05"


def grids(path: Path) -> list[Number]:
    """Patch grids against the recorded ones; where the reference divides by zero, a legal grid within the budget."""
    from vlm.geometry import Size, check_geometry, plan_prompt

    def plan(height: int, width: int, patch: int, multiple: int, low: int, high: int) -> tuple[int, int]:
        geometry = {"patch_size": patch, "multiple": multiple, "min_num_patches": low, "max_num_patches": high}
        (found,) = plan_prompt([Size(height, width)], check_geometry(geometry)).plans
        return tuple(found.maps[0])

    data = json.loads(path.read_text())
    same = sum(plan(*row[:6]) == tuple(row[6:]) for row in data["rows"])
    answered = 0
    for height, width, patch, multiple, low, high in data["reference_crashes"]:
        h, w = plan(height, width, patch, multiple, low, high)
        legal = min(h, w) > 0 and h % multiple == w % multiple == 0 and h * w <= high
        answered += legal and (h > w) == (height > width)
    return [
        Number("Omni: patch grids recorded", "", len(data["rows"]), path.name),
        Number("Omni: patch grids that differ", "<= 0", len(data["rows"]) - same, path.name),
        Number("Omni: sizes on which the reference divides by zero", "", len(data["reference_crashes"]), path.name),
        Number("Omni: of these without a legal grid", "<= 0", len(data["reference_crashes"]) - answered, path.name),
    ]


def masks(path: Path) -> list[Number]:
    """EVS masks: recorded cases, and the native function on random videos that stand still in places."""
    import torch
    from safetensors.torch import load_file
    from transformers.models.nemotron_h_omni.modeling_nemotron_h_omni import compute_retention_mask

    from vlm.evs import kept_tokens, retention_mask

    def ours(embeds: torch.Tensor, thw: list[int], rate: float) -> torch.Tensor:
        frames, height, width = thw
        keep = kept_tokens(frames, height * width, rate)
        return retention_mask(embeds.view(frames, height * width, -1), keep).flatten()

    stored = load_file(path)
    count = len(stored) // 4
    differ = 0
    for i in range(count):
        embeds, thw, rate, keep = (stored[f"{i}.{name}"] for name in ("embeds", "thw", "q", "keep"))
        differ += not torch.equal(ours(embeds, thw.tolist(), rate.item()), keep)
    draw = torch.Generator().manual_seed(0)
    live, wrong = 200, 0
    for _ in range(live):
        frames, height, width = (int(torch.randint(1, high, (), generator=draw)) for high in (12, 9, 9))
        rate = float(torch.rand((), generator=draw))
        embeds = torch.randn(frames, height, width, 16, generator=draw)
        for t in range(1, frames):
            still = torch.rand(height, width, generator=draw) < 0.6
            embeds[t][still] = embeds[t - 1][still]
        thw, flat = (frames, height, width), embeds.view(-1, 16)
        wanted = compute_retention_mask(video_embeds=flat, thw=thw, spatial_merge_size=1, q=rate)
        wrong += not torch.equal(ours(embeds, list(thw), rate), wanted)
    return [
        Number(f"Omni: EVS masks of {count} recorded cases that differ", "<= 0", differ, path.name),
        Number(f"Omni: EVS masks of {live} random videos that differ", "<= 0", wrong, "compute_retention_mask"),
    ]


def recorded(folder: Path) -> list[Number]:
    """Outputs that the native class computed from the shared checkpoint.

    They are float32, of values up to 12, which the native class itself misses by more than 1e-5 on another CPU. So the
    target is for ours in float64; both float32 errors are reported beside it.
    """
    from safetensors.torch import load_file

    from tests.helpers.omni import (
        NemotronH_Omni_Reasoning_V3,
        errors,
        native_config,
        native_outputs,
        omni_model,
        our_config,
        our_outputs,
    )

    inputs = load_file(folder / "forward.safetensors")
    weights = load_file(folder / "checkpoint/model.safetensors")
    model = omni_model(our_config(native_config(folder / "checkpoint")), weights)
    native = NemotronH_Omni_Reasoning_V3.from_pretrained(folder / "checkpoint").eval()
    single, theirs = our_outputs(model, inputs), native_outputs(native, inputs)
    live, off, native_off = errors(single, theirs), errors(single, inputs), errors(theirs, inputs)
    double = errors(our_outputs(model.double(), inputs), {name: inputs[name].double() for name in single})
    rows = []
    for name in single:
        title, typed = f"Omni: {name.replace('_', ' ')}", "tests/vlm/test_omni_parity.py"
        rows += [
            Number(f"{title}, recorded, largest error in float64", TOLERANCE, double[name], typed),
            Number(f"{title}, recorded checkpoint, against the native class", TOLERANCE, live[name], typed),
            Number(f"{title}, recorded, float32, ours", "", off[name], typed),
            Number(f"{title}, recorded, float32, the native class", "", native_off[name], typed),
        ]
    return rows


def live(out: Path) -> list[Number]:
    """The hashed model with its recorded outputs, and five models of drawn weights against the native class."""
    import torch
    from safetensors.torch import load_file

    from llm.prepare import prepare_language_model
    from tests.helpers.omni import (
        FIXTURES,
        RECORDED,
        errors,
        hashed_inputs,
        native_config,
        native_model,
        native_outputs,
        omni_model,
        our_config,
        our_outputs,
        public_weights,
    )

    config, wanted = native_config(FIXTURES), load_file(FIXTURES / RECORDED)
    native, inputs = native_model(config, seed=None), hashed_inputs(config)
    weights = public_weights(native, out)
    found = errors(our_outputs(omni_model(our_config(config), weights), inputs), wanted)
    free = our_outputs(omni_model(our_config(config, native_clamp=False), weights), inputs)["logits"]
    rows = [
        Number(f"Omni: {name.replace('_', ' ')}, hashed weights, largest error", TOLERANCE, value, RECORDED)
        for name, value in found.items()
    ]
    for name, title, target in (
        ("logits_config_limit", "largest error under the configuration's bound of the steps", TOLERANCE),
        ("logits", "what that bound changes (transformers#48989)", ""),
    ):
        rows.append(Number(f"Omni: logits, {title}", target, (free - wanted[name]).abs().max().item(), RECORDED))
    worst, prepared = dict.fromkeys(found, 0.0), 0.0
    draw = torch.Generator().manual_seed(0)
    for seed in range(5):
        native = native_model(config, seed)
        model = omni_model(our_config(config), public_weights(native, out))
        inputs |= {"pixel_values": torch.randn(inputs["pixel_values"].shape, generator=draw)}
        inputs |= {"pixel_values_videos": torch.randn(3 + seed, 3, 32 + 32 * (seed % 3), 96, generator=draw)}
        wanted = native_outputs(native, inputs)
        for name, value in errors(our_outputs(model, inputs), wanted).items():
            worst[name] = max(worst[name], value)
        prepare_language_model(model.language_model)
        prepared = max(prepared, errors(our_outputs(model, inputs), wanted)["logits"])
    for name, value in worst.items():
        title = f"Omni: {name.replace('_', ' ')}, five models of drawn weights, largest error"
        rows.append(Number(title, TOLERANCE, value, "NemotronH_Omni_Reasoning_V3"))
    title = "Omni: logits, the same with our own Mamba scan, largest error"
    rows.append(Number(title, TOLERANCE, prepared, "llm.prepare_language_model"))
    return rows


def omni_numbers(out: Path, shared: Path = ROOT.parent / "shared") -> list[Number]:
    """All rows; `out` takes checkpoints, `shared` is the folder of licence-bound data."""
    out.mkdir(parents=True, exist_ok=True)
    own, theirs = ROOT / "tests/fixtures/omni", shared / "fixtures/omni"
    whole = theirs / "patch_grids.json"
    rows = grids(whole if whole.is_file() else own / "patch_grids_sample.json")
    rows += masks(own / "evs.safetensors")
    rows += recorded(theirs) if theirs.is_dir() else []
    return rows + live(out)


if __name__ == "__main__":
    print(table(omni_numbers(Path(sys.argv[1]))))

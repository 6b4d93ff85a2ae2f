"""Two ranks under DeepSpeed: the loss of one process, a skipped step that changes nothing, averages, the first step's
gradients, and small updates in bf16, seen from inside the run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.stage_runs import ROOT, launch, save_small_vlm

PROBE = ROOT / "tests/helpers/step_probe.py"
WORDS = ("watch.bad_loss=skip", "ema_decay=0.8", "log_steps=1", "loss_average=turn", "z_loss=1e-3", "max_grad_norm=0")
SKIPPED = 2


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> str:
    return f"model={save_small_vlm(tmp_path_factory.mktemp('start'))}"


def run(out: Path, *words: str, processes: int = 2, spoiled: int = SKIPPED) -> tuple[list[dict], list[dict]]:
    """(what each rank wrote, rank 0's whole weights before the first step and after each)."""
    done = launch(PROBE, [str(out), str(spoiled), *WORDS, *words], processes)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    ranks = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(max(processes, 1))]
    return ranks, torch.load(out / "weights.pt")


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def check_run(out: Path, ranks: list[dict], weights: list[dict], alone: list[dict] | None) -> None:
    for rank in ranks:
        assert [step["skipped"] for step in rank["steps"]] == [number + 1 == SKIPPED for number in range(4)]
        assert rank["checked"]
        before, after, later = (rank["steps"][index] for index in (SKIPPED - 2, SKIPPED - 1, SKIPPED))
        assert before["moments"] == after["moments"] != later["moments"]
        assert before["ema"] == after["ema"] != later["ema"]
    assert same(weights[SKIPPED - 1], weights[SKIPPED]) and not same(weights[SKIPPED], weights[SKIPPED + 1])
    # the schedule counts steps, not updates
    rates = [rate for _, _, rate in ranks[0]["history"]]
    assert rates == pytest.approx([1e-3 * (1 - step / 4) for step in range(4)])
    average = weights[0]
    for index in (1, 3, 4):
        average = {name: 0.8 * average[name] + 0.2 * weights[index][name] for name in average}
    saved = load_file(out / "ema/model.safetensors")
    for name, value in average.items():
        torch.testing.assert_close(saved[name].float(), value, atol=1e-6, rtol=1e-5, msg=name)
    if alone is not None:
        found, wanted = ([loss for _, loss, _ in rows[0]["history"]] for rows in (ranks, alone))
        assert found == pytest.approx(wanted, abs=1e-4)
        assert ranks[0]["sources"] == pytest.approx(alone[0]["sources"], abs=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, start) -> list[dict]:
    """The same global batches in one process."""
    out = tmp_path_factory.mktemp("alone")
    ranks, weights = run(out, start, "max_steps=4", "schedule=linear", "per_device_batch_size=2", processes=0)
    check_run(out, ranks, weights, None)
    return ranks


CASES = ["zero2", "zero3", *(pytest.param(zero, marks=pytest.mark.slow) for zero in ("zero1", "zero3_offload", "none"))]


@pytest.mark.parametrize("zero", CASES)
def test_two_ranks_train_as_one_and_skip_alike(tmp_path, start, alone, zero: str):
    ranks, weights = run(tmp_path, start, "max_steps=4", "schedule=linear", "per_device_batch_size=1", f"zero={zero}")
    check_run(tmp_path, ranks, weights, alone)


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_muon_keeps_its_momentum_over_a_skipped_step(tmp_path, start, zero: str):
    words = (start, "max_steps=4", "schedule=linear", "per_device_batch_size=1", "optimizer=muon", f"zero={zero}")
    ranks, weights = run(tmp_path, *words)
    assert same(weights[SKIPPED - 1], weights[SKIPPED]) and not same(weights[SKIPPED], weights[SKIPPED + 1])
    for rank in ranks:
        assert rank["steps"][SKIPPED - 2]["moments"] == rank["steps"][SKIPPED - 1]["moments"]


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_tiny_updates_in_bf16_are_kept_by_zero(tmp_path, start, zero: str):
    words = (start, "max_steps=4", "schedule=constant", "learning_rate=1e-6", "precision=bf16", f"zero={zero}")
    ranks, weights = run(tmp_path, *words, "per_device_batch_size=1", spoiled=0)
    name = "language_model.model.layers.2.mixer.up_proj.weight"
    moved = (weights[4][name] - weights[0][name]).abs()
    assert 1e-6 < moved.median() < 5e-6
    start = weights[0][name].bfloat16()
    assert torch.equal(start - 4e-6, start) or (start - 4e-6 == start).float().mean() > 0.9, "control"
    saved = load_file(tmp_path / "ema/model.safetensors")
    assert saved[name].dtype == torch.bfloat16

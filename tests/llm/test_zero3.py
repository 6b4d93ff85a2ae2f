"""ZeRO-3 with every tensor in pieces, on two CPU ranks: packed rows without logits give the losses and the weights of
one process. Tensors that the mixers and the loss use outside their modules' forward (convolution, A_log, D, dt_bias,
head, tied embeddings) are the point: a gather that is missed is an error of shapes, a gradient that is lost a weight
that stood still.
"""

import importlib.util

import pytest

from llm import families
from tests.helpers.zero3_llm import run_ranks

OUTSIDE = ("conv1d.weight", "A_log", ".D", "dt_bias", "dt_proj.weight", "lm_head.weight", "embed_tokens.weight")
QUICK = ["nemotron_h", "llama:tied", "nemotron_h:spoiled"]
FULL = [*(name for name in families() if name not in QUICK), "falcon_h1:tied", "llama:plain", "jamba:plain"]
ADAPTERS = ["nemotron_h:lora", "zamba2:lora", "jamba:lora", "mamba2:untied:head", "bamba:untied:head"]


def losses_of(cases: list[str], folder, timeout: float) -> dict[str, list[dict]]:
    if importlib.util.find_spec("deepspeed") is None:
        pytest.skip("optional package absent: deepspeed")
    return run_ranks(cases, folder, timeout)


def check_equal(results: dict[str, list[dict]], least_fall: float) -> None:
    for case, ranks in results.items():
        first, second = ranks
        assert first["wanted"] != second["wanted"], f"{case}: the ranks had the same data"
        for result in ranks:
            assert result["sharded"] == result["parameters"] > 0, case
            assert result["found"] == pytest.approx(result["wanted"], abs=1e-4), case
            assert result["wanted"][-1] < result["wanted"][0] - least_fall, f"{case}: the control, learning"
            for name, (step, error) in result["moved"].items():
                assert error <= 1e-2 or error * step < 1e-6, f"{case}: {name}"


def check_all_moved(results: dict[str, list[dict]]) -> None:
    for case, (result, _) in results.items():
        steps = {name: step for name, (step, _) in result["moved"].items() if name.endswith(OUTSIDE)}
        assert len(steps) > 0 and all(step > 0 for step in steps.values()), f"{case}: {steps}"


def test_two_ranks_compute_what_one_process_does(tmp_path):
    results = losses_of(QUICK, tmp_path, timeout=150)
    for result in results.pop("nemotron_h:spoiled"):
        assert abs(result["found"][0] - result["wanted"][0]) > 1e-3, "the control: another convolution shows"
    check_equal(results, least_fall=0.5)
    check_all_moved(results)
    mixers = [name for name in results["nemotron_h"][0]["moved"] if name.endswith(OUTSIDE[:4])]
    assert len(mixers) == 8, "two Mamba layers"
    assert not any("lm_head" in name for name in results["llama:tied"][0]["moved"]), "one tensor, head and embeddings"


@pytest.mark.slow
def test_every_family(tmp_path):
    results = losses_of(FULL, tmp_path, timeout=400)
    check_equal(results, least_fall=0.5)
    check_all_moved(results)


@pytest.mark.slow
def test_adapters_and_heads_that_ranks_call_unequally_often(tmp_path):
    results = losses_of(ADAPTERS, tmp_path, timeout=400)
    check_equal(results, least_fall=0.01)
    for case, (result, _) in results.items():
        assert result["adapters"] * 2 == len(result["moved"]), f"{case}: A and B of every adapter, and nothing else"
        assert all(step > 0 for step, _ in result["moved"].values()), case

"""The guard against bad losses: what it calls bad, what it does then, whom it names, and that ranks agree."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.helpers.stage_runs import ROOT, child_environment, free_port
from tests.helpers.watched_stage import prepare, run
from training.watch.bad_loss import MOST_SKIPS, BadLoss, BadLossGuard, BadLossMemory

IDS = (["a7", "a9"], ["documents", "text"])


def check(guard: BadLossGuard, loss: float, step: int = 1) -> str:
    return guard.check(step, torch.tensor(loss), *IDS)


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "bad_losses.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_stop_names_the_samples_and_their_sources(tmp_path, loss):
    guard = BadLossGuard("stop", 0.0, tmp_path)
    assert check(guard, 2.0) == "ok"
    with pytest.raises(BadLoss, match=r"step 7: the loss is not finite.*documents: a7; text: a9"):
        check(guard, loss, step=7)
    (line,) = lines(tmp_path)
    assert line["step"] == 7 and line["action"] == "stop"
    assert line["samples"] == [
        {"id": "a7", "source": "documents", "rank": 0}, {"id": "a9", "source": "text", "rank": 0},
    ]  # fmt: skip


@pytest.mark.parametrize("action", ["skip", "warn"])
def test_skip_and_warn_go_on_and_write_it_down(tmp_path, caplog, action):
    guard = BadLossGuard(action, 0.0, tmp_path)
    assert check(guard, math.nan) == action
    assert guard.check_gradients(2, math.inf, *IDS) == action
    assert guard.check_gradients(3, 1.0, *IDS) == "ok"
    assert [line["reason"] for line in lines(tmp_path)] == ["the loss is not finite", "the gradient is not finite"]
    assert "a7" in caplog.text


def test_a_spike_is_measured_by_the_median_of_the_steps_before(tmp_path):
    guard = BadLossGuard("skip", 3.0, tmp_path)
    assert check(guard, 100.0) == "ok"  # the first steps have nothing to be measured by
    for _ in range(20):
        assert check(guard, 2.0) == "ok"
    assert check(guard, 5.9) == "ok"
    assert check(guard, 6.1) == "skip"
    assert check(guard, 6.1) == "skip"  # what was left out does not make the next one usual
    assert lines(tmp_path)[0]["median"] == 2.0 and "3.0 times the median" in lines(tmp_path)[0]["reason"]
    assert check(BadLossGuard("stop", 0.0, tmp_path), 1e9) == "ok"  # no limit asked for


def test_skipping_without_end_stops(tmp_path):
    guard = BadLossGuard("skip", 0.0, tmp_path)
    for _ in range(MOST_SKIPS):
        assert check(guard, math.nan) == "skip"
    with pytest.raises(BadLoss, match="not a matter of single samples"):
        check(guard, math.nan)
    guard = BadLossGuard("skip", 0.0, tmp_path)
    for _ in range(3 * MOST_SKIPS):  # good steps in between
        assert (check(guard, math.nan), check(guard, 1.0), guard.check_gradients(1, 1.0, *IDS)) == ("skip", "ok", "ok")


def test_skipping_without_end_stops_also_where_only_the_gradients_are_bad(tmp_path):
    guard = BadLossGuard("skip", 0.0, tmp_path)
    for step in range(MOST_SKIPS):
        assert (check(guard, 1.0, step), guard.check_gradients(step, math.inf, *IDS)) == ("ok", "skip")
    assert check(guard, 1.0) == "ok"
    with pytest.raises(BadLoss, match="not a matter of single samples"):
        guard.check_gradients(MOST_SKIPS, math.inf, *IDS)


def test_a_gradient_that_no_update_comes_of_is_said_to_be_left_out(tmp_path, caplog):
    guard = BadLossGuard("warn", 0.0, tmp_path)
    for step in range(2 * MOST_SKIPS):  # a warning never stops
        assert guard.check_gradients(step, math.inf, *IDS, useless=True) == "skip"
    assert "the step was left out" in caplog.text and lines(tmp_path)[0]["action"] == "skip"
    assert guard.check_gradients(1, 1.0, *IDS, useless=True) == "ok"
    with pytest.raises(BadLoss):
        BadLossGuard("stop", 0.0, tmp_path).check_gradients(1, math.inf, *IDS, useless=True)


def test_its_memory_comes_back_with_a_checkpoint(tmp_path):
    guard = BadLossGuard("skip", 2.0, tmp_path)
    for loss in range(60):
        check(guard, 1.0 + loss / 100)
    stored = json.loads(json.dumps(BadLossMemory(guard).state()))
    fresh = BadLossGuard("skip", 2.0, tmp_path)
    state = SimpleNamespace(global_step=60, stateful_callbacks={"BadLossMemory": stored})
    BadLossMemory(fresh).on_train_begin(None, state, None)
    assert fresh.recent == guard.recent and len(fresh.recent) == 50
    assert check(fresh, 3.0) == check(guard, 3.0) == "skip"


def test_a_resumed_stage_remembers_the_losses_before(tmp_path):
    prepare(tmp_path)
    whole = run(tmp_path, "whole", "save_steps=2", "watch.report_to=[]")
    resumed = run(tmp_path, "resumed", "save_steps=2", "watch.report_to=[]", f"resume={whole / 'checkpoint-2'}")

    def remembered(folder) -> list[float]:
        state = json.loads((folder / "checkpoint-4/trainer_state.json").read_text())
        return state["stateful_callbacks"]["BadLossMemory"]["attributes"]["recent"]

    assert len(remembered(whole)) == 4
    assert remembered(resumed) == pytest.approx(remembered(whole), rel=1e-6)


def test_a_stage_that_explodes_stops_before_its_weights_are_lost(tmp_path):
    prepare(tmp_path)
    with pytest.raises(BadLoss, match=r"step \d.*samples: data: s\d+"):
        run(tmp_path, "out", "learning_rate=1e30", "max_steps=8", "max_grad_norm=0", "watch.report_to=[]")
    (line,) = lines(tmp_path / "out")
    assert len(line["samples"]) == 2 and line["action"] == "stop"


RANK = """
import sys, torch
from pathlib import Path
from training.watch.bad_loss import BadLoss, BadLossGuard
rank, port, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
guard = BadLossGuard("stop", 0.0, folder)
assert guard.check(1, torch.tensor(float(rank)), [f"r{rank}"], ["s"]) == "ok"
assert guard.recent[-1] == 0.5  # the mean over the ranks
try:
    guard.check(2, torch.tensor(float("nan") if rank == 1 else 1.0), [f"r{rank}"], ["s"])
except BadLoss as error:
    print(error)
"""


def test_a_nan_of_one_rank_stops_all_and_names_the_samples_of_all(tmp_path):
    words = [sys.executable, "-c", RANK]
    port = str(free_port())
    ranks = [
        subprocess.Popen([*words, str(rank), port, str(tmp_path)], cwd=ROOT, env=child_environment(), text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(2)
    ]  # fmt: skip
    said = [rank.communicate(timeout=60) for rank in ranks]
    for out, error in said:
        assert "samples: s: r0, r1" in out, error
    (line,) = lines(tmp_path)  # written once
    assert [sample["rank"] for sample in line["samples"]] == [0, 1]

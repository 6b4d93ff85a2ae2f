"""Figures of a running stage: counted as they went through, shown in one line, and alike in logs and loggers."""

import logging
import time
from types import SimpleNamespace

import pytest
import torch

from training.watch.figures import Figures, group_rates
from training.watch.progress import Progress, clock, progress_line
from training.watch.throughput import Throughput


def batch(real: int, width: int, pictures: int = 0, patches: int = 0) -> dict:
    mask = torch.zeros(1, width, dtype=torch.long)
    mask[0, :real] = 1
    made = {"input_ids": torch.zeros(1, width, dtype=torch.long), "attention_mask": mask, "sample_ids": ["x"]}
    if pictures:
        made |= {"image_grid_hw": torch.ones(pictures, 2), "pixel_values": torch.zeros(patches, 3)}
    return made


def throughput(**options) -> Throughput:
    return Throughput(torch.device("cpu"), **options)


def test_counts_of_batches_and_of_the_steps_since_the_last_log():
    seen = throughput(flops=lambda batch: 1e12 * batch["input_ids"].shape[1], peak_tflops=100.0)
    seen.add(batch(6, 8, pictures=2, patches=20), waited=0.01)
    time.sleep(0.05)
    seen.step_done()
    first = seen.interval()
    assert first["real_token_share"] == 0.75
    seconds = seen.seconds
    assert first["tokens_per_second"] == pytest.approx(6 / seconds, rel=0.01)
    assert first["media_per_second"] == pytest.approx(2 / seconds, rel=0.01)
    assert first["patches_per_second"] == pytest.approx(20 / seconds, rel=0.01)
    assert first["data_wait_share"] == pytest.approx(0.01 / seconds, abs=1e-3)
    assert first["tflops_per_device"] == pytest.approx(8 / seconds, rel=0.01)
    assert first["mfu"] == pytest.approx(8 / seconds / 100, abs=1e-3)
    seen.add(batch(4, 4), waited=0.0)
    seen.step_done()
    assert seen.interval()["real_token_share"] == 1.0  # of the second step alone
    whole = seen.read(1)
    assert whole["real_token_share"] == round(10 / 12, 4) and whole["steps"] == 2


def test_what_runs_while_the_clock_stands_is_no_training_time():
    seen = throughput()
    with seen.paused():
        time.sleep(0.2)
    seen.step_done()
    assert seen.seconds < 0.1


def test_without_a_known_peak_there_is_no_utilisation():
    seen = throughput(flops=lambda batch: 1e12)
    seen.add(batch(4, 4), 0.0)
    seen.step_done()
    assert "mfu" not in (figures := seen.interval()) and figures["tflops_per_device"] > 0
    assert "tflops_per_device" not in throughput().interval()


def test_logs_and_history_hold_the_same_figures_and_the_rates_of_the_step():
    optimizer = SimpleNamespace(param_groups=[{"name": "vision/matrix", "lr": 0.5}, {"name": "text/other", "lr": 0.25}])
    packing = {"packing": {"fill": 0.97}}
    figures = Figures(throughput(), lambda: {"pages": 1.25}, lambda: group_rates(optimizer), lambda: packing)
    state = SimpleNamespace(log_history=[{"loss": 1.0, "step": 3}])
    figures.on_pre_optimizer_step(None, state, None)
    optimizer.param_groups[0]["lr"] = 0.4  # the schedule goes on before the log
    logs = {"loss": 1.0}
    figures.on_log(None, state, None, logs=logs)
    assert logs["source_loss/pages"] == 1.25 and logs["lr/vision/matrix"] == 0.5 and logs["lr/text/other"] == 0.25
    assert {"tokens_per_second", "memory_gb", "real_token_share"} <= set(logs) and logs["packing_fill"] == 0.97
    assert state.log_history[-1] == {**logs, "step": 3}
    summary = {"train_loss": 1.0}
    figures.on_log(None, state, None, logs=summary)
    assert summary == {"train_loss": 1.0}


LOGS = {
    "loss": 1.2345, "source_loss/a": 0.5, "source_loss/b": 2.0, "tokens_per_second": 12345.6, "real_token_share": 0.97,
    "mfu": 0.412, "memory_gb": 61.23,
}  # fmt: skip


def test_the_line():
    line = progress_line(LOGS)
    assert line == "loss 1.234 (b 2.00, a 0.50), 12,346 tok/s, 97% real, MFU 41.2%, 61.2 GB"
    assert progress_line({"loss": 1.0}) == "loss 1.000"
    assert progress_line({"loss": 1.0, "real_token_share": 1.0, "packing_fill": 0.974}) == "loss 1.000, 97.4% full"
    assert (clock(65), clock(3661)) == ("1:05", "1:01:01")


def test_lines_now_and_then_where_there_is_no_terminal(caplog):
    seen = throughput()
    progress = Progress(seen, "tuning", max_seconds=None, terminal=False)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0, max_steps=400)
    control = SimpleNamespace(should_training_stop=False)
    progress.on_train_begin(None, state, control)
    seen.started, seen.stopped = 0.0, 50.0
    with caplog.at_level(logging.INFO, logger="training"):
        for state.global_step in (100, 101, 102, 400):
            progress.on_step_end(None, state, control)
            progress.on_log(None, state, control, logs=LOGS)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2  # the first and the last; those between came too soon
    assert said[0].startswith("tuning 100/400: loss 1.234") and said[0].endswith("2:30 left")
    assert said[1].startswith("tuning 400/400") and "left" not in said[1]


def test_the_time_left_is_bounded_by_the_time_limit():
    seen = throughput()
    progress = Progress(seen, "x", max_seconds=60.0, terminal=False)
    seen.started, seen.stopped = 0.0, 50.0
    assert progress.remaining(SimpleNamespace(global_step=10, max_steps=1000)) == 10.0


def test_a_terminal_gets_a_bar(capfd):
    seen = throughput()
    progress = Progress(seen, "tuning", max_seconds=None, terminal=True)
    state = SimpleNamespace(is_world_process_zero=True, global_step=0, max_steps=4)
    control = SimpleNamespace(should_training_stop=False)
    progress.on_train_begin(None, state, control)
    for state.global_step in (1, 2, 3, 4):
        progress.on_step_end(None, state, control)
        progress.on_log(None, state, control, logs=LOGS)
    progress.on_train_end(None, state, control)
    shown = capfd.readouterr().err
    assert "4/4" in shown and "\r" in shown

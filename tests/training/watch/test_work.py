"""The arithmetic of a batch: padding and packing do not change what a sample asks for."""

import json

import pytest
import torch

from tests.helpers.stage_runs import small_vlm
from tests.helpers.watched_stage import prepare, run
from training.flops import step_flops
from training.watch.work import batch_flops, peak_tflops, sample_lengths


def test_lengths_of_padded_and_of_packed_samples():
    ids = torch.zeros(2, 6, dtype=torch.long)
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0]])
    assert sample_lengths({"input_ids": ids, "attention_mask": mask}) == [5, 2]
    numbers = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=torch.int32)
    assert sample_lengths({"input_ids": ids, "attention_mask": mask, "seq_idx": numbers}) == [3, 2, 2]
    assert sample_lengths({"input_ids": ids}) == [6, 6]


def test_a_batch_asks_for_what_its_samples_ask_for():
    model, processor = small_vlm()
    rows = [processor.encode([{"role": "user", "content": "word " * n}, {"role": "assistant", "content": "yes"}])
            for n in (1, 30)]  # fmt: skip
    count = batch_flops(model)
    padded = processor.collate(rows)
    assert padded["attention_mask"].eq(0).any()
    assert count(padded) == pytest.approx(sum(count(processor.collate([row])) for row in rows))
    lengths = [len(row["input_ids"]) for row in rows]
    labelled = sum(int(row["labels"].ne(-100).sum()) for row in rows)
    assert count(padded) == pytest.approx(step_flops(model, sum(lengths), 0, lengths, [], labelled))


def test_the_peak_is_the_recipes_word_or_a_known_gpus():
    assert peak_tflops(torch.device("cpu"), None) is None
    assert peak_tflops(torch.device("cpu"), 3.5) == 3.5


def test_a_stage_reports_its_utilisation(tmp_path):
    prepare(tmp_path)
    out = run(tmp_path, "out", "watch.peak_tflops=0.05", "watch.report_to=[]", "max_steps=2")
    entry = json.loads((out / "trainer_state.json").read_text())["log_history"][1]
    whole = json.loads((out / "throughput.json").read_text())
    for figures in (entry, whole):
        assert figures["mfu"] == pytest.approx(figures["tflops_per_device"] / 0.05, abs=0.003)
        assert figures["tflops_per_device"] > 0

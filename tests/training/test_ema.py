"""Averaged weights against the formula, over skipped steps, a resumed run, and as a model folder of their own."""

import copy
import json

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainerCallback

import vlm  # noqa: F401
from tests.helpers.data_folders import record, write_records
from tests.helpers.small_training import ALONE, batches_of, mixed_samples, small_trainer, weights_of
from tests.helpers.stage_runs import save_small_vlm, small_vlm
from training.ema import Ema
from training.recipe.loading import load_recipe
from training.stage import train_stage
from vlm.errors import RadioVLMError

DECAY = 0.8


class Snapshots(TrainerCallback):
    def __init__(self):
        self.weights = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights_of(model))

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights_of(model))


def test_the_average_is_that_of_the_formula_and_a_folder_that_loads(tmp_path):
    built = small_vlm()
    built[0].config.get_text_config().use_cache = False  # as a stage loads it
    seen = Snapshots()
    batches = batches_of(built[1], mixed_samples(built[1]), 2)
    words = ("max_steps=4", f"ema_decay={DECAY}", "modules.vision.freeze=true")
    trainer = small_trainer(tmp_path, batches, *words, built=built, callbacks=[seen])
    trainer.train()
    average = seen.weights[0]
    for weights in seen.weights[1:]:
        average = {name: DECAY * average[name] + (1 - DECAY) * weights[name] for name in average}
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "ema")
    assert AutoProcessor.from_pretrained(tmp_path / "ema").tokenizer is not None
    last = seen.weights[-1]
    for name, parameter in loaded.named_parameters():
        torch.testing.assert_close(parameter, average[name], atol=1e-6, rtol=1e-5, msg=name)
    moved = {name for name, value in loaded.named_parameters() if not torch.equal(value, last[name])}
    assert moved == {name for name in last if not name.startswith("vision_model.")}
    assert all(torch.equal(value, last[name]) for name, value in weights_of(trainer.model).items()), "put back"
    assert loaded.config.get_text_config().use_cache and not trainer.model.config.get_text_config().use_cache


def test_pieces_of_any_number_of_ranks_make_the_whole(tmp_path):
    """What three ranks saved, one takes up; a piece that is missing is noticed."""
    model, _ = small_vlm()
    whole = Ema(model, DECAY)
    wanted = {name: torch.randn_like(average) for name, average in whole.averages.items()}
    for rank in range(3):
        part = copy.copy(whole)
        part.sharded, part.averages, part.starts = True, {}, {}
        for name, average in wanted.items():
            cut = [len(average) * index // 3 for index in range(4)]
            if cut[rank] < cut[rank + 1]:
                part.averages[name], part.starts[name] = average[cut[rank] : cut[rank + 1]], cut[rank]
        part.save(tmp_path, rank)
    whole.load(tmp_path)
    assert all(torch.equal(whole.averages[name], average) for name, average in wanted.items())
    (tmp_path / "ema-rank1.safetensors").unlink()
    with pytest.raises(RadioVLMError, match="do not cover"):
        whole.load(tmp_path)
    with pytest.raises(RadioVLMError, match="written without it"):
        whole.load(tmp_path / "none")


def test_resumed_averages_losses_and_rates_are_those_of_an_uninterrupted_run(tmp_path):
    save_small_vlm(tmp_path / "stage0")
    records = [record(f"s{i}", question=f"{i}?", answer=str(10 + 7 * i) * (i % 3 + 1)) for i in range(6)]
    write_records(tmp_path / "data", records)

    def run(out: str, *words: str):
        common = (f"model={tmp_path / 'stage0'}", f"data.sources=[{{path: {tmp_path / 'data'}}}]", "max_steps=6")
        options = (f"ema_decay={DECAY}", "per_device_batch_size=1", "save_steps=3", "log_steps=1", "learning_rate=1e-3",
                   "schedule=wsd", "decay_ratio=0.5", "min_lr_ratio=0.1", "loss_average=turn", "z_loss=1e-3",
                   "watch.report_to=[]", f"output_dir={tmp_path / out}")  # fmt: skip
        train_stage(load_recipe(None, [*common, *options, *words]), ALONE)
        history = json.loads((tmp_path / out / "trainer_state.json").read_text())["log_history"]
        rows = {row["step"]: (row["loss"], row["learning_rate"]) for row in history if "loss" in row}
        return rows, AutoModelForImageTextToText.from_pretrained(tmp_path / out / "ema").state_dict()

    whole, average = run("whole")
    resumed, found = run("resumed", f"resume={tmp_path / 'whole/checkpoint-3'}")
    assert len(whole) == 6 and all(resumed[step] == pytest.approx(row, rel=1e-6) for step, row in whole.items())
    assert all(torch.equal(found[name], value) for name, value in average.items())

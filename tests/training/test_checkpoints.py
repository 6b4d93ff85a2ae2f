"""Checkpoints: which are whole, which is the newest, which go; what a resume refuses; leaving on a signal."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import TrainerControl, TrainerState

from training.checkpoints import (
    COMPLETE,
    Checkpoints,
    Layout,
    complete_checkpoints,
    newest_checkpoint,
    read_positions,
)
from training.environment import Machine
from training.leaves import mark_leaves
from training.preemption import LeaveAfterSaving, Preempted, StopSignals
from training.recipe import RecipeError
from training.recipe.loading import load_recipe
from training.resuming import MendCounters, RecipeSettings, Resumed, find_resume, load_position

TWO = Machine(rank=0, local_rank=0, world_size=2, device="cpu", launched=True)
ONE = replace(TWO, world_size=1)
LAYOUT = {"processes": 2, "zero": 2, "muon": False, "global_batch_size": 2}


class Loader:
    def __init__(self, place: int):
        self.place = place

    def state_dict(self) -> dict:
        return {"place": self.place}

    def load_state_dict(self, state: dict) -> None:
        self.place = state["place"]


@pytest.fixture
def save(tmp_path):
    """save(step, **layout): a checkpoint as the trainer and the callback leave it."""

    def write(step: int, keep: int = 2, rank: int = 0, **layout):
        model = nn.Linear(2, 2)
        trainer = SimpleNamespace(
            loader=Loader(10 * step + rank), model=model, is_deepspeed_enabled=True,
            accelerator=SimpleNamespace(unwrap_model=lambda model: model),
        )  # fmt: skip
        callback = Checkpoints(trainer, LAYOUT | layout, keep, rank)
        args = SimpleNamespace(output_dir=str(tmp_path), device="cpu")
        state = TrainerState(global_step=step, is_world_process_zero=rank == 0)
        folder = tmp_path / f"checkpoint-{step}"
        callback.on_step_end(args, state, TrainerControl(should_save=True))
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(str(step))
        callback.on_save(args, state, TrainerControl())
        return folder

    return write


def test_newest_is_the_one_written_last_and_whole(tmp_path, save):
    assert newest_checkpoint(tmp_path) is None
    save(30), save(20)  # a run that went on from an earlier step than the newest
    (tmp_path / "checkpoint-40").mkdir()  # torn
    assert newest_checkpoint(tmp_path).name == "checkpoint-20"


def test_old_and_torn_ones_go_only_after_the_new_one_is_whole(tmp_path, save, monkeypatch):
    for step in (10, 20):
        save(step)
    (tmp_path / "checkpoint-25").mkdir()  # torn
    monkeypatch.setattr("training.checkpoints.barrier", lambda: (_ for _ in ()).throw(RuntimeError("a rank died")))
    with pytest.raises(RuntimeError):
        save(30)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-20"]
    monkeypatch.undo()
    (tmp_path / "checkpoint-best").mkdir()  # somebody's own folder
    save(40)
    names = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert names == ["checkpoint-20", "checkpoint-40", "checkpoint-best"]


def test_a_folder_of_the_same_step_is_cleared_before_it_is_written_again(tmp_path, save):
    old = save(10)
    (old / "stale").write_text("of another run")
    assert not (save(10) / "stale").exists()


def test_a_full_disk_is_said_before_anything_is_written(tmp_path, save, monkeypatch):
    save(10)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=50))
    with pytest.raises(RecipeError, match="checkpoint-20 needs about .* GB and the disk has less"):
        save(20)
    assert newest_checkpoint(tmp_path).name == "checkpoint-10"


def test_positions_of_all_ranks_are_kept_and_given_back(tmp_path, save):
    save(10)
    folder = save(10, rank=1)
    (folder / "data_state_rank0.json").write_text(json.dumps({"place": 100}))
    assert read_positions(folder, 2) == [{"place": 100}, {"place": 101}]
    resume = SimpleNamespace(path=folder, layout=SimpleNamespace(processes=2))
    loader = Loader(0)
    load_position(loader, resume, replace(TWO, rank=1))
    assert loader.place == 101
    (folder / "data_state_rank1.json").write_text("{torn")
    with pytest.raises(RecipeError, match="data_state_rank1.json: no data position .* model="):
        read_positions(folder, 2)


def recipe(tmp_path: Path, *words: str):
    return load_recipe(None, [f"output_dir={tmp_path}", "per_device_batch_size=1", *words])


def test_resume_finds_the_layout(tmp_path, save):
    assert find_resume(recipe(tmp_path, "resume=true"), TWO, zero=2) is None
    save(10)
    found = find_resume(recipe(tmp_path, "resume=true"), TWO, zero=2)
    assert (found.path.name, found.layout.step, found.universal) == ("checkpoint-10", 10, False)
    assert find_resume(recipe(tmp_path, "resume=true", "global_batch_size=2"), ONE, zero=2).universal
    assert find_resume(recipe(tmp_path, "resume=true"), TWO, zero=1).universal


@pytest.mark.parametrize(
    "layout, words, machine, zero, said",
    [
        ({}, [], ONE, 2, "2 samples a step on 2 processes; 1 processes .* take 1: set train.global_batch_size=2"),
        ({}, ["global_batch_size=2"], ONE, 0, "ZeRO-2 on 2 processes, and this launch has no DeepSpeed"),
        ({"zero": 0}, [], TWO, 2, "set train.zero=none"),
        ({}, [], TWO, 3, "between ZeRO-3 and the others: set train.zero=zero2"),
        ({"muon": True}, ["global_batch_size=2"], ONE, 2, "no Muon momentum.*model="),
    ],
)
def test_what_cannot_be_resumed_is_refused_with_the_reason(tmp_path, save, layout, words, machine, zero, said):
    save(10, **layout)
    with pytest.raises(RecipeError, match=said):
        find_resume(recipe(tmp_path, "resume=true", *words), machine, zero)


def test_without_deepspeed_any_number_of_processes_resumes(tmp_path, save):
    save(10, zero=0, muon=True)
    assert not find_resume(recipe(tmp_path, "resume=true", "global_batch_size=2"), ONE, zero=0).universal


def test_a_torn_checkpoint_named_by_hand_and_a_start_over_checkpoints_are_refused(tmp_path, save):
    folder = save(10)
    with pytest.raises(RecipeError, match="resume=true to go on.*rm -r"):
        find_resume(recipe(tmp_path), TWO, zero=2)
    (folder / COMPLETE).unlink()
    with pytest.raises(RecipeError, match="not a complete checkpoint"):
        find_resume(recipe(tmp_path, f"resume={folder}"), TWO, zero=2)
    assert find_resume(recipe(tmp_path), TWO, zero=2) is None
    (folder / COMPLETE).write_text("{}")
    with pytest.raises(RecipeError, match="cannot be read"):
        newest_checkpoint(tmp_path)


def test_a_signal_saves_at_the_end_of_the_step_and_leaves_after_it():
    signals = StopSignals()
    args, state = SimpleNamespace(output_dir="runs/x", device=torch.device("cpu")), TrainerState(global_step=7)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        signals.on_train_begin(args, state, TrainerControl())
        control = TrainerControl()
        signals.on_step_end(args, state, control)
        LeaveAfterSaving(signals).on_save(args, state, control)  # a save of its own accord
        assert not control.should_save
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
        signals.on_step_end(args, state, control)
        assert control.should_save
        with pytest.raises(Preempted, match="checkpoint-7 with resume=true"):
            LeaveAfterSaving(signals).on_save(args, state, control)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resumed_optimizer(old: tuple, new: tuple):
    """(optimizer, schedule, groups of the recipe now) of two groups, after loading states of `old` rates and decays."""
    weights = [nn.Parameter(torch.ones(2)) for _ in range(2)]

    def build(settings):
        return [{"name": name, "params": [p], "lr": lr, "weight_decay": decay, "use_muon": False}
                for name, p, (lr, decay) in zip("ab", weights, settings)]  # fmt: skip

    def parts(settings):
        optimizer = torch.optim.AdamW(build(settings))
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))

    before, before_schedule = parts(old)
    for _ in range(3):
        before.step()
        before_schedule.step()
    optimizer, schedule = parts(new)
    optimizer.load_state_dict(before.state_dict())
    schedule.load_state_dict(before_schedule.state_dict())
    return optimizer, schedule, build(new)


def settings_of(optimizer) -> list[list]:
    return [[group[key] for key in ("name", "lr", "initial_lr", "weight_decay")] for group in optimizer.param_groups]


def test_a_resumed_run_has_the_rates_of_the_recipe_not_of_the_checkpoint(caplog):
    old, new = ((1e-3, 0.1), (5e-4, 0.0)), ((1e-4, 0.2), (5e-4, 0.0))
    optimizer, schedule, groups = resumed_optimizer(old, new)
    assert settings_of(optimizer)[0] == ["a", 1e-3 / 4, 1e-3, 0.1], "control: what loading leaves"
    with caplog.at_level("INFO", "training"):
        RecipeSettings(groups).on_train_begin(None, None, None, optimizer=optimizer, lr_scheduler=schedule)
    assert settings_of(optimizer) == [["a", 1e-4 / 4, 1e-4, 0.2], ["b", 5e-4 / 4, 5e-4, 0.0]]
    assert schedule.get_last_lr() == [1e-4 / 4, 5e-4 / 4] and "a 0.001 -> 0.0001" in caplog.text
    optimizer.step()
    schedule.step()
    assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups] == [1e-4 / 5, 5e-4 / 5]


def test_groups_and_step_counters_are_put_right_after_universal_states():
    settings = ((1e-3, 0.1), (5e-4, 0.0))
    optimizer, schedule, groups = resumed_optimizer(settings, settings)
    wanted = settings_of(optimizer)
    for key in ("lr", "weight_decay", "name", "initial_lr"):  # as DeepSpeed does
        optimizer.param_groups[1][key] = optimizer.param_groups[0][key]
    shared = torch.tensor(3.0)
    for group in optimizer.param_groups:
        optimizer.state[group["params"][0]] = {"step": shared}
    RecipeSettings(groups).on_train_begin(None, None, None, optimizer=optimizer, lr_scheduler=schedule)
    MendCounters().on_train_begin(None, None, None, optimizer=optimizer)
    assert settings_of(optimizer) == wanted
    first, second = (optimizer.state[group["params"][0]]["step"] for group in optimizer.param_groups)
    assert first is not second and first == second == 3


def test_a_resumed_run_saves_and_logs_as_the_recipe_says_now():
    trainer = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[]))
    state = TrainerState(global_step=6, max_steps=10, save_steps=3, logging_steps=1)
    Resumed(trainer).on_train_begin(SimpleNamespace(save_steps=1, logging_steps=5), state, None)
    assert (state.save_steps, state.logging_steps) == (1, 5)


def test_lists_of_experts_are_leaves_and_nothing_else():
    class Mixture(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(2))

    model = nn.Sequential(nn.Linear(2, 2), Mixture())
    assert mark_leaves(model) == ["Mixture"]
    assert [getattr(module, "_z3_leaf", False) for module in model] == [False, True]
    assert mark_leaves(nn.Sequential(nn.Linear(2, 2))) == []


def test_layout_is_what_the_mark_says(tmp_path, save):
    mark = json.loads((save(10) / COMPLETE).read_text())
    assert Layout(**mark) == Layout(step=10, time=mark["time"], **LAYOUT)

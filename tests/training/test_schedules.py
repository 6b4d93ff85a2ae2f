"""Learning-rate schedules against their formulas at every step."""

import math

import pytest
import torch

from training.recipe import RecipeError
from training.recipe.loading import load_recipe
from training.schedules import build_scheduler, schedule_factor

STEPS, RISE = 40, 4


def train_section(*words: str):
    return load_recipe(None, [f"max_steps={STEPS}", f"warmup_ratio={RISE / STEPS}", *words]).train


def formula(name: str, step: int, floor: float, decay: int) -> float:
    if step < RISE:
        return step / RISE
    if name == "constant":
        return 1.0
    if name == "wsd":
        return 1.0 if step < STEPS - decay else floor + (1 - floor) * (STEPS - step) / decay
    share = (step - RISE) / (STEPS - RISE)
    return floor + (1 - floor) * ((1 + math.cos(math.pi * share)) / 2 if name == "cosine" else 1 - share)


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("name", ["cosine", "linear", "constant", "wsd"])
def test_every_step_is_that_of_the_formula(name: str, floor: float):
    train = train_section(f"schedule={name}", f"min_lr_ratio={floor}", "decay_ratio=0.25")
    for step in range(STEPS + 1):
        assert schedule_factor(step, train) == pytest.approx(formula(name, step, floor, 10), abs=1e-12), step
    assert schedule_factor(STEPS, train) == pytest.approx(1.0 if name == "constant" else floor)


def test_a_decay_longer_than_what_follows_the_warm_up_begins_behind_it():
    train = train_section("schedule=wsd", "decay_ratio=1.0")
    assert schedule_factor(RISE, train) == 1.0 and 0 < schedule_factor(RISE + 1, train) < 1.0


def test_a_run_of_one_step_trains_at_the_full_rate():
    for name in ("cosine", "linear", "wsd", "constant"):
        assert schedule_factor(0, load_recipe(None, ["max_steps=1", f"schedule={name}"]).train) == 1.0


def test_groups_keep_their_ratio_and_a_resumed_schedule_goes_on():
    train = train_section("schedule=wsd", "min_lr_ratio=0.1")

    def optimizer():
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1e-3, 4e-5)]
        return torch.optim.AdamW(groups)

    one = optimizer()
    schedule, seen = build_scheduler(one, train), []
    for _ in range(STEPS):
        seen.append([group["lr"] for group in one.param_groups])
        one.step()
        schedule.step()
    for step, (first, second) in enumerate(seen):
        assert first == pytest.approx(1e-3 * schedule_factor(step, train)) and second == pytest.approx(first / 25)

    half = optimizer()
    schedule = build_scheduler(half, train)
    for _ in range(17):
        half.step()
        schedule.step()
    other = optimizer()
    resumed = build_scheduler(other, train)  # transformers makes both, then loads both
    other.load_state_dict(half.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for step in range(17, STEPS):
        assert [group["lr"] for group in other.param_groups] == seen[step]
        other.step()
        resumed.step()


@pytest.mark.parametrize("words", ["decay_ratio=0", "min_lr_ratio=1.5", "schedule=steps"])
def test_impossible_schedules_are_refused(words: str):
    with pytest.raises(RecipeError, match=words.split("=")[0]):
        train_section(words)

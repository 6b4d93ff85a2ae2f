"""The plan of a step against the same step, run and measured; every size and case is in tests/check/plan_numbers.py."""

import pytest

from tests.helpers.step_memory import SIZES, measured_and_planned

SMALL, DEEP, LLAMA = SIZES.values()


@pytest.mark.parametrize(
    ("size", "words", "packed"),
    [
        (SMALL, (), False),
        (DEEP, ("gradient_checkpointing=true",), False),
        (SMALL, ("adapter.rank=8", "modules.vision.freeze=true"), False),
        (LLAMA, ("modules.vision.freeze=true",), True),
    ],
    ids=["whole", "checkpointing", "lora", "packed-frozen-vision"],
)
def test_within_15_percent_of_what_was_measured(size, words, packed, tmp_path):
    measured, planned = measured_and_planned(size, tmp_path, *words, packed=packed)
    assert planned == pytest.approx(measured, rel=0.15)


def test_what_freezing_and_checkpointing_save_is_seen(tmp_path):
    """A control: the plans of different recipes differ by more than the tolerance."""
    from tests.helpers.step_memory import batch_of, encoded_samples, tiny_model
    from training.data.collation import PaddingCollator
    from training.plan.estimate import Machines, plan_stage
    from training.recipe.loading import load_recipe

    model, processor = tiny_model(DEEP)
    processor.save_pretrained(tmp_path)
    model.config.save_pretrained(tmp_path)
    batch = batch_of(PaddingCollator(processor)(encoded_samples(processor, DEEP)), False)
    totals = []
    for words in ((), ("modules.vision.freeze=true",)):
        recipe = load_recipe(None, [f"model={tmp_path}", "zero=none", "per_device_batch_size=2", *words])
        plan = plan_stage(recipe, None, Machines(gpus=1, bf16=False), batch=batch)
        totals += [plan.memory["none", kind].total for kind in (False, True)]
    whole, whole_checkpointed, frozen, frozen_checkpointed = totals
    assert whole > 1.5 * whole_checkpointed > 1.5 * frozen_checkpointed and whole > 3 * frozen

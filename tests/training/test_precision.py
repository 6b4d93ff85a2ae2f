"""bf16 with fp32 weights behind it: small updates are not lost, results are bf16, checkpoints are what they were."""

import torch
from safetensors.torch import load_file

from tests.helpers.small_training import batches_of, mixed_samples, small_trainer, weights_of
from tests.helpers.stage_runs import small_vlm
from training.loading import weight_dtype
from training.precision import written_in_bf16
from training.recipe.loading import load_recipe
from training.saving import save_stage


def test_tiny_updates_are_kept_and_the_result_is_bf16(tmp_path):
    """Twenty steps of a millionth of a weight each: bf16 weights would not move at all."""
    model, processor = small_vlm()
    batches = batches_of(processor, mixed_samples(processor), 2)
    words = ("precision=bf16", "max_steps=20", "learning_rate=1e-6", "schedule=constant", "save_steps=20")
    before = weights_of(model)
    trainer = small_trainer(tmp_path, batches, *words, built=(model, processor))
    trainer.train()
    after = weights_of(trainer.model)
    assert trainer.args.bf16 and all(weight.dtype == torch.float32 for weight in after.values())
    name = "language_model.model.layers.2.mixer.up_proj.weight"
    step = (after[name] - before[name]).abs()
    assert 5e-6 < step.median() < 3e-5
    lost = before[name].bfloat16()
    for _ in range(20):
        lost += (1e-6 * (after[name] - before[name]).sign()).bfloat16()
    large = before[name].abs() > 1e-3
    assert torch.equal(lost[large], before[name].bfloat16()[large]), "control: bf16 alone loses them"

    save_stage(trainer, tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    checkpoint = load_file(tmp_path / "checkpoint-20/model.safetensors")
    assert saved[name].dtype == torch.bfloat16 and torch.equal(saved[name], after[name].bfloat16())
    assert torch.equal(checkpoint[name], after[name])
    kept = [name for name, value in saved.items() if value.dtype == torch.float32]
    assert kept and all("A_log" in n or "dt_bias" in n or n.endswith(("mixer.D", "position_embedding"))
                        or "input_conditioner" in n for n in kept)  # fmt: skip
    assert all(torch.equal(value, after[name]) for name, value in weights_of(trainer.model).items()), "put back"


def test_the_forward_runs_in_bf16(tmp_path):
    model, processor = small_vlm()
    seen = []
    layer = model.language_model.model.layers[2].mixer.up_proj
    layer.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    trainer = small_trainer(tmp_path, batches_of(processor, mixed_samples(processor), 4), "precision=bf16",
                            "max_steps=1", built=(model, processor))  # fmt: skip
    trainer.train()
    assert set(seen) == {torch.bfloat16}


def test_weights_are_fp32_where_no_deepspeed_keeps_them():
    class Arguments:
        bf16, deepspeed = True, None

    recipe = load_recipe(None, [])
    assert weight_dtype(recipe, Arguments()) == torch.float32
    Arguments.deepspeed = {"bf16": {}}
    assert weight_dtype(recipe, Arguments()) == torch.bfloat16


def test_ties_survive_writing():
    model, _ = small_vlm(tie_word_embeddings=True)
    with written_in_bf16(model):
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
        assert model.get_input_embeddings().weight.dtype == torch.bfloat16 and model.dtype == torch.bfloat16
    assert model.dtype == torch.float32

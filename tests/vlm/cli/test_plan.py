"""`radio-vlm plan`: exit codes, what a page says, JSON, and what changes it."""

import json
from pathlib import Path

import pytest

from vlm.cli.main import main

RECIPES = Path(__file__).resolve().parents[3] / "training/recipes"
STAGE = """
model: runs/nowhere/stage0
output_dir: runs/nowhere/stage1
data: {packing: true, max_length: 1024}
train: {per_device_batch_size: 1, global_batch_size: 8, max_steps: 100, zero: zero2}
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "pipeline.yaml").write_text(
        "build: {vision: tiny, llm: tiny, geometry: {min_num_patches: 4, max_num_patches: 256}}\n"
        "stages: [one.yaml, two.yaml]\n"
    )
    (tmp_path / "one.yaml").write_text(STAGE.replace("train:", "modules: {text: {freeze: true}}\ntrain:"))
    (tmp_path / "two.yaml").write_text(STAGE)
    return tmp_path


def planned(capsys, *words: str) -> tuple[int, list[dict]]:
    code = main(["plan", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_page_a_stage_and_a_line_each(folder, capsys):
    assert main(["plan", str(folder), "--gpus", "4", "--memory", "2"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    for word in ("── one", "── two", "text 710.2K frozen", "zero3", "2+offload", "3+offload",
                 "with checkpointing", "FITS", "4 GPUs", "Assumed:", "allowances"):  # fmt: skip
        assert word in text, word


def test_json_adds_up_and_follows_the_recipe(folder, capsys):
    code, plans = planned(capsys, str(folder), "--gpus", "4", "--memory", "2")
    assert code == 0 and [plan["name"] for plan in plans] == ["one", "two"]
    one, two = plans
    assert one["parameters"]["text"][1] == 0 < two["parameters"]["text"][1] == two["parameters"]["text"][0]
    assert two["accumulation"] == 2 and two["tokens_per_step"] == pytest.approx(8 * 1024 * 0.97)
    assert one["flops"] < two["flops"]
    rows = {(row["zero"], row["checkpointing"]): row for row in two["memory"]}
    trained = sum(counts[1] for counts in two["parameters"].values())
    assert rows["zero2", False]["optimizer"] == pytest.approx(12 * trained / 4)  # moments and fp32 weights, shared by 4
    assert rows["zero1", False]["gradients"] == pytest.approx(4 * rows["zero2", False]["gradients"])
    assert rows["zero3", False]["weights"] == pytest.approx(rows["zero2", False]["weights"] / 4)
    assert rows["zero3_offload", True]["host"] > 0 == rows["zero3", True]["host"]
    assert rows["zero2", True]["activations"] < rows["zero2", False]["activations"]


def test_offload_and_a_file_of_ones_own_have_their_columns(folder, capsys):
    own = folder / "mine.json"
    own.write_text('{"zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}}}')
    for zero, mark in (("zero2_offload", "2+offload"), (own, "yours")):
        assert main(["plan", str(folder / "two.yaml"), "--gpus", "128", "--memory", "2", f"train.zero={zero}",
                     "global_batch_size=null"]) == 0  # fmt: skip
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 96 and f" {mark}" in text and "main memory a GPU" in text
    own.write_text('{"zero_optimization": {"stage": 2}, "scheduler": {}}')
    assert main(["plan", str(folder / "two.yaml"), f"train.zero={own}"]) == 2
    assert "scheduler" in capsys.readouterr().err


def test_more_gpus_hold_less_and_take_less_time(folder, capsys):
    (_, [one]), (_, [four]) = (planned(capsys, str(folder / "two.yaml"), "--gpus", n, "zero=zero3") for n in "14")
    assert four["needed_gib"] < one["needed_gib"]
    assert four["seconds"] == pytest.approx(one["seconds"] / 4)


def test_what_does_not_fit_says_what_helps(folder, capsys):
    words = [str(folder / "two.yaml"), "--gpus", "8", "--memory", "1.9", "data.max_length=8192"]
    assert main(["plan", *words]) == 1
    text = capsys.readouterr().out
    assert "DOES NOT FIT" in text and "train.gradient_checkpointing=true: 1." in text


def test_lora_and_qlora_hold_less(folder, capsys):
    two = str(folder / "two.yaml")
    results = []
    for words in ([], ["adapter.rank=4"], ["adapter.rank=4", "adapter.quantize=nf4"]):
        _, [plan] = planned(capsys, two, "--gpus", "1", "zero=none", "global_batch_size=null",
                            "modules.vision.freeze=true", *words)  # fmt: skip
        results.append(next(row for row in plan["memory"] if row["zero"] == "none" and not row["checkpointing"]))
    full, lora, qlora = results
    assert lora["gradients"] < full["gradients"] / 2 and lora["optimizer"] < full["optimizer"] / 2
    assert qlora["weights"] < lora["weights"] < full["weights"]


def test_what_training_refuses_is_dashes_and_never_advised(folder, capsys):
    """A quantized model that does not fit: no ZeRO-3, and something true however little memory there is."""
    words = [str(folder / "two.yaml"), "--gpus", "1", "zero=none", "adapter={rank: 4, quantize: nf4}"]
    assert main(["plan", *words, "--memory", "1.51"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "zero3, 3+offload: training refuses this" in text
    assert "What helps: - GPUs of more memory: the least that was found is 1." in text
    assert "train.zero=zero3" not in text
    needed = text.partition(" needed ")[2].partition(" with checkpointing ")[0]
    assert needed.split()[-2:] == ["–", "–"]
    _, [plan] = planned(capsys, *words)
    assert plan["barred"] == ["zero3", "zero3_offload"]
    assert {row["zero"] for row in plan["memory"]} == {"none", "zero1", "zero2", "zero2_offload"}


def test_words_for_one_stage(folder, capsys):
    _, (one, two) = planned(capsys, str(folder), "max_steps=7", "two:max_steps=9", "two:zero=zero3")
    assert (one["steps"], one["zero"], two["steps"], two["zero"]) == (7, "zero2", 9, "zero3")
    _, [two] = planned(capsys, str(folder / "two.yaml"), "two:max_steps=9")
    assert two["steps"] == 9
    for recipe, word in ((folder / "two.yaml", "one:max_steps=9"), (folder, "three:max_steps=9")):
        assert main(["plan", str(recipe), word]) == 2
        assert f"no stage '{word.partition(':')[0]}'" in capsys.readouterr().err


def test_small_numbers_read_right(folder, capsys):
    words = ["--gpus", "8", "max_steps=1", "modules.vision.norms_only=true", "--image-share", "0"]
    assert main(["plan", str(folder / "two.yaml"), *words]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("8 GPUs × 1 pass:", "GFLOP", "1 step,", "under a second", "under 0.1 GPU hours", "no pictures",
                 "K train"):  # fmt: skip
        assert part in text, part
    assert " of " in text.partition("vision ")[2].partition(" train")[0]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["nowhere.yaml"], ["nowhere.yaml", "does not exist"]),
        (["FOLDER", "--mfu", "2"], ["--mfu"]),
        (["FOLDER", "--device", "Z80"], ["Z80", "H100"]),
        (["FOLDER", "nonsense=1"], ["unknown key", "nonsense"]),
        (["FOLDER/alone.yaml"], ["runs/nowhere/stage0", "build"]),
    ],
)
def test_mistakes_are_one_line_and_code_2(words, parts, folder, tmp_path, capsys):
    (tmp_path / "apart").mkdir()
    (tmp_path / "apart/alone.yaml").write_text(STAGE)
    words = [word.replace("FOLDER/alone", f"{tmp_path}/apart/alone").replace("FOLDER", str(folder)) for word in words]
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts), error


def test_unknown_parts_are_named(tmp_path, capsys):
    (tmp_path / "pipeline.yaml").write_text("build: {vision: tiny, llm: Nemotron-7}\nstages: [one.yaml]\n")
    (tmp_path / "one.yaml").write_text(STAGE)
    assert main(["plan", str(tmp_path)]) == 2
    assert "Nemotron-7" in (error := capsys.readouterr().err) and "Nemotron-Nano-12B-v2" in error


def test_context_parallel_and_batches_that_do_not_divide_are_refused(folder, capsys):
    two = str(folder / "two.yaml")
    assert main(["plan", two, "--gpus", "4", "context_parallel=8"]) == 1
    text = capsys.readouterr().out
    assert "REFUSED" in text and "train.context_parallel = 8" in text and "1,024 tokens" in text
    assert "which fits here: set train.context_parallel=1" in " ".join(text.split())
    assert main(["plan", two, "--gpus", "4", "context_parallel=8", "--memory", "1.4"]) == 1
    assert "more than 1.4" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", two, "--gpus", "3"]) == 1
    assert "global_batch_size = 8 is not a multiple" in " ".join(capsys.readouterr().out.split())


def test_the_4b_recipe_fits_one_gpu_of_141_gb_and_not_one_of_80(capsys):
    recipe = str(RECIPES / "nemotron_h_4b_c_radio_v4_so400m/sft.yaml")
    code, [plan] = planned(capsys, recipe, "--gpus", "1", "--memory", "141", "--device", "H200")
    assert code == 0 and sum(total for total, _ in plan["parameters"].values()) > 4.9e9
    assert 80 < 16 * 5.0e9 / 2**30 + 6 < plan["needed_gib"] < 141  # 16 bytes a parameter, and activations

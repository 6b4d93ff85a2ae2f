"""Stages through the real deepspeed launcher: two CPU processes, text-only ranks, kill, resume, save, load."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

import vlm  # noqa: F401
from tests.helpers.data_folders import record, write_records
from tests.helpers.stage_runs import PROBE, ROOT, launch, losses, mixed_corpus, save_small_vlm
from training.freezing import trainable_table
from training.loading import load_model
from training.optimizers import build_param_groups
from training.recipe import RecipeError
from training.recipe.loading import load_recipe

RECIPE = """
train:
  max_steps: 6
  per_device_batch_size: 1
  optimizer: muon
  learning_rate: 2.0e-3
  log_steps: 1
  save_steps: 2
data:
  max_length: 256
  group_by_length: false
modules:
  vision: {lr: 1.0e-3, weight_decay: 0.1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage")
    save_small_vlm(folder / "stage0")
    mixed_corpus(folder / "data/train")
    mixed_corpus(folder / "data/val", n=6)
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


def words(folder: Path, out: str, *extra: str) -> list[str]:
    return [
        "--config", str(folder / "recipe.yaml"), f"model={folder / 'stage0'}", f"output_dir={folder / out}",
        f"data.root={folder / 'data'}", "data.sources=[{path: train}]", "data.eval_sources=[{path: val}]", *extra,
    ]  # fmt: skip


def run(folder: Path, out: str, *extra: str, script: Path = ROOT / "training/stage2.py", processes: int = 2, **env):
    done = launch(script, words(folder, out, *extra), processes, STAGE_PROBE_OUT=str(folder / out / "probe"), **env)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-2000:]
    return folder / out


@pytest.fixture(scope="module")
def whole(folder) -> Path:
    """An uninterrupted run on two ranks under ZeRO-2 with Muon, watched by the probe."""
    return run(folder, "whole", script=PROBE)


def test_stage_leaves_a_loadable_model_and_its_records(whole):
    model = AutoModelForImageTextToText.from_pretrained(whole)
    assert type(AutoModel.from_pretrained(whole)) is type(model)
    assert AutoProcessor.from_pretrained(whole).tokenizer is not None
    start = AutoModelForImageTextToText.from_pretrained(whole.parent / "stage0")
    moved = [n for (n, a), b in zip(model.named_parameters(), start.parameters()) if not torch.equal(a, b)]
    for part in ("vision_model.", "multi_modal_projector.", "language_model."):
        assert [name for name in moved if name.startswith(part)], part
    assert len(losses(whole)) == 6
    throughput = json.loads((whole / "throughput.json").read_text())
    assert throughput["steps"] == 6 and throughput["processes"] == 2 and throughput["tokens_per_second"] > 0
    heldout = json.loads((whole / "heldout.json").read_text())
    assert heldout["before"]["tokens"] == heldout["after"]["tokens"] > 0
    assert heldout["before"]["loss"] != heldout["after"]["loss"]
    assert list((whole / "tensorboard").glob("events*"))
    assert json.loads((whole / "recipe.json").read_text())["train"]["optimizer"] == "muon"


def test_kill_and_resume_gives_the_losses_of_an_uninterrupted_run(folder, whole):
    """... through the entry script itself."""
    killed = launch(PROBE, words(folder, "killed"), STAGE_PROBE_KILL="1:5", STAGE_PROBE_OUT=str(folder / "none"))
    assert killed.returncode != 0
    assert not (folder / "killed/model.safetensors").exists()
    resumed = run(folder, "killed", "resume=true")
    expected, found = losses(whole), losses(resumed)
    assert sorted(found) == sorted(expected)
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=1e-6), f"step {step}"
    a, b = (AutoModel.from_pretrained(path).state_dict() for path in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def ranks(whole) -> list[dict]:
    """What the probe saw on each rank."""
    return [json.loads((whole / f"probe/rank{rank}.json").read_text()) for rank in (0, 1)]


def test_deepspeed_holds_the_groups_of_the_printed_table(whole, ranks):
    table = [row for row in json.loads((whole / "trainable.json").read_text()) if row["trainable"]]
    for rank in ranks:
        assert [group["name"] for group in rank["groups"]] == [row["group"] for row in table]
        for group, row in zip(rank["groups"], table):
            assert group["initial_lr"] == row["lr"] and group["weight_decay"] == row["weight_decay"]
            assert group["use_muon"] == (row["optimizer"] == "muon")
            assert (group["tensors"], group["parameters"]) == (row["tensors"], row["parameters"])
            if group["use_muon"]:
                assert all(len(shape) == 2 for shape in group["shapes"])
    assert "DeepSpeedZeroOptimizer" in ranks[0]["optimizer"]
    for first, second in zip(ranks[0]["groups"], ranks[1]["groups"]):
        assert first["shard"] == second["shard"] and 2 * first["shard"] >= first["parameters"]


def test_a_text_only_rank_beside_an_image_rank_does_not_hang(ranks):
    has_image = list(zip(*([image for _, image in rank["seen"]] for rank in ranks)))
    assert any(a != b for a, b in has_image), "no step had a text-only rank beside an image rank: change the seed"


@pytest.mark.slow
def test_one_process_zero1_zero2_zero3_and_offload_agree(folder):
    """Same global batches, AdamW, token-averaged loss: the losses of six steps agree, and the results load."""
    common = ("optimizer=adamw", "save_steps=0", "modules.text.lr=1e-3")
    reference = losses(run(folder, "single", *common, "per_device_batch_size=2", processes=0))
    for zero in ("zero1", "zero2", "zero3", "zero3_offload"):
        out = run(folder, zero, *common, f"zero={zero}")
        for step, loss in losses(out).items():
            assert loss == pytest.approx(reference[step], abs=1e-4), f"{zero}, step {step}"
        AutoModel.from_pretrained(out)


@pytest.mark.slow
def test_zero3_with_muon_and_tied_heads(folder):
    save_small_vlm(folder / "tied", tie_word_embeddings=True)
    out = run(folder, "zero3_muon", "zero=zero3", "save_steps=0", f"model={folder / 'tied'}")
    model = AutoModel.from_pretrained(out)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    reference = losses(run(folder, "tied_single", "save_steps=0", f"model={folder / 'tied'}",
                           "per_device_batch_size=2", processes=0))  # fmt: skip
    for step, loss in losses(out).items():
        assert loss == pytest.approx(reference[step], abs=2e-3)  # Newton-Schulz may run in half precision


@pytest.mark.slow
def test_resume_under_zero3(folder):
    whole = run(folder, "z3", "zero=zero3", "optimizer=adamw")
    killed = launch(PROBE, words(folder, "z3k", "zero=zero3", "optimizer=adamw"), STAGE_PROBE_KILL="0:3",
                    STAGE_PROBE_OUT=str(folder / "none"))  # fmt: skip
    assert killed.returncode != 0
    resumed = run(folder, "z3k", "zero=zero3", "optimizer=adamw", "resume=true")
    for step, loss in losses(whole).items():
        assert losses(resumed)[step] == pytest.approx(loss, rel=1e-6)


def test_stage_without_a_launcher_stops_at_its_time_limit(folder):
    out = run(folder, "alone", "max_steps=100000", "max_seconds=2", "save_steps=0", processes=0)
    throughput = json.loads((out / "throughput.json").read_text())
    assert throughput["processes"] == 1 and 2 <= throughput["seconds"] < 20
    assert (out / "model.safetensors").exists()
    model = AutoModel.from_pretrained(out)  # training goes without a cache; a checkpoint that did would lose its turns
    assert model(input_ids=torch.tensor([[5, 6, 7]])).past_key_values is not None


def test_table_on_disk_is_that_of_the_recipe(folder, whole):
    model = AutoModelForImageTextToText.from_pretrained(folder / "stage0")
    recipe = load_recipe(folder / "recipe.yaml")
    expected = trainable_table(model, build_param_groups(model, recipe))
    assert json.loads((whole / "trainable.json").read_text()) == expected


def test_bad_data_ends_a_stage_with_a_message(folder):
    """Exit code 1 and a line that names file and sample, no traceback."""
    write_records(folder / "data/bad", [record(f"b{i}", images=("images/missing.png",)) for i in range(8)])
    stale = {"id": "mended", "where": "x:1", "path": None, "reason": "bad_image", "message": "of an earlier run"}
    (folder / "mistake").mkdir()
    (folder / "mistake/bad_samples.jsonl").write_text(json.dumps(stale) + "\n")
    done = launch(ROOT / "training/stage2.py", words(folder, "mistake", "data.sources=[{path: bad}]"), processes=0)
    assert done.returncode == 1 and "images/missing.png" in done.stderr and "'b" in done.stderr
    assert "Traceback" not in done.stderr
    written = [json.loads(line) for line in (folder / "mistake/bad_samples.jsonl").read_text().splitlines()]
    assert written and all(row["id"].startswith("b") for row in written)


def test_missing_model_is_explained():
    with pytest.raises(RecipeError, match="runs/no/such is not a folder: run the earlier stage"):
        load_model(load_recipe(None, ["model=runs/no/such"]), SimpleNamespace(bf16=False))

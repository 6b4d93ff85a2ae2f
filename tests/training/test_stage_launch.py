"""Stages through the real deepspeed launcher: two CPU processes, text-only ranks, kill, resume, save, load."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

import vlm  # noqa: F401
from tests.helpers.data_folders import record, write_records
from tests.helpers.stage_runs import (
    PROBE,
    ROOT,
    child_environment,
    free_port,
    launch,
    losses,
    mixed_corpus,
    save_small_vlm,
)
from training.checkpoints import complete_checkpoints, layout_of, newest_checkpoint
from training.freezing import trainable_table
from training.loading import load_model
from training.optimizers import build_param_groups
from training.preemption import EXIT_CODE
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


def test_a_signal_to_one_rank_saves_all_of_them_and_resume_goes_on(folder, whole):
    """Exit code 75, a complete checkpoint of that very step, no result; then the losses of the uninterrupted run."""
    stopped = launch(PROBE, words(folder, "signal", "save_steps=0"), STAGE_PROBE_KILL="1:3:SIGUSR1",
                     STAGE_PROBE_OUT=str(folder / "none"))  # fmt: skip
    assert stopped.returncode == EXIT_CODE, stopped.stderr[-3000:]
    assert "checkpoint-3 with resume=true" in stopped.stderr and "Traceback" not in stopped.stderr
    assert [path.name for path in complete_checkpoints(folder / "signal")] == ["checkpoint-3"]
    assert not (folder / "signal/model.safetensors").exists()
    resumed = run(folder, "signal", "resume=true")
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)


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


ADAMW = ("optimizer=adamw", "modules.text.lr=1e-3", "global_batch_size=2")


@pytest.fixture(scope="module")
def single(folder) -> dict[int, float]:
    """Losses of one process that takes two micro-batches a step."""
    return losses(run(folder, "single", *ADAMW, "save_steps=0", processes=0))


@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_two_processes_train_as_one(folder, single, zero):
    """Same global batches, token-averaged loss, text-only ranks: the losses agree, and the result loads."""
    out = run(folder, zero, *ADAMW, f"zero={zero}", "save_steps=3", "max_steps=6", script=PROBE)
    assert losses(out) == pytest.approx(single, abs=1e-4)
    trained, start = AutoModel.from_pretrained(out), AutoModel.from_pretrained(folder / "stage0")
    assert trained.dtype == start.dtype
    assert any(not torch.equal(a, b) for a, b in zip(trained.parameters(), start.parameters()))


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["none", "zero1", "zero2_offload", "zero3_offload"])
def test_two_processes_train_as_one_in_all_other_ways(folder, single, zero):
    assert losses(run(folder, zero, *ADAMW, f"zero={zero}", "save_steps=0")) == pytest.approx(single, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "before, after, processes",
    [("zero1", "zero2", 1), ("zero2", "zero2", 1), ("zero3", "zero3", 1), ("zero1", "zero1", 2),
     ("zero3_offload", "zero3", 2)],
)  # fmt: skip
def test_resume_on_another_number_of_processes(folder, single, before, after, processes):
    """... through DeepSpeed's universal checkpoints, with groups of different rates and decays; also ZeRO-1 to 2."""
    common = (*ADAMW, "save_steps=3")
    out = f"switch_{before}_{after}_{processes}"
    run(folder, out, *common, f"zero={before}", processes=3 - processes)
    shutil.rmtree(folder / out / "checkpoint-6")
    (folder / out / "trainer_state.json").unlink()
    resumed = run(folder, out, *common, f"zero={after}", "resume=true", processes=processes)
    assert (folder / out / "checkpoint-3/latest_universal").exists()
    assert losses(resumed) == pytest.approx(single, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_sigterm_to_the_launcher_saves(folder, launcher):
    """torchrun and accelerate pass it on to all ranks; a second one while they save does no harm."""
    start = {
        "torchrun": ["torchrun", "--nproc_per_node", "2", "--master_port"],
        "accelerate": ["accelerate", "launch", "--use_deepspeed", "--num_processes", "2", "--main_process_port"],
    }[launcher]
    command = [str(Path(sys.executable).with_name(start[0])), *start[1:], str(free_port())]
    line = words(folder, launcher, "max_steps=100000", "save_steps=0", "log_steps=1")
    environment = child_environment(HF_HOME=str(folder / "hf"))
    with (folder / f"{launcher}.log").open("w") as log:
        process = subprocess.Popen([*command, str(ROOT / "training/stage2.py"), *line], cwd=ROOT, env=environment,
                                   stdout=log, stderr=log)  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and "tok/s" not in (folder / f"{launcher}.log").read_text():
            assert process.poll() is None, (folder / f"{launcher}.log").read_text()[-3000:]
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) != 0
    checkpoint = newest_checkpoint(folder / launcher)
    assert (layout_of(checkpoint).processes, layout_of(checkpoint).zero) == (2, 2)
    resumed = run(folder, launcher, "resume=true", f"max_steps={layout_of(checkpoint).step + 2}")
    assert sorted(losses(resumed)) == list(range(1, layout_of(checkpoint).step + 3))


@pytest.mark.slow
def test_accelerate_that_starts_one_process_is_refused(folder):
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "2"]
    done = subprocess.run([*command, str(ROOT / "training/stage2.py"), *words(folder, "one")], cwd=ROOT,
                          env=child_environment(HF_HOME=str(folder / "hf")), capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    assert done.returncode != 0 and "accelerate launch --use_deepspeed --num_processes N" in done.stderr
    assert not (folder / "one").exists()


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

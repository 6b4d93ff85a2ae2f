"""`radio-vlm train` with real stages and evaluations, in processes of their own."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from tests.helpers.data_folders import record, write_records
from tests.helpers.stage_runs import ROOT, child_environment, mixed_corpus, save_small_vlm
from vlm.cli.main import main


def train(folder, *words) -> int:
    return main(["train", str(folder), *words])


@pytest.mark.slow
def test_a_real_stage_that_destroys_the_text_ability_is_stopped_and_a_harmless_one_is_not(tmp_path, capsys):
    """Real stages and evaluations in processes of their own: text is learnt, then pictures at two learning rates."""
    save_small_vlm(tmp_path / "stage0")
    questions = [record(f"t{i}", question=f"What is {i}?", answer=f"It is {chr(65 + i)}") for i in range(8)]
    write_records(tmp_path / "text", questions)
    mixed_corpus(tmp_path / "pictures", 12)
    folder = tmp_path / "recipe"
    folder.mkdir()
    common = "train: {max_steps: %d, learning_rate: %s, per_device_batch_size: 4, schedule: constant}\n"
    source = "data: {sources: [{path: %s}]}\nwatch: {report_to: []}\n"
    (folder / "a_text.yaml").write_text(source % (tmp_path / "text") + common % (120, "3.0e-3"))
    (folder / "b_pictures.yaml").write_text(source % (tmp_path / "pictures") + common % (6, "1.0e-6"))
    (folder / "pipeline.yaml").write_text(f"guard: {{likelihood: [{tmp_path / 'text'}], tolerance: 0.05}}\n")
    words = ("--out", str(tmp_path / "run"), "--model", str(tmp_path / "stage0"), "--processes", "1")

    assert train(folder, *words) == 0
    scores = {one: score(tmp_path, one) for one in ("start", "a_text", "b_pictures")}
    assert scores["start"] < 0.1 and scores["a_text"] > 0.5  # it learnt
    assert scores["b_pictures"] == pytest.approx(scores["a_text"], abs=0.05)

    assert train(folder, *words, "--from", "b_pictures", "b_pictures:learning_rate=0.1") == 3
    assert score(tmp_path, "b_pictures") < scores["a_text"] - 0.2
    said = capsys.readouterr()
    assert "stopped by the guard after b_pictures" in said.err and "FORGOTTEN" in said.out
    assert "stage a_text is finished" in said.out


def score(folder, name: str) -> float:
    results = json.loads((folder / f"run/guard/{name}.json").read_text())
    return results["tasks"]["text-likelihood"]["answer_probability"]


@pytest.mark.slow
def test_a_signal_saves_a_stage_of_two_processes_and_the_same_command_goes_on(tmp_path):
    """The deepspeed launcher of one machine ends at SIGTERM and leaves its processes alone."""
    save_small_vlm(tmp_path / "stage0")
    mixed_corpus(tmp_path / "data", 12)
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe/one.yaml").write_text(
        f"data: {{sources: [{{path: {tmp_path / 'data'}}}]}}\nwatch: {{report_to: []}}\n"
        "train: {max_steps: 1500, per_device_batch_size: 2, save_steps: 5000, log_steps: 1}\n"
    )
    command = [
        sys.executable, "-m", "vlm", "train", str(tmp_path / "recipe"), "--out", str(tmp_path / "run"),
        "--model", str(tmp_path / "stage0"), "--processes", "2",
    ]  # fmt: skip
    log = tmp_path / "run/logs/01-train-one.log"
    seen = []
    for line in ("one 1/1500", "resuming from"):
        run = subprocess.Popen(command, cwd=ROOT, env=child_environment(), stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 90
        while not (log.exists() and line in log.read_text() and "tok/s" in log.read_text()):
            assert time.monotonic() < deadline and run.poll() is None, log.read_text()
            time.sleep(0.1)
        run.terminate()
        assert "run the same command again" in run.communicate(timeout=60)[1] and run.returncode == 75
        found = (tmp_path / "run/one").glob("checkpoint-*/complete")
        seen.append(max(int(path.parent.name.rpartition("-")[2]) for path in found))
        assert not any(str(tmp_path / "recipe") in " ".join(one.cmdline()) for one in psutil.process_iter())
    assert 0 < seen[0] < seen[1] < 1500

"""Evaluation over the real model and processor, tiny and untrained: answers do not depend on how they were batched."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from encoders.presets import VISION_PRESETS
from eval.backends.base import Decoding
from eval.backends.radio import RadioBackend
from eval.backends.stopping import stop_token_ids
from eval.controls import shuffled_order
from eval.data import read_dataset
from eval.generation import Generator, Request
from eval.run import main
from eval.tasks.base import shuffle_videos
from llm.presets import LLM_PRESETS
from training.data.synthetic import documents, videos
from vlm.build import build_vlm

ROOT = Path(__file__).resolve().parents[2]
GEOMETRY = {"mode": "dynamic", "patch_size": 16, "multiple": 2, "min_num_patches": 4, "max_num_patches": 64}
VIDEO = {"max_frames": 8, "fps": 2.0, "temporal_patch_size": 2, "max_num_patches": 16, "frame_labels": False}


@pytest.fixture(scope="module")
def built():
    torch.manual_seed(0)
    vision, llm = VISION_PRESETS["tiny"], LLM_PRESETS["tiny"]
    return build_vlm(vision.config(), llm.config(), llm.tokenizer(), geometry=GEOMETRY, video=VIDEO)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    documents.write(folder / "documents-test", "test", 1, 8)
    videos.write(folder / "videos-test", "test", 1, 4)
    return folder


@pytest.fixture(scope="module")
def checkpoint(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in built:
        part.save_pretrained(folder)
    return folder


def test_batch_equals_single(built, data):
    """Pages, videos and text-only questions of many lengths, in any batch and order: the same words."""
    samples = [s for name in ("documents", "videos") for s in read_dataset(data / f"{name}-test").samples]
    requests = [Request(sample.id, sample.prompt) for sample in samples]
    requests += [
        Request(f"text{n}", [{"role": "user", "content": [{"type": "text", "text": "why " * n}]}]) for n in (1, 9)
    ]
    answers = {}
    for batch_size, order in ((1, 1), (5, 1), (64, -1)):
        replies = Generator(RadioBackend(*built), batch_size, progress=False).answer(requests[::order], Decoding(6))
        assert not [reply.error for reply in replies if reply.error]
        answers[batch_size] = [reply.text for reply in replies][::order]
    assert answers[1] == answers[5] == answers[64]
    assert len(set(answers[1])) > 1, "a model that always says the same would pass any such test"


def test_shuffled_frames_are_the_frames_in_another_order(built, data):
    processor = built[1]
    sample = read_dataset(data / "videos-test").samples[0]
    plain = processor.encode(sample.prompt, add_generation_prompt=True)
    shuffled = processor.encode(shuffle_videos(sample, 1, processor), add_generation_prompt=True)
    assert plain["input_ids"].tolist() == shuffled["input_ids"].tolist(), "words and time stamps stay as they were"
    tubelets, grid_h, grid_w = plain["video_grid_thw"][0].tolist()

    def frames(encoded):
        pixels = encoded["pixel_values_videos"].reshape(tubelets, grid_h * grid_w, 2, -1)
        return pixels.transpose(1, 2).reshape(tubelets * 2, -1)

    order = shuffled_order(tubelets * 2, 1, f"{sample.id}:0")
    torch.testing.assert_close(frames(shuffled), frames(plain)[order])


def test_frames_are_shuffled_where_no_number_of_frames_is_set(built, data):
    """A control that fails is left out of the figures, so it would be missed in silence."""
    sample = read_dataset(data / "videos-test").samples[0]
    unbounded = SimpleNamespace(video={**built[1].video, "max_frames": None})
    (message,) = shuffle_videos(sample, 1, unbounded)
    assert len(next(item for item in message["content"] if item["type"] == "video")["video"]) >= 3


def test_answers_stop_at_the_end_of_turn(built):
    model, processor = built
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") in stop_token_ids(model, processor)


def test_the_entry_script(checkpoint, data, tmp_path, capsys):
    out = tmp_path / "r.json"
    arguments = ["--tasks", "synthetic_documents,synthetic_videos", "--data-root", str(data), "--out", str(out)]
    assert main(["--model", str(checkpoint), *arguments, "--no-progress"]) == 0
    results = json.loads(out.read_text())
    assert list(results["tasks"]) == ["documents", "videos"]
    assert results["tasks"]["documents"]["n"] == 8 and results["tasks"]["documents"]["failed"] == 0
    assert results["tasks"]["videos"]["failed"] == 0 and "frames_shuffled" in results["tasks"]["videos"]["controls"]
    assert results["provenance"]["model"]["geometry"]["max_num_patches"] == 64
    assert "<image>×" in results["samples"][0]["prompt"]
    assert "images exchanged" in capsys.readouterr().out
    # the same folder as --data gives the same figures
    again = tmp_path / "again.json"
    folder = str(data / "documents-test")
    assert main(["--model", str(checkpoint), "--data", folder, "--out", str(again), "--no-progress"]) == 0
    assert json.loads(again.read_text())["tasks"]["documents"] == results["tasks"]["documents"]


def test_a_model_that_is_not_there(data, capsys):
    assert main(["--model", str(data / "nowhere"), "--data", str(data / "documents-test")]) == 2
    message = capsys.readouterr().err
    assert "--model: no folder" in message and "nowhere" in message


@pytest.mark.parametrize("script", ["eval/run.py", "eval/report/build.py"])
def test_scripts_start_from_anywhere(script, tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / script), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "--run" in done.stdout or "synthetic_documents" in done.stdout

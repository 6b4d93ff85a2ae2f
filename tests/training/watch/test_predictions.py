"""Answers while training: they change nothing, show what was asked, and all ranks together give the same."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.helpers.data_folders import record
from tests.helpers.pdfs import write_pages
from tests.helpers.stage_runs import launch, losses, small_vlm
from tests.helpers.video_files import write_video
from tests.helpers.watched_stage import prepare, run, words
from training.data.sample import Sample
from training.watch.pictures import thumbnails
from training.watch.predictions import predict, side_by_side
from training.watch.questions import choose_questions
from vlm.errors import SampleError


def steps(folder: Path) -> dict[int, list[dict]]:
    records = [json.loads(path.read_text()) for path in sorted((folder / "predictions").glob("step-*.json"))]
    return {one["step"]: one["samples"] for one in records}


def test_losses_with_and_without_predictions_are_identical(tmp_path):
    """The encoder trains and its tables are kept between calls, so a trace of `no_grad` would show in later steps."""
    prepare(tmp_path)
    plain = run(tmp_path, "plain", "watch.report_to=[]")
    watched = run(tmp_path, "watched", "watch.predictions_every=2", "watch.predictions=3",
                  f"data.eval_sources=[{{path: {tmp_path / 'data'}, limit: 4}}]")  # fmt: skip
    assert losses(watched) == losses(plain)
    written = steps(watched)
    assert list(written) == [0, 2, 4]  # before, every second, and the last once
    assert [row["id"] for row in written[0]] == ["s0", "s1", "s2"]
    assert written[4][1]["question"] == "number 1?" and written[4][1]["reference"] == "11"
    page = (watched / "predictions.html").read_text()
    assert page.count("data:image/") == 1  # s1 has a picture
    assert page.count("<article>") == 3 and "step 2" in page and "http" not in page
    found = {value.tag for event in events(watched / "tensorboard") for value in event.summary.value}
    assert {"predictions/data/s1", "train/source_loss/data", "train/lr/text/other", "train/memory_gb"} <= found
    assert {"train/tokens_per_second", "train/grad_norm", "train/real_token_share"} <= found


def events(folder: Path) -> list:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [event for path in folder.iterdir() for event in EventFileLoader(str(path)).Load()]


def test_asking_leaves_no_trace():
    model, processor = small_vlm()
    model.train()
    model.vision_model.eval()  # as a frozen part may be kept
    modes = {name: module.training for name, module in model.named_modules()}
    pool = [sample("a", "1?"), sample("b", "2?")]
    questions = choose_questions({"x": pool}, processor, 2, None)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = predict(model, processor, questions, rank=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert predict(model, processor, questions, rank=0) == first
    assert all(parameter.grad is None for parameter in model.parameters())
    by_hand = model.eval().generate(
        **processor.collate([questions[1].row]), do_sample=False, max_new_tokens=16,
        eos_token_id=processor.stop_token_ids, pad_token_id=processor.tokenizer.pad_token_id,
    )  # fmt: skip
    new = by_hand[0, len(questions[1].row["input_ids"]) :]
    assert first[1]["answer"] == processor.tokenizer.decode(new, skip_special_tokens=False).strip()


def sample(name: str, question: str, *media: dict, answer: str = "7") -> Sample:
    turns = record(name, question, answer)["messages"]
    turns[0]["content"] = [*media, *turns[0]["content"]]
    return Sample(name, "x", turns, base_dir=Path("/"))


def test_questions_come_from_each_pool_in_turn_and_what_cannot_be_read_is_passed_over(caplog):
    _, processor = small_vlm()
    missing = sample("gone", "?", {"type": "image", "image": "not/there.png"})
    pools = {"a": [missing, sample("a1", "?")], "b": [sample("b0", "?"), sample("b1", "?")]}
    chosen = choose_questions(pools, processor, 3, None)
    assert [question.id for question in chosen] == ["b0", "a1", "b1"]
    assert "not/there.png" in caplog.text
    pool = [sample("long", "x" * 500), sample("short", "?")]
    assert [question.id for question in choose_questions({"a": pool}, processor, 1, 100)] == ["short"]


def test_a_conversation_is_asked_up_to_its_first_answer():
    _, processor = small_vlm()
    turns = record("m", "first?", "one")["messages"] + record("m", "second?", "two")["messages"]
    (chosen,) = choose_questions({"x": [Sample("m", "x", turns)]}, processor, 1, None)
    assert (chosen.question, chosen.reference) == ("first?", "one")


def test_pictures_of_every_kind_of_media(tmp_path):
    video = write_video(tmp_path / "clip.mp4", 30)
    write_pages(tmp_path / "pages.pdf", 4)
    Image.new("I;16", (900, 500), 40_000).save(tmp_path / "deep.png")
    content = [
        {"type": "image", "image": str(tmp_path / "deep.png")},
        {"type": "video", "video": str(video)},
        {"type": "document", "document": str(tmp_path / "pages.pdf")},
    ]
    pictures = thumbnails([{"role": "user", "content": content}])
    assert len(pictures) == 1 + 4 + 3  # a few frames, the first pages
    assert all(picture.mode == "RGB" and max(picture.size) <= 320 for picture in pictures)
    row = side_by_side(pictures[:2])
    assert row.width == pictures[0].width + 4 + pictures[1].width
    with pytest.raises(SampleError):
        thumbnails([{"role": "user", "content": [{"type": "image", "image": str(tmp_path / "none.png")}]}])


def test_dicom_is_shown_as_the_model_sees_it():
    from pydicom.data import get_testdata_file

    path = get_testdata_file("CT_small.dcm")
    (picture,) = thumbnails([{"role": "user", "content": [{"type": "image", "image": path}]}])
    low, high = picture.convert("L").getextrema()
    assert high - low > 150  # windowed, not a grey of 12 bits in 16


@pytest.mark.slow
@pytest.mark.parametrize("zero", ["zero2", "zero3"])
def test_ranks_answer_together_what_one_process_answers(tmp_path, zero):
    """Under ZeRO-3 a rank that asks alone would wait for its neighbour's weights for ever."""
    prepare(tmp_path)
    alone = run(tmp_path, "alone", "watch.predictions_every=3", "watch.report_to=[]")
    options = ["watch.predictions_every=3", "watch.report_to=[]", "per_device_batch_size=1", f"zero={zero}"]
    (tmp_path / "empty.yaml").write_text("{}\n")
    command = ["--config", str(tmp_path / "empty.yaml"), *words(tmp_path, "two", *options)]
    done = launch(Path("training/stage2.py"), command, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert steps(tmp_path / "two")[0] == steps(alone)[0]
    assert list(steps(tmp_path / "two")) == [0, 3, 4]
    assert losses(tmp_path / "two") == pytest.approx(losses(alone), rel=1e-4)

"""`radio-vlm check-data` finds each bad input before training, names file and sample, and says so by its exit code."""

import os

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_folders import good_folder, record, write_image, write_records
from vlm.cli.main import main
from vlm.errors import RadioVLMError


@pytest.mark.parametrize("model", [(), ("--model", "m", "--max-length", 100)])
@pytest.mark.parametrize("workers", [0, 2])
def test_good_data(tmp_path, check_data, model, workers):
    folder = good_folder(tmp_path / "d", 30)
    code, text, report = check_data(folder, *model, "--workers", workers)
    assert code == 0 and report["ok"] and "everything is in order" in text
    source = report["sources"][0]
    assert (source["samples"], source["images"], source["text_only"], source["turns"]) == (30, 20, 10, 60)
    assert (source["tokens"] is not None) == bool(model)
    if model:
        assert 2 < source["tokens"]["min"] < source["tokens"]["max"] <= 100
        assert source["trained_tokens"] == 90 + 30 and "tokens min" in text  # the answers and their ends of turn


def no_frames(path):
    """A video file that has a video stream and not a single frame."""
    av = pytest.importorskip("av", reason="optional package absent: av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()


def spoil(folder, how):
    """Writes what is needed and returns (the record, the reason expected, whether a model is needed)."""
    image = record("bad", images=("images/bad.png",))
    path = folder / "images/bad.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "missing":
        return image, "missing_file"
    if how == "empty":
        path.write_bytes(b"")
        return image, "empty_file"
    if how in ("truncated_png", "truncated_jpg"):
        noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, format="PNG" if how.endswith("png") else "JPEG")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return image, "truncated_image"
    if how == "corrupt":
        path.write_bytes(b"this is no picture")
        return image, "unreadable_image"
    if how == "huge":
        Image.new("1", (14000, 14000)).save(path, optimize=True)
        return image, "too_large"
    if how == "no_frames":
        no_frames(folder / "images/v.mp4")
        items = [{"type": "video", "video": "images/v.mp4"}, {"type": "text", "text": "Q"}]
        return {
            "id": "bad",
            "messages": [{"role": "user", "content": items}, image["messages"][1]],
        }, "no_frames|unreadable_video"
    if how == "leaves":
        write_image(folder.parent / "other/a.png")
        os.symlink(folder.parent / "other/a.png", path)
        return image, "outside_folder"
    if how in ("more_tags", "fewer_tags"):
        value = "<image><image>Q" if how == "more_tags" else "Q"
        turns = [{"from": "human", "value": value}, {"from": "gpt", "value": "A"}]
        return {"id": "bad", "image": "images/1.png", "conversations": turns}, "tag_mismatch"
    return {
        "json": ('{"id": "bad", ', "bad_json"),
        "schema": ({"id": "bad", "messages": 3}, "schema"),
        "masked": (record("bad", answer=""), "no_labels"),
        "long": (record("bad", question="Q" * 500), "too_long"),
        "duplicate": (record("s3"), "duplicate_id"),
    }[how]


HOW = ["missing", "empty", "truncated_png", "truncated_jpg", "corrupt", "huge", "no_frames", "leaves", "more_tags",
       "fewer_tags", "json", "schema", "masked", "long", "duplicate"]  # fmt: skip


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("model", [False, True])
def test_every_bad_input_is_found(tmp_path, check_data, how, model):
    folder = good_folder(tmp_path / "d", 10)
    lines = (folder / "records.jsonl").read_text().splitlines()
    bad, reason = spoil(folder, how)
    write_records(folder, [*lines[:4], bad, *lines[4:]])
    code, text, report = check_data(folder, *(("--model", "m", "--max-length", "100") if model else ()))
    if how == "long" and not model:
        assert code == 0  # only a model counts tokens
        return
    assert code == 1 and not report["ok"]
    (problem,) = report["problems"]
    assert problem["reason"] in reason.split("|")
    assert problem["where"] == f"{folder}/records.jsonl:5"
    assert problem["id"] == {"json": "records:5", "duplicate": "s3"}.get(how, "bad")
    assert f"{folder}/records.jsonl:5: sample" in text and "1 of 11 samples are bad" in text
    assert report["sources"][0]["bad"] == 1


def test_all_media_of_a_sample_are_told(tmp_path, check_data):
    write_records(tmp_path / "d", [record("x", images=("a.png", "b.png"))])
    for model in ((), ("--model", "m")):
        _, _, report = check_data(tmp_path / "d", *model)
        assert [problem["reason"] for problem in report["problems"]] == ["missing_file"] * 2


def test_broken_llava_json_is_a_problem_of_the_file(tmp_path, check_data):
    (tmp_path / "x.json").write_text('[{"id": 1}\n, oops')
    code, text, report = check_data(tmp_path / "x.json", good_folder(tmp_path / "d", 3))
    assert code == 1 and report["problems"][0]["reason"] == "unreadable_source" and "x.json:2" in text
    assert [source["samples"] for source in report["sources"]] == [0, 3]


def test_media_root_limit_and_show(tmp_path, check_data):
    folder = good_folder(tmp_path / "d", 9)
    alone = write_records(tmp_path / "alone", (folder / "records.jsonl").read_text().splitlines())
    code, text, report = check_data(alone, "--show", 2)
    assert code == 1 and report["reasons"] == {"missing_file": 6} and "… and 4 more of missing_file" in text
    assert check_data(alone, "--media-root", folder)[0] == 0
    assert check_data(alone, "--limit", 1)[0] == 0


def test_usage_errors(tmp_path, capsys):
    folder = good_folder(tmp_path / "d", 3)
    for arguments, words in (
        ([], "nothing to check"),
        ([tmp_path / "nowhere"], "no such file or folder"),
        ([folder, "--max-length", "9"], "needs a model"),
        (["--recipe", tmp_path / "no.yaml"], "does not exist"),
    ):
        assert main(["check-data", *map(str, arguments)]) == 2
        assert words in capsys.readouterr().err


def test_recipe_says_what_training_would_do(tmp_path, check_data):
    folder = good_folder(tmp_path / "d", 9)
    lines = (folder / "records.jsonl").read_text().splitlines()
    write_records(folder, [*lines, "nonsense"])
    recipe = tmp_path / "stage.yaml"
    for limit, effect in ((0.02, "stop"), (0.5, "skip them and go on")):
        recipe.write_text(f"data: {{root: {tmp_path}, sources: [{{path: d}}], bad_share_limit: {limit}}}\n")
        code, text, _ = check_data("--recipe", recipe)
        assert code == 1 and f"training would {effect}" in text


def test_an_error_of_the_check_itself_is_no_problem_of_the_data(tmp_path):
    from training.data.check import check

    with pytest.raises(RadioVLMError, match="needs a model"):
        check([tmp_path], max_length=5)

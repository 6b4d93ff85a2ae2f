"""Volumes in training data: every way to write them down, the batch they make, and what is refused by name."""

import json
import shutil

import numpy as np
import pytest
import torch

from tests.helpers.data_folders import record, write_image, write_records
from tests.helpers.medical_files import body, new_dataset, save, write_enhanced, write_nifti, write_series
from tests.helpers.tiny_processor import tiny_processor
from tests.training.data.sources.test_tar_shards import write_tar
from training.data.check import check
from training.data.check.preview import previews
from training.data.check.run import Job
from training.data.collation import PaddingCollator
from training.data.convert import convert
from training.data.dataset import TrainingDataset
from training.data.lengths import estimated_lengths
from training.data.records import parse_record
from training.data.sources import open_source
from training.watch.pictures import SLICES, thumbnails
from vlm.errors import SampleError
from vlm.prompt_volumes import expand_volumes

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
pytest.importorskip("nibabel", reason="optional package absent: nibabel")
ANSWER = {"role": "assistant", "content": "A"}
FILE = {"type": "volume", "volume": "ct"}
SOME = {"type": "volume", "volume": "ct", "window": "lung", "slices": 3}
CHANNELS = {"type": "volume", "volume": {"t1": "a.nii", "flair": "b.nii"}}
CAPTURE, REPORT = "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.88.11"


def text(words):
    return {"type": "text", "text": words}


def llava(value):
    return [{"from": "human", "value": value}, {"from": "gpt", "value": "A"}]


def with_volume(sample_id="v", **item):
    one = record(sample_id, question="Where?", answer="Left.")
    one["messages"][0]["content"].insert(0, {"type": "volume", **item})
    return one


@pytest.fixture
def ct(tmp_path):
    """A data folder with a CT series of six slices in `ct`."""
    write_series(tmp_path / "d/ct", body((32, 32, 6)))
    return tmp_path / "d"


@pytest.mark.parametrize(
    ("row", "content"),
    [
        ({"messages": [{"role": "user", "content": [SOME, text("Q")]}, ANSWER]}, [SOME, text("Q")]),
        ({"messages": [{"role": "user", "content": [{"type": "volume", "path": "ct"}, "Q"]}, ANSWER]},
         [FILE, text("Q")]),
        ({"messages": [{"role": "user", "content": "<volume>\nQ"}, ANSWER], "volumes": ["ct"]}, [FILE, text("Q")]),
        ({"conversations": llava("<volume>\nQ"), "volume": "ct"}, [FILE, text("Q")]),
        ({"conversations": llava("<volume>\nQ"), "volume": {"volume": "ct", "window": "lung", "slices": 3}},
         [SOME, text("Q")]),
        ({"conversations": llava("<volume>\nQ"), "volume": {"t1": "a.nii", "flair": "b.nii"}}, [CHANNELS, text("Q")]),
        ({"conversations": llava("<image>\n<volume>\nQ"), "image": "b.png", "volume": "ct"},
         [{"type": "image", "image": "b.png"}, FILE, text("Q")]),
        ({"question": "Q", "answers": ["A"], "volume": "ct"}, [FILE, text("Q")]),
        ({"text": "A", "volume": "ct"}, [FILE]),
        ({"conversations": llava("what is a <volume>?"), "volume": 7}, [text("what is a <volume>?")]),
    ],
)  # fmt: skip
def test_ways_to_write_it_down(row, content):
    sample = parse_record(row, default_id="f:1", source="here", base_dir=None, origin="f.jsonl:1")
    assert sample.messages[0]["content"] == content
    assert list(sample.media()) == [(one["type"], one[one["type"]]) for one in content if one["type"] != "text"]


def test_a_batch_is_that_of_the_same_slices_by_hand(ct):
    item = {"volume": "ct", "slices": 3, "window": [2000, 4000]}
    by_hand = record("h", question="Where?", answer="Left.")
    (asked,) = expand_volumes([{"role": "user", "content": [{"type": "volume", **item, "volume": str(ct / "ct")}]}])
    content = []
    for number, one in enumerate(asked["content"]):
        if one["type"] == "image":
            one["image"].save(ct / f"{number}.png")
            one = {"type": "image", "image": f"{number}.png"}
        content.append(one)
    assert sum(one["type"] == "image" for one in content) == 3
    by_hand["messages"][0]["content"] = [*content, *by_hand["messages"][0]["content"]]
    write_records(ct, [with_volume(**item), by_hand])
    for cache in (False, True):
        dataset = TrainingDataset(open_source(ct), tiny_processor(), cache=cache)
        a, b = (PaddingCollator(dataset.processor)([dataset[index]]) for index in (0, 1))
        assert a["pixel_values"].std() > 0.05 and len(a["image_grid_hw"]) == 3
        for key in ("input_ids", "labels", "pixel_values", "image_grid_hw", "mm_token_type_ids"):
            assert torch.equal(a[key], b[key]), key
    again = PaddingCollator(dataset.processor)([dataset[0]])
    assert len(dataset.cache) == 2 and torch.equal(again["pixel_values"], a["pixel_values"]), "from the cache"


def spoil(folder, how):
    """A record that is bad in one way, and the reason it is counted under."""
    series = folder / "bad"
    if how == "missing_file":
        return with_volume("bad", volume="nowhere"), how
    if how == "leaves":
        write_series(folder.parent / "other", body())
        return with_volume("bad", volume="../other"), "outside_folder"
    if how == "link to a folder":
        write_series(folder.parent / "other", body())
        series.symlink_to(folder.parent / "other")
        return with_volume("bad", volume="bad"), "outside_folder"
    if how == "link to a file":
        files = write_series(series, body())
        shutil.move(files[2], folder.parent / "outside.dcm")
        files[2].symlink_to(folder.parent / "outside.dcm")
        return with_volume("bad", volume="bad"), "outside_folder"
    if how == "channel leaves":
        write_nifti(folder.parent / "other.nii", body())
        return with_volume("bad", volume={"t1": "../other.nii"}), "outside_folder"
    if how == "missing_slices":
        write_series(series, body((6, 8, 9)))[4].unlink()
    elif how == "mixed_orientations":
        write_series(series, body(), SeriesInstanceUID="1.2")
        write_series(series, body((6, 8, 8)), "coronal", prefix="c", SeriesInstanceUID="1.2", Rows=8, Columns=6)
    elif how == "not_a_volume":
        write_series(series, body(), SOPClassUID=CAPTURE)
    elif how == "no_slices":
        report = new_dataset(series / "sr.dcm", np.zeros((2, 2), np.uint8), REPORT, Modality="SR")
        del report.PixelData
        save(report, series / "sr.dcm")
    elif how == "not_an_image":
        report = new_dataset(series / "sr.dcm", np.zeros((2, 2), np.uint8), REPORT, Modality="SR")
        save(report, series / "sr.dcm")
        return with_volume("bad", volume="bad/sr.dcm"), how
    elif how == "no_modality":
        write_nifti(folder / "bad.nii.gz", body())
        return with_volume("bad", volume="bad.nii.gz"), how
    elif how == "bad_message":
        return with_volume("bad", volume="ct", page=1), how
    return with_volume("bad", volume="bad"), how


@pytest.mark.parametrize(
    "how",
    ["missing_file", "leaves", "link to a folder", "link to a file", "channel leaves", "missing_slices",
     "mixed_orientations", "not_a_volume", "no_slices", "not_an_image", "no_modality", "bad_message"],
)  # fmt: skip
def test_bad_volumes_are_bad_samples_of_training_and_of_the_check(ct, how):
    bad, reason = spoil(ct, how)
    write_records(ct, [with_volume("good", volume="ct", slices=1), bad])
    dataset = TrainingDataset(open_source(ct), tiny_processor(), bad_share_limit=0.6)
    with pytest.raises(SampleError) as caught:
        dataset.encode(1)
    assert (caught.value.reason, caught.value.sample_id) == (reason, "bad"), caught.value
    assert dataset[1]["sample_id"] == "good", "the next good one stands in"
    assert dataset.report()["reasons"] == {reason: 1} and dataset.report()["ids"] == ["bad"]
    (problem,) = check([ct], workers=0).problems
    assert (problem.reason, problem.id, problem.where) == (reason, "bad", f"{ct / 'records.jsonl'}:2")


def test_links_inside_the_data_folder_are_fine(ct):
    files = sorted((ct / "ct").iterdir())
    shutil.move(files[0], ct / "elsewhere.dcm")
    files[0].symlink_to(ct / "elsewhere.dcm")
    write_records(ct, [with_volume(volume="ct")])
    assert TrainingDataset(open_source(ct), tiny_processor())[0]["sample_id"] == "v"


def test_mri_sequences_are_channels(ct):
    for name in ("t1", "flair"):
        write_nifti(ct / f"{name}.nii.gz", body((32, 32, 6), seed=len(name)))
    write_nifti(ct / "other.nii.gz", body((32, 32, 5)))
    write_nifti(ct / "both.nii.gz", np.stack([body((32, 32, 6), seed=one) for one in (2, 5)], -1))
    files = {"t1": "t1.nii.gz", "flair": "flair.nii.gz"}
    rows = [
        with_volume("files", volume=files, slices=2),
        with_volume("4D", volume="both.nii.gz", channels=["t1", "flair"], slices=2),
        with_volume("grids", volume={"t1": "t1.nii.gz", "t2": "other.nii.gz"}),
        with_volume("twice", volume={"t1": "t1.nii.gz", "t2": "t1.nii.gz"}),
        with_volume("ct", volume=files, modality="CT"),
        with_volume("missing", volume=files, channels=["t1", "t2"]),
    ]
    source, processor = open_source(write_records(ct, rows)), tiny_processor()
    dataset = TrainingDataset(source, processor)
    by_files, by_frames = dataset.encode(0), dataset.encode(1)
    words = processor.tokenizer.decode(by_files["input_ids"])
    assert words.index("MRI (t1) volume of 6") < words.index("MRI (flair) volume of 6") < words.index("Where?")
    assert len(by_files["image_grid_hw"]) == 4 and words.count("Slice 2 of 6") == words.count("Slice 5 of 6") == 2
    assert torch.equal(by_files["pixel_values"], by_frames["pixel_values"])
    half = len(by_files["pixel_values"]) // 2
    assert not torch.equal(by_files["pixel_values"][:half], by_files["pixel_values"][half:])
    for index, reason in ((2, "mixed_grids"), (3, "same_channel"), (4, "other_modality"), (5, "missing_channel")):
        with pytest.raises(SampleError) as caught:
            dataset.encode(index)
        assert caught.value.reason == reason
    one = processor.num_image_tokens(40, 27)
    messages = source[0].resolved_messages()
    messages[0]["content"][0] |= {"slices": 6, "max_tokens": 6 * one}
    encoded = processor.encode(messages)
    counts = [len(encoded["image_grid_hw"]), int((encoded["mm_token_type_ids"] == 1).sum())]
    assert counts[0] % 2 == 0 and counts[1] <= 6 * one, "the channels share the budget"


def test_lengths_are_counted_from_headers(ct, monkeypatch):
    write_nifti(ct / "a.nii.gz", body((32, 32, 6)))
    write_enhanced(ct / "multi.dcm", body((32, 32, 6)))
    rows = [with_volume(volume="ct", slices=n) for n in (1, 2, 8)]
    rows += [with_volume(volume="multi.dcm", slices=2), with_volume(volume="a.nii.gz", slices=2, modality="CT")]
    rows += [with_volume(volume={"t1": "a.nii.gz", "t2": "b.nii.gz"}, slices=1, layout="montage")]
    shutil.copy(ct / "a.nii.gz", ct / "b.nii.gz")
    source, processor = open_source(write_records(ct, rows)), tiny_processor()
    real = [len(processor.encode(source[index].resolved_messages())["input_ids"]) for index in range(5)]
    monkeypatch.setattr("vlm.media.dicom_series.decode_frame", None)  # no pixel is read
    lengths = estimated_lengths(source, processor)
    one = processor.num_image_tokens(40, 27)
    assert lengths[1] - lengths[0] - one in range(20) and lengths[2] - lengths[1] - 4 * one in range(80)
    assert lengths[1] == lengths[3] == lengths[4] and abs(lengths[5] - lengths[1]) < 3
    assert all(abs(guess - length) < 160 for guess, length in zip(lengths, real))


def test_check_counts_shows_and_finds_copies(ct, tmp_path):
    test = tmp_path / "test"
    shutil.copytree(ct / "ct", test / "renamed")
    for file in sorted((test / "renamed").iterdir()):
        file.rename(file.with_name(f"z{file.name}"))
    write_series(test / "new", np.ascontiguousarray(body((32, 32, 6), seed=9)))
    write_records(ct, [with_volume("a", volume="ct", slices=2)])
    write_records(test, [with_volume("seen", volume="renamed"), with_volume("new", volume="new")])
    processor = tiny_processor()
    jobs = [Job(str(ct)), Job(str(test), role="eval")]
    report = check(jobs, processor, workers=0, looks=True)
    assert [one.volumes for one in report.sources] == [1, 2] and report.sources[0].text_only == 0
    dataset = TrainingDataset(open_source(ct), processor)
    assert report.sources[0].tokens["max"] == len(dataset[0]["input_ids"])
    (problem,) = report.problems
    assert (problem.id, problem.reason) == ("seen", "in_training")
    (pair,) = report.repeats.overlap.values()
    assert report.picture(pair.first).size == (32, 48), "square pixels"
    shown = previews(report, jobs, processor, 3)
    assert [len(one.images) for one in shown] == [2, 6] and shown[0].tokens == report.sources[0].tokens["max"]
    assert sum(one.medium == "image" for one in shown[0].segments) == 2


def test_tar_shards_carry_files_and_say_so_of_folders(ct, tmp_path):
    nifti = write_nifti(tmp_path / "a.nii.gz", body((32, 32, 6))).read_bytes()
    multi = write_enhanced(tmp_path / "m.dcm", body((32, 32, 6))).read_bytes()
    mr = {"conversations": llava("<volume>\nQ"), "volume": {"volume": "0.nii.gz", "modality": "MR", "slices": 2}}
    channels = {"conversations": llava("<volume>\nQ"), "volume": {"t1": "2.a.nii.gz", "t2": "2.b.nii.gz"}}
    second = write_nifti(tmp_path / "b.nii.gz", body((32, 32, 6), seed=3)).read_bytes()
    members = [("0.nii.gz", nifti), ("0.json", json.dumps(mr))]
    members += [("1.dcm", multi), ("1.json", json.dumps({"conversations": llava("<volume>\nQ"), "volume": "1.dcm"}))]
    members += [("2.a.nii.gz", nifti), ("2.b.nii.gz", second), ("2.json", json.dumps(channels))]
    members += [("3.json", json.dumps({"conversations": llava("<volume>\nQ"), "volume": "series/3"}))]
    members += [("4.nii.gz", nifti), ("4.txt", "a caption")]
    source = open_source(write_tar(tmp_path / "t.tar", members))
    dataset = TrainingDataset(source, tiny_processor())
    assert [len(dataset.encode(index)["image_grid_hw"]) for index in (0, 1, 2)] == [2, 6, 12]
    with pytest.raises(SampleError, match="A shard holds no folders: a volume is one NIfTI") as caught:
        dataset.encode(3)
    assert caught.value.sample_id == "t/3"
    with pytest.raises(SampleError, match="give it"):
        dataset.encode(4)  # NIfTI alone does not say what it shows


def test_picture_folders_and_rows_of_datasets(ct, tmp_path):
    folder = tmp_path / "p"
    write_nifti(folder / "sub/a.nii.gz", body((32, 32, 6)))
    (folder / "sub/a.json").write_text(
        json.dumps({"volume": {"volume": "sub/a.nii.gz", "modality": "mri"}, "text": "a caption"})
    )
    write_nifti(folder / "b.nii", body())
    (folder / "b.txt").write_text("words")
    source = open_source(folder)
    assert source.format == "image_folder" and [sample for sample, _ in source[0].media()] == ["volume"]
    dataset = TrainingDataset(source, tiny_processor())
    assert len(dataset.encode(1)["image_grid_hw"]) == 6
    with pytest.raises(SampleError, match="does not say its modality"):
        dataset.encode(0)
    datasets = pytest.importorskip("datasets", reason="optional package absent: datasets")
    rows = [
        {"volume": {"path": "ct", "bytes": None}, "question": "Q", "answers": ["A"]},
        {"volume": {"path": None, "bytes": write_enhanced(tmp_path / "m.dcm", body((32, 32, 6))).read_bytes()},
         "question": "Q", "answers": ["A"]},
    ]  # fmt: skip
    datasets.Dataset.from_list(rows).to_parquet(ct / "rows.parquet")
    dataset = TrainingDataset(open_source(ct / "rows.parquet"), tiny_processor())
    assert [len(dataset.encode(index)["image_grid_hw"]) for index in (0, 1)] == [6, 6]


def test_label_files_are_divided_with_their_volumes(ct, tmp_path):
    write_series(ct / "two", body(seed=2))
    write_image(ct / "c.png")
    rows = [{"id": name, "volume": name, "question": "Q", "answers": ["A"]} for name in ("ct", "two")]
    rows.append({"id": "c", "image": "c.png", "question": "Q", "answers": ["A"]})
    write_records(ct, rows, "labels.jsonl")
    counts = convert(ct / "labels.jsonl", tmp_path / "out", test_share=0.4)
    assert counts == {"train": 2, "test": 1}
    for part in ("train", "test"):
        assert not len(check([tmp_path / "out" / part], tiny_processor(), workers=0).problems)
    assert sum(len(list((tmp_path / "out").glob(f"*/{name}/*"))) for name in ("ct", "two")) == 11


def test_training_watches_a_few_slices(ct):
    write_records(ct, [with_volume(volume="ct", slices=6, max_tokens=9000)])
    shown = thumbnails(open_source(ct)[0].resolved_messages())
    assert len(shown) == SLICES and all(np.asarray(one).std() > 5 for one in shown)

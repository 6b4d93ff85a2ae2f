"""Tar shards: what the index finds against `tarfile`, samples of every shape, and tars that are cut, odd or hostile."""

import io
import json
import logging
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from tests.helpers.data_folders import write_image
from training.data.sources import DataError, open_source
from training.data.tar_index import index_tar
from vlm.errors import SampleError
from vlm.media import load_image


def png(shade=0):
    file = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    """members: (name, bytes or str) pairs, or TarInfo objects of links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member
            data = data.encode() if isinstance(data, str) else data
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def shards(folder, count=3, each=4):
    for shard in range(count):
        members = []
        for i in range(each):
            key = f"{shard * each + i:06d}"
            members += [(f"{key}.jpg", png(shard * each + i)), (f"{key}.txt", f"caption {key}")]
        write_tar(folder / f"shards-{shard:06d}.tar", members)
    return folder


def words(sample):
    return [
        "".join(item.get("text", f"<{item['type']}>") for item in message["content"]) for message in sample.messages
    ]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_index_is_that_of_tarfile(tmp_path, format):
    rng = np.random.default_rng(0)
    names = [f"{'d' * int(rng.integers(1, 90))}/{'n' * int(rng.integers(1, 90))}.{i}.bin" for i in range(60)]
    if format != tarfile.USTAR_FORMAT:
        names += [f"{'long/' * 60}é{i}.png" for i in range(5)]
    folder, link = tarfile.TarInfo("folder"), tarfile.TarInfo("link.png")
    folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
    members = [(name, rng.bytes(int(rng.integers(0, 2000)))) for name in names]
    path = write_tar(tmp_path / "x.tar", [folder, *members[:30], link, *members[30:]], format)
    found, twin = index_tar(path), []
    with tarfile.open(path) as tar:
        twin = [(one.name, one.offset_data, one.size) for one in tar if one.isfile()]
    assert list(zip(found.names, found.offsets, found.sizes)) == twin and len(twin) == len(names)
    assert found.broken is None


@pytest.mark.parametrize("how", ["pattern", "folder", "file"])
def test_shards_are_one_sequence(tmp_path, how):
    folder = shards(tmp_path / "d")
    path = {"pattern": folder / "shards-{000000..000002}.tar", "folder": folder, "file": folder / "shards-000001.tar"}[
        how
    ]
    source = open_source(path)
    assert source.format == "tar_shards" and len(source) == (4 if how == "file" else 12)
    first = 4 if how == "file" else 0
    for i, sample in enumerate(source):
        assert words(sample) == ["<image>", f"caption {first + i:06d}"]
        picture = sample.resolved_messages()[0]["content"][0]["image"]
        assert isinstance(picture, bytes) and load_image(picture).getpixel((0, 0)) == (first + i, 0, 0)
    assert source[-1].origin == f"{folder}/shards-00000{1 if how == 'file' else 2}.tar:{first + len(source) - 1:06d}"
    assert pickle.loads(pickle.dumps(source))[1].id == source[1].id  # worker processes open their own files


RECORD = {"question": "How many?", "answer": "7"}
CONVERSATION = [{"from": "human", "value": "<image>\nQ <image>"}, {"from": "gpt", "value": "A"}]
MESSAGES = [{"role": "user", "content": [{"type": "image", "image": "s/a.1.png"}, {"type": "text", "text": "Q"}]},
            {"role": "assistant", "content": "A"}]  # fmt: skip


@pytest.mark.parametrize(
    "members, turns",
    [
        ({"json": json.dumps(RECORD), "jpg": png()}, ["<image>How many?", "7"]),
        ({"json": json.dumps(RECORD), "mp4": b"video", "pdf": b"%PDF"}, ["<video><document>How many?", "7"]),
        ({"json": json.dumps({"width": 3}), "txt": " words\n", "JPG": png()}, ["<image>", "words"]),
        ({"json": json.dumps({"caption": "json wins"}), "txt": "no", "webp": png()}, ["<image>", "json wins"]),
        ({"cls": "7", "png": png()}, ["<image>", "7"]),
        (
            {"json": json.dumps({"conversations": CONVERSATION}), "0.jpg": png(), "1.jpg": png()},
            ["<image>Q <image>", "A"],
        ),
        ({"json": json.dumps(CONVERSATION), "0.jpg": png(), "1.jpg": png()}, ["<image>Q <image>", "A"]),
        ({"json": json.dumps({"messages": MESSAGES}), "0.png": png(), "1.png": png()}, ["<image>Q", "A"]),
        ({"json": json.dumps({**RECORD, "image": "a.jpg"}), "jpg": png()}, ["<image>How many?", "7"]),
        ({"json": json.dumps({"text": "no picture", "question": "Q", "answer": "A"})}, ["Q", "A"]),
    ],
)
def test_samples_of_every_shape(tmp_path, members, turns):
    write_tar(tmp_path / "x.tar", [(f"./s/a.{name}", data) for name, data in members.items()] + [("s/.hidden", "x")])
    source = open_source(tmp_path / "x.tar")
    assert len(source) == 1 and words(source[0]) == turns and source[0].id == "x/s/a"
    assert all(isinstance(medium, bytes) for _, medium in source[0].media())


def test_named_media_choose_among_the_members(tmp_path):
    members = [
        ("a.json", json.dumps({**RECORD, "images": ["a.1.png", "a.0.png"]})),
        ("a.0.png", png(1)),
        ("a.1.png", png(2)),
    ]
    sample = open_source(write_tar(tmp_path / "x.tar", members))[0]
    assert [load_image(medium).getpixel((0, 0))[0] for _, medium in sample.media()] == [2, 1]


def test_columns_reach_the_members(tmp_path):
    members = [("a.json", json.dumps({"q": "Q", "label": "A"})), ("a.png", png()), ("b.txt", "T"), ("b.png", png())]
    path = write_tar(tmp_path / "x.tar", members)
    source = open_source({"path": path, "columns": {"question": "q", "answer": "label"}})
    assert [words(sample) for sample in source] == [["<image>Q", "A"], ["<image>", "T"]]


@pytest.mark.parametrize(
    "members, reason, message",
    [
        ([("a.jpg", png())], "schema", "no words.*it has jpg"),
        ([("a.json", "{"), ("a.jpg", png())], "bad_json", "not JSON"),
        ([("a.json", "3"), ("a.jpg", png())], "schema", "no object but a int"),
        ([("a.txt", b"\xff"), ("a.jpg", png())], "bad_text", "not UTF-8"),
        ([("a.jpg", png()), ("a.txt", "x"), ("a.JPG", png())], "name_collision", "two members are called a.JPG"),
        (
            [("a.json", json.dumps({**RECORD, "image": "/etc/passwd"}))],
            "missing_file",
            "names '/etc/passwd'.*there: none",
        ),
        ([("a.json", json.dumps({**RECORD, "image": "b.jpg"})), ("a.jpg", png())], "missing_file", "there: a.jpg"),
    ],
)
def test_bad_samples_name_shard_and_key(tmp_path, members, reason, message):
    source = open_source(write_tar(tmp_path / "x.tar", [*members, ("good.txt", "words"), ("good.png", png())]))
    with pytest.raises(SampleError, match=message) as error:
        source[0]
    assert error.value.reason == reason and error.value.path == f"{tmp_path}/x.tar:a"
    assert words(source[1]) == ["<image>", "words"]


def test_links_and_foreign_names_touch_nothing(tmp_path):
    secret = write_image(tmp_path / "secret.png")
    link = tarfile.TarInfo("a.png")
    link.type, link.linkname = tarfile.SYMTYPE, str(secret)
    hard = tarfile.TarInfo("b.png")
    hard.type, hard.linkname = tarfile.LNKTYPE, "../secret.png"
    members = [link, ("a.txt", "x"), hard, ("b.txt", "x"), ("/abs/c.png", png()), ("/abs/c.txt", "c"),
               ("../../d.png", png()), ("../../d.txt", "d")]  # fmt: skip
    source = open_source(write_tar(tmp_path / "d" / "x.tar", members))
    assert [source.where(i).partition(":")[2] for i in range(4)] == ["a", "b", "/abs/c", "../../d"]
    for index in (0, 1):  # the picture is gone, so the caption belongs to nothing
        with pytest.raises(SampleError, match="no conversation found"):
            source[index]
    assert [words(source[i])[1] for i in (2, 3)] == ["c", "d"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d", "secret.png"]


@pytest.mark.parametrize("damage", ["cut member", "cut header", "bad header"])
def test_a_damaged_shard_gives_what_is_whole_and_says_so(tmp_path, caplog, damage):
    shards(tmp_path / "d", count=2)
    path = tmp_path / "d" / "shards-000000.tar"
    data = bytearray(path.read_bytes())
    spot = index_tar(path).offsets[4]  # the picture of the third sample
    if damage == "bad header":
        data[spot - 512 : spot - 500] = b"\xff" * 12
    path.write_bytes(data[: {"cut member": spot + 10, "cut header": spot - 300}.get(damage)])
    with caplog.at_level(logging.WARNING):
        source = open_source(tmp_path / "d")
    assert "2 samples before that are used" in caplog.text and len(source) == 2 + 1 + 4
    with pytest.raises(SampleError, match="the shard ends here") as error:
        source[2]
    assert error.value.reason == "truncated_shard" and error.value.path == f"{path}:(end)"
    assert [words(source[i])[1][-1] for i in (0, 1, 3, 6)] == ["0", "1", "4", "7"]


def test_whole_sources_that_cannot_be_read(tmp_path):
    shards(tmp_path / "d", count=2)
    for path, message in (
        (tmp_path / "d" / "shards-{000000..000002}.tar", "shards-000002.tar' does not exist"),
        (write_tar(tmp_path / "empty.tar", []), "holds no samples"),
    ):
        with pytest.raises(DataError, match=message):
            open_source(path)
    (tmp_path / "x.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="compressed: unpack"):
        open_source(tmp_path / "x.tar.gz")


def test_outlines_hold_the_words_and_read_no_media(tmp_path, monkeypatch):
    named = {"messages": [{"role": "user", "content": [{"type": "image", "image": "b.jpg"}]},
                          {"role": "assistant", "content": "yes"}]}  # fmt: skip
    texts = [("a.txt", "caption"), ("b.json", json.dumps(named))]
    source = open_source(write_tar(tmp_path / "x.tar", sorted([*texts, *((f"{key}.jpg", png()) for key in "abc")])))
    whole = [source[0], source[1]]
    sizes = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, place: sizes.append(size) or pread(file, size, place))
    outlines = list(source.outlines())
    assert outlines[2] is None and [words(one) for one in outlines[:2]] == [words(one) for one in whole]
    assert [one for outline in outlines[:2] for one in outline.media()] == [("image", b"")] * 2
    assert sorted(sizes) == [len("caption"), len(json.dumps(named))]

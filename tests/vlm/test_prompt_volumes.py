"""Volume items in a prompt: what they become, within a budget, and what is refused."""

import sys
from pathlib import Path

import pytest

from tests.helpers.medical_files import body, write_series
from tests.helpers.tiny_processor import tiny_processor
from vlm.errors import SampleError
from vlm.prompt_volumes import expand_volumes

pytest.importorskip("pydicom", reason="optional package absent: pydicom")
QUESTION = {"type": "text", "text": "Where?"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_series(tmp_path / "series", body((32, 32, 6)))
    return tmp_path / "series"


def ask(folder, **options) -> list[dict]:
    return [{"role": "user", "content": [{"type": "volume", "volume": str(folder), **options}, QUESTION]}]


def texts(messages: list[dict]) -> list[str]:
    return [item["text"] if item["type"] == "text" else "*" for item in messages[0]["content"]]


def test_sentence_labels_and_pictures_in_order(folder: Path):
    messages = ask(folder, slices=2, window="lung", axis=None)
    with pytest.raises(SampleError, match="has no page"):
        expand_volumes(ask(folder, page=1))
    out = expand_volumes(messages)
    first = "CT volume of 6 axial slices, 5 mm apart, lung window.\n"
    assert texts(out) == [first, "Slice 2 of 6:\n", "*", "\n", "Slice 5 of 6:\n", "*", "\n", "Where?"]
    assert messages == ask(folder, slices=2, window="lung", axis=None), "the messages given are left as they were"
    assert texts(expand_volumes(ask(folder, slices=[6], labels=False))) == ["*", "Where?"]
    assert len([word for word in texts(expand_volumes(ask(folder, layout="montage"))) if word == "*"]) == 1
    for plain in ([{"role": "user", "content": "volume"}], [], None, [7], [{"role": "user", "content": [QUESTION]}]):
        assert expand_volumes(plain) is plain


def test_the_processor_takes_volumes_within_their_budget(folder: Path):
    processor = tiny_processor()
    encoded = processor.encode(ask(folder, slices=3), add_generation_prompt=True)
    text = processor.tokenizer.decode(encoded["input_ids"])
    assert text.index("Slice 2 of 6") < text.index("Slice 4 of 6") < text.index("Where?")
    by_hand = processor.encode(expand_volumes(ask(folder, slices=3)), add_generation_prompt=True)
    assert encoded["input_ids"].tolist() == by_hand["input_ids"].tolist()
    one = processor.num_image_tokens(40, 27)
    images = processor.encode(ask(folder, max_tokens=2 * one), add_generation_prompt=True)
    assert 0 < (images["input_ids"] == processor.image_token_id).sum() <= 2 * one
    written = processor.apply_chat_template(ask(folder, slices=1), tokenize=False)
    assert "Slice 4 of 6" in written


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"modality": "MR"}, "other_modality"), ({"window": "skin"}, "unknown_window"), ({"slices": [9]}, "bad_slice"),
        ({"labels": 1}, "bad_message"), ({"volume": None}, "no_media"), ({"volume": "nowhere"}, "missing_file"),
        ({"max_tokens": 100}, "no_counter"), ({"size": 3}, "bad_size"), ({"layout": "film"}, "bad_layout"),
        ({"axis": "x"}, "bad_axis"), ({"frame": 0}, "bad_frame"), ({"series": 2}, "bad_series"),
    ],
)  # fmt: skip
def test_bad_items(folder: Path, options: dict, reason: str):
    with pytest.raises(SampleError) as caught:
        expand_volumes([{"role": "user", "content": [{"type": "volume", "volume": str(folder), **options}]}])
    assert caught.value.reason == reason, caught.value


def test_where_the_package_is_not_installed(folder: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vlm.media.volume_items", None)
    with pytest.raises(SampleError, match="pass the slices as images") as caught:
        expand_volumes(ask(folder))
    assert caught.value.reason == "no_volume_reader"


def test_the_file_travels_in_a_flat_checkpoint():
    import vlm.prompt_volumes
    from vlm.self_contained import collect_code

    assert set(collect_code(Path(vlm.prompt_volumes.__file__))) == {"prompt_volumes.py", "errors.py"}
